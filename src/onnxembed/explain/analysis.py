"""Graphs made on demand, in which the encoder differs from the model's own. Needs the extra [export].

They are built as an export builds them, from the folder's config.json with other values, and from the weights of the
graph that is there: no checkpoint is needed. Their one output is token_embeddings.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from importlib.util import find_spec
from pathlib import Path
from shutil import rmtree
from tempfile import TemporaryDirectory
from typing import Any

from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import OnnxEmbedError
from onnxembed.execution.backend import Backend, GraphFiles
from onnxembed.execution.opening import open_backend
from onnxembed.execution.providers import Placement
from onnxembed.execution.providers import decide as decide_place
from onnxembed.explain.builds import BIDIRECTIONAL
from onnxembed.explain.formats import quantize
from onnxembed.explain.setup import Build
from onnxembed.facts.facts import read_facts
from onnxembed.json_file import read_optional_json
from onnxembed.manifest import TOKEN_EMBEDDINGS
from onnxembed.reranker import OnnxReranker

ROOM = 2 * 2**30
"""Bytes of graphs that are open at once. Of a large model, the one used longest ago is closed, and built again."""


class CannotBuildError(Exception):
    """A graph cannot be made; the words say why."""


class AnalysisGraphs:
    """The graphs of one model with another encoder, each opened when it is first asked for.

    `close` frees them. Not for several threads.
    """

    def __init__(self, model: OnnxEmbedder | OnnxReranker) -> None:
        self._model = model
        self._open: dict[str, Backend] = {}  # the one used last at the end
        self._sizes: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._folder = TemporaryDirectory(prefix="onnxembed-explain-")

    def close(self) -> None:
        """Close and remove every graph."""
        for backend in self._open.values():
            backend.close()
        self._folder.cleanup()

    @cached_property
    def config(self) -> dict[str, Any]:
        """The folder's config.json; empty where there is none."""
        return {**read_optional_json(self._model.folder / "config.json")}

    def backend(self, build: Build) -> Backend:
        """The open graph of a build that is not the model's own. Raises CannotBuildError with the reason."""
        key = build.key
        if key in self._failed:
            raise CannotBuildError(self._failed[key])
        if key not in self._open:
            try:
                self._open[key] = self._opened(build)
            except CannotBuildError as error:
                self._failed[key] = str(error)
                raise
            self._make_room()
        self._open[key] = self._open.pop(key)
        return self._open[key]

    def _make_room(self) -> None:
        while len(self._open) > 1 and sum(self._sizes[key] for key in self._open) > ROOM:
            oldest = next(iter(self._open))
            self._open.pop(oldest).close()
            rmtree(self._place(oldest))

    def _place(self, key: str) -> Path:
        return Path(self._folder.name) / sha256(key.encode()).hexdigest()[:16]

    def _opened(self, build: Build) -> Backend:
        if reason := self.unavailable:
            raise CannotBuildError(reason)
        from onnxembed.export.artifact.graph_file import write_graph
        from onnxembed.progress import silent

        folder = self._place(build.key)
        try:
            graph = self._built(build)
            variant = write_graph(graph, folder, "fp32", silent)
            written = folder / variant.file
            if build.numbers:
                quantize(written, build.numbers, external=variant.data is not None)
            size = self._sizes[build.key] = sum(file.stat().st_size for file in written.parent.iterdir())
            return open_backend(GraphFiles(written, size), decide_place(Placement("cpu")))
        except (OnnxEmbedError, KeyError) as error:
            raise CannotBuildError(str(error)) from None

    @cached_property
    def unavailable(self) -> str:
        """Why no such graph can be made; "" if they can."""
        manifest = self._model.manifest
        if find_spec("onnx") is None:
            return "it needs another graph, and pip install 'onnxembed[export]' to build one"
        from onnxembed.export.architectures import ARCHITECTURES

        row = ARCHITECTURES.get(manifest.model.model_type)
        if row is None or row.build is None or manifest.model.engine != "build":
            return f"it needs another graph, and this one was made by engine {manifest.model.engine}"
        if "fp32" not in manifest.variants:
            return "it needs another graph, and the folder has no fp32 graph to take weights from"
        return ""

    def _built(self, build: Build) -> Any:
        from onnxembed.explain.stored_weights import StoredWeights
        from onnxembed.export.architectures import ARCHITECTURES
        from onnxembed.export.checkpoint.config import Config
        from onnxembed.export.graph.graph import Graph
        from onnxembed.export.graph.inputs import B, Encoded, PaddedInputs, T

        manifest, folder = self._model.manifest, self._model.folder
        row = ARCHITECTURES[manifest.model.model_type]
        assert row.build is not None
        shifted = {"position_embeddings.weight": build.shift} if build.shift else None
        weights = StoredWeights(folder, folder / manifest.variants["fp32"].file, shifted, build.numbers)
        config = {**self.config, **build.activation, **build.rope, **build.windows}
        if build.attention is not None and BIDIRECTIONAL in config:
            config[BIDIRECTIONAL] = build.attention == "bidirectional"
        graph = Graph(weights, "fp32")
        attention = build.attention or manifest.model.attention.value
        inputs = PaddedInputs(graph, causal=attention == "causal")
        if inputs.mask.causal:
            # No run is free: the kernel of free causal runs adds no biases, which the builders of encoders leave to it.
            inputs.mask = replace(inputs.mask, free="")
        tokens = graph.to_float32(row.build(graph, Config(config, str(folder / "config.json")), inputs))
        if manifest.reranking is None:
            graph.output(TOKEN_EMBEDDINGS, tokens, (B, T, "width"))
        else:
            self._add_head(Encoded(graph, inputs, tokens, inputs.pool), config, build)
        return graph

    def _add_head(self, encoded: Any, config: dict[str, Any], build: Build) -> None:
        """Declare the output logits of a reranker, whose head may read something else."""
        from onnxembed.decisions.decide import decide
        from onnxembed.export.heads import reranking

        facts = replace(read_facts(self._model.folder), config=config)
        decisions = decide(facts)
        decided = decisions.reranking
        if decided is None:
            raise CannotBuildError("it needs another graph, and the folder's files do not say that it scores pairs")
        pooling = replace(decided.pooling, value=build.head or decided.pooling.value)
        reranking.add_output(encoded, facts, replace(decisions, reranking=replace(decided, pooling=pooling)))
