"""A model with an ONNX graph that another program made: where its files lie, and what they say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.facts.facts import Facts, read_facts
from onnxembed.facts.multi_vector import STANFORD_METADATA
from onnxembed.facts.transformer import TRANSFORMER_CONFIGS
from onnxembed.hub.checkpoint_files import VOCABULARIES, WEIGHTS, module_places
from onnxembed.hub.model_files import ModelFiles
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

    files: ModelFiles
    graph: OnnxFile
    facts: Facts

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self.files.folder

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


def read_found_graph(files: ModelFiles, file: str, precision: str) -> FoundGraph:
    """Fetch the files that belong to the graph `file` of a model, and read the graph and the files.

    Raises ModelFilesError for files that are missing or not an ONNX graph, UsageError for a graph of another
    precision than asked for, UnsupportedError for what onnxembed does not support.
    """
    folder = files.folder
    files.get([file], [*SENTENCE_FILES, *TRANSFORMER_FILES])
    files.check([file, *SENTENCE_FILES, *TRANSFORMER_FILES])
    graph = read_onnx(folder / file)
    data = [(PurePosixPath(file).parent / name).as_posix() for name in _data_files(graph)]
    files.get(data)
    files.check(data)
    if files.revision is not None:
        for place, class_name in _modules(folder):
            names = TRANSFORMER_FILES if class_name == "Transformer" else ("config.json", *WEIGHTS)
            _get_and_check(files, [f"{place}{name}" for name in names])
            if class_name == "Transformer" and not (folder / place / "tokenizer.json").is_file():
                _get_and_check(files, [f"{place}{name}" for name in VOCABULARIES])
    files.remember()
    found_graph = FoundGraph(files, graph, read_facts(folder))
    if precision not in ("auto", found_graph.precision):
        raise UsageError(
            f"{files.model} has no {precision} graph under that name: the weights of {file} are "
            f"{graph.weights or 'unknown'}{_rounded(graph)}; name another of its ONNX files with onnx_file "
            "(--onnx-file)"
        )
    return found_graph


def _get_and_check(files: ModelFiles, optional: list[str]) -> None:
    files.get((), optional)
    files.check(optional)


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
