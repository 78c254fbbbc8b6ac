"""A model with an ONNX graph that another program made: where its files lie, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.facts.facts import Facts, read_facts
from onnxembed.facts.multi_vector import STANFORD_METADATA
from onnxembed.facts.transformer import TRANSFORMER_CONFIGS
from onnxembed.hub.checkpoint_files import VOCABULARIES, WEIGHTS, module_places
from onnxembed.hub.fetch import fetch
from onnxembed.hub.source import Fetched, HubOptions
from onnxembed.loading.onnx_file import INTEGERS, OnnxFile, read_onnx

# The type of a graph's weights -> its precision.
PRECISION_OF = {"float32": "fp32", "float16": "fp16"}

SENTENCE_FILES = ("modules.json", "config_sentence_transformers.json", STANFORD_METADATA)
TRANSFORMER_FILES = (
    "config.json",
    *TRANSFORMER_CONFIGS,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
)


@dataclass(frozen=True)
class FoundGraph:
    """A model with an ONNX graph that another program made: where its files lie, and what they say."""

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
        """fp32 or fp16 if that is the type of the graph's weights, else the file's name without suffix.

        A graph that rounds its outputs to integers is neither.
        """
        rounded = any(output.element_type in INTEGERS for output in self.graph.outputs)
        return self.graph.path.stem if rounded else PRECISION_OF.get(self.graph.weights or "", self.graph.path.stem)


def read_found_graph(model: str | Path, hub: HubOptions, file: str, precision: str) -> FoundGraph:
    """Fetch the files that belong to the graph `file` of a model, and read the graph and the files.

    Raises ModelFilesError for files that are missing or not an ONNX graph, UsageError for a graph of another
    precision than asked for, UnsupportedError for what onnxembed does not support.
    """

    def get(wanted: Sequence[str], optional: Sequence[str] = ()) -> Fetched:
        return fetch(model, hub, wanted=wanted, optional=optional)

    fetched = get([file], [*SENTENCE_FILES, *TRANSFORMER_FILES])
    if fetched.revision is not None:
        hub = replace(hub, revision=fetched.revision)
    graph = read_onnx(fetched.folder / file)
    graph_folder = PurePosixPath(file).parent
    if graph.data:
        get([(graph_folder / name).as_posix() for name in _data_files(graph)])
    if fetched.revision is not None:
        for place, class_name in _modules(fetched.folder):
            names = TRANSFORMER_FILES if class_name == "Transformer" else ("config.json", *WEIGHTS)
            get([file], [f"{place}{name}" for name in names])
            if class_name == "Transformer" and not (fetched.folder / place / "tokenizer.json").is_file():
                get([file], [f"{place}{name}" for name in VOCABULARIES])
    found_graph = FoundGraph(str(model), fetched.folder, fetched.revision, graph, read_facts(fetched.folder))
    if precision not in ("auto", found_graph.precision):
        raise UsageError(
            f"{model} has no {precision} graph under that name: the weights of {file} are "
            f"{graph.weights or 'unknown'}{_rounded(graph)}; name another of its ONNX files with onnx_file "
            "(--onnx-file)"
        )
    return found_graph


def _rounded(graph: OnnxFile) -> str:
    """What the graph's outputs are if they are integers, as a part of a message."""
    types = {output.element_type for output in graph.outputs} & {*INTEGERS}
    return f" and its outputs {' and '.join(sorted(types))}" if types else ""


def _modules(folder: Path) -> Iterator[tuple[str, str]]:
    """Place and class of each sentence-transformers module; `read_facts` checks them."""
    if not (folder / "modules.json").is_file():
        yield "", "Transformer"
        return
    for class_name, path in module_places(folder):
        yield (f"{path}/" if path else ""), class_name


def _data_files(graph: OnnxFile) -> list[str]:
    """The files next to the graph that hold its weights."""
    for name in graph.data:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise ModelFilesError(f"{graph.path} keeps weights in {name!r}, which is outside its folder")
    return sorted(graph.data)
