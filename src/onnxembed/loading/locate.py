"""A folder or hub id -> an artifact's folder, its manifest, and the graph to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from onnxembed.errors import ModelFilesError, NotAnArtifactError, UsageError
from onnxembed.execution.backend import GraphFiles
from onnxembed.hub.fetch import fetch, fetch_first, list_files
from onnxembed.hub.source import Fetched, HubOptions, local_folder
from onnxembed.loading.choices import AdoptionChoices
from onnxembed.loading.located import LocatedArtifact
from onnxembed.manifest import CUDA_ONLY, FILE_NAME, PRECISIONS, Manifest, graph_file, read_manifest
from onnxembed.manifest.reading import choose_graph

USUAL = (graph_file("fp32"), PurePosixPath(graph_file("fp32")).name)
"""The usual places of a graph."""

SIMILARITY_FILE = "config_sentence_transformers.json"
"""Where sentence-transformers says how vectors are compared. A model without it, or a cache from before, opens, too."""


def locate(
    model: str | Path,
    hub: HubOptions | None = None,
    *,
    precision: str = "auto",
    onnx_file: str | None = None,
    gpu: bool = False,
    choices: AdoptionChoices | None = None,
) -> LocatedArtifact:
    """Find an artifact, or a graph to adopt; from the hub, fetch the files of the wanted precision.

    `precision` "auto" is fp32 if the artifact has it, else what it has; `onnx_file` names the graph to adopt, and
    `choices` are what the caller decides about it; `gpu` says whether a GPU will run the graph.
    Raises ModelFilesError if there is neither, HubError if the hub cannot be asked, UsageError for a precision
    that the artifact does not have, and the errors of `adopt`.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision is {precision!r}, not one of auto, {', '.join(PRECISIONS)}")
    hub, choices = hub or HubOptions(), choices or AdoptionChoices()
    files, name = find(model, hub, precision, onnx_file)
    pinned = replace(hub, revision=files.revision)
    if name != FILE_NAME:
        return _adopt(model, pinned, name, precision, choices)
    if choices != AdoptionChoices():
        raise UsageError(
            f"{model} is an artifact of onnxembed, about which everything is decided: pooling, normalize, task, "
            "activation and share_scales are for a graph that another program made"
        )
    manifest, precision, records = choose_graph(files.folder, precision, packed=gpu)
    if files.revision is not None:  # check_files finds what a local folder lacks
        fetch(model, pinned, wanted=[*records], optional=[SIMILARITY_FILE])
    variant = manifest.variants[precision]
    graph = GraphFiles(
        files.folder / variant.file,
        size=sum(records[file].bytes for file in (variant.file, variant.data) if file),
        cuda_only=precision in CUDA_ONLY,
        packed=files.folder / variant.packed.file if gpu and variant.packed else None,
        quantized=variant.quality is not None,
        one_text=bool(variant.one_text and variant.one_text.value),
    )
    return LocatedArtifact(files.folder, files.revision, manifest, precision, graph, records)


def read_model_manifest(model: str | Path, hub: HubOptions, onnx_file: str | None) -> Manifest:
    """The manifest of an artifact, without fetching its graphs, or of a model to adopt; errors as for `locate`."""
    files, name = find(model, hub, "auto", onnx_file)
    if name == FILE_NAME:
        return read_manifest(files.folder)
    pinned = replace(hub, revision=files.revision)
    return _adopt(model, pinned, name, "auto", AdoptionChoices()).manifest


def find(model: str | Path, hub: HubOptions, precision: str, onnx_file: str | None) -> tuple[Fetched, str]:
    """A model's folder and the name of one file in it: the manifest, or else an ONNX graph."""
    candidates = [FILE_NAME, *graph_names(precision, onnx_file)]
    if (folder := local_folder(model, hub.revision)) is not None:
        files, name = Fetched(str(model), folder, None), next((n for n in candidates if (folder / n).is_file()), None)
    else:
        files, name = fetch_first(model, hub, candidates=candidates)
    if name == FILE_NAME and onnx_file is not None:
        raise UsageError(f"{model} is an artifact of onnxembed: choose its graph by precision, not by onnx_file")
    return files, name or _sole_graph(model, replace(hub, revision=files.revision), onnx_file)


def graph_names(precision: str, onnx_file: str | None) -> list[str]:
    """The paths to look for a graph, in order: in onnx/, then in the root, as other programs do."""
    if onnx_file is not None:
        return [PurePosixPath(onnx_file).as_posix()]
    if precision in ("auto", "fp32"):
        return [*USUAL]
    path = graph_file(precision)
    return [path, PurePosixPath(path).name, *USUAL]


def _sole_graph(model: str | Path, hub: HubOptions, onnx_file: str | None) -> str:
    """The only ONNX file of a model, whatever its name; ModelFilesError if there is none, or more than one."""
    names = list_files(model, hub)
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    if not graphs:
        problem = f"{model} has no {FILE_NAME}: it is not an onnxembed artifact"
        raise NotAnArtifactError(f"{problem}; make one with: onnxembed export {model} -o DIR")
    if onnx_file is not None:
        raise UsageError(f"{model} has no {onnx_file}; its ONNX files: {', '.join(graphs)}")
    if len(graphs) > 1:
        raise ModelFilesError(
            f"{model} has several ONNX files, and none is onnx/model.onnx or model.onnx; choose one with onnx_file "
            f"(--onnx-file): {', '.join(graphs)}"
        )
    return graphs[0]


def _adopt(model: str | Path, hub: HubOptions, file: str, precision: str, choices: AdoptionChoices) -> LocatedArtifact:
    from onnxembed.loading.adopt import adopt  # not needed for an artifact

    return adopt(model, hub, file, precision, choices)
