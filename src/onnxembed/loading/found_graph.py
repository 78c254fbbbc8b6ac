"""A model with an ONNX graph that something else made: where its files lie, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.facts.facts import Facts, read_facts
from onnxembed.facts.transformer import TRANSFORMER_CONFIGS
from onnxembed.hub.checkpoint_files import VOCABULARIES, WEIGHTS, module_places
from onnxembed.hub.fetch import fetch
from onnxembed.hub.source import Fetched, HubOptions
from onnxembed.loading.onnx_file import OnnxFile, read_onnx

# The type of a graph's weights -> the precision that it is.
PRECISION_OF = {"float32": "fp32", "float16": "fp16"}

SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json")
TRANSFORMER_FILES = (
    "config.json",
    *TRANSFORMER_CONFIGS,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)


@dataclass(frozen=True)
class FoundGraph:
    """A model with an ONNX graph that was not made here: where its files lie, and what they say."""

    model: str
    folder: Path
    revision: str | None
    graph: OnnxFile
    facts: Facts

    @property
    def file(self) -> str:
        """The graph's path in the folder."""
        return self.graph.path.relative_to(self.folder).as_posix()

    @property
    def precision(self) -> str:
        """fp32 or fp16 where the graph's weights are, else the name of its file."""
        return PRECISION_OF.get(self.graph.weights or "", self.graph.path.stem)


def read_found_graph(model: str | Path, hub: HubOptions, file: str, precision: str) -> FoundGraph:
    """Fetch what belongs to the graph `file` of a model, and read what graph and files say.

    Raises ModelFilesError for files that are missing or no ONNX graph, UsageError for a graph of another
    precision than asked for, UnsupportedError for what onnxembed does not do.
    """

    def get(wanted: Sequence[str], optional: Sequence[str] = ()) -> Fetched:
        return fetch(model, hub, wanted=wanted, optional=optional)

    got = get([file], [*SENTENCE_FILES, *TRANSFORMER_FILES])
    if got.revision is not None:
        hub = replace(hub, revision=got.revision)
    graph = read_onnx(got.folder / file)
    beside = PurePosixPath(file).parent
    if graph.data:
        get([(beside / name).as_posix() for name in _data_files(graph)])
    if got.revision is not None:
        for place, kind in _modules(got.folder):
            names = TRANSFORMER_FILES if kind == "Transformer" else ("config.json", *WEIGHTS)
            get([file], [f"{place}{name}" for name in names])
            if kind == "Transformer" and not (got.folder / place / "tokenizer.json").is_file():
                get([file], [f"{place}{name}" for name in VOCABULARIES])
    found = FoundGraph(str(model), got.folder, got.revision, graph, read_facts(got.folder))
    if precision not in ("auto", found.precision):
        raise UsageError(
            f"{model} has no {precision} graph that is named as such: the weights of {file} are "
            f"{graph.weights or 'unknown'}; name another of its ONNX files with onnx_file (--onnx-file)"
        )
    return found


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    """Place and class of each sentence-transformers module; `read_facts` judges them."""
    if not (folder / "modules.json").is_file():
        yield "", "Transformer"
        return
    for kind, path in module_places(folder):
        yield (f"{path}/" if path else ""), kind


def _data_files(graph: OnnxFile) -> list[str]:
    """The files beside the graph that hold its weights."""
    for name in graph.data:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise ModelFilesError(f"{graph.path} keeps weights in {name!r}, which is outside its folder")
    return sorted(graph.data)
