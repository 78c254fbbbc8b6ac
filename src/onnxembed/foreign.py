"""A model with an ONNX graph that something else made: where its files lie, and what they say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.facts import TRANSFORMER_CONFIGS, Facts, read_facts
from onnxembed.hub import Fetched, fetch, list_files, module_places
from onnxembed.manifest import FILE_NAME
from onnxembed.onnx_file import OnnxFile, read_onnx

FOLDERS = ("onnx/", "")  # in the order in which others look, too

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
VOCABULARIES = (
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "sentencepiece.bpe.model",
    "spiece.model",
    "spm.model",
    "tokenizer.model",
)
DENSE_WEIGHTS = ("model.safetensors", "pytorch_model.bin")


@dataclass(frozen=True)
class Hub:
    """Where and how a hub model is asked for; a local folder ignores it."""

    revision: str | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False


@dataclass(frozen=True)
class Foreign:
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


def graph_names(precision: str, onnx_file: str | None) -> list[str]:
    """Where a graph is looked for, in this order."""
    if onnx_file is not None:
        return [PurePosixPath(onnx_file).as_posix()]
    named = [] if precision in ("auto", "fp32") else [f"model_{precision}.onnx"]
    return [folder + name for name in (*named, "model.onnx") for folder in FOLDERS]


def sole_graph(model: str | Path, onnx_file: str | None, hub: Hub) -> str:
    """The one ONNX file of a model that has none of the usual names; ModelFilesError for none and for several."""
    names = list_files(model, **vars(hub))
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    if not graphs:
        what = f"{model} has no {FILE_NAME}: it is not an onnxembed artefact"
        raise ModelFilesError(f"{what}; make one with: onnxembed export {model} -o DIR")
    if onnx_file is not None:
        raise UsageError(f"{model} has no {onnx_file}; its ONNX files: {', '.join(graphs)}")
    if len(graphs) > 1:
        raise ModelFilesError(
            f"{model} has several ONNX files, and none is onnx/model.onnx or model.onnx; choose one with onnx_file "
            f"(--onnx-file): {', '.join(graphs)}"
        )
    return graphs[0]


def read_foreign(model: str | Path, file: str, precision: str, hub: Hub) -> Foreign:
    """Fetch what belongs to the graph `file` of a model, and read what graph and files say.

    Raises ModelFilesError for files that are missing or no ONNX graph, UsageError for a graph of another
    precision than asked for, UnsupportedError for what onnxembed does not do.
    """

    def get(wanted: Sequence[str], optional: Sequence[str] = ()) -> Fetched:
        return fetch(model, wanted=wanted, optional=optional, **vars(hub))

    got = get([file], [*SENTENCE_FILES, *TRANSFORMER_FILES])
    if got.revision is not None:
        hub = replace(hub, revision=got.revision)
    graph = read_onnx(got.folder / file)
    beside = PurePosixPath(file).parent
    if graph.data:
        get([(beside / name).as_posix() for name in _data_files(graph)])
    if got.revision is not None:
        for place, kind in _modules(got.folder):
            names = TRANSFORMER_FILES if kind == "Transformer" else ("config.json", *DENSE_WEIGHTS)
            get([file], [f"{place}{name}" for name in names])
            if kind == "Transformer" and not (got.folder / place / "tokenizer.json").is_file():
                get([file], [f"{place}{name}" for name in VOCABULARIES])
    found = Foreign(str(model), got.folder, got.revision, graph, read_facts(got.folder))
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
