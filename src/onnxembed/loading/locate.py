"""A folder or hub id -> an artifact's folder, its manifest, and the graph to run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.hub.fetch import fetch, fetch_first, list_files
from onnxembed.hub.source import Fetched, HubOptions
from onnxembed.loading.located import Located
from onnxembed.manifest import FILE_NAME, Manifest, Variant, graph_file, read_manifest


def locate(
    model: str | Path,
    hub: HubOptions | None = None,
    *,
    precision: str = "auto",
    onnx_file: str | None = None,
    gpu: bool = False,
) -> Located:
    """Find an artifact, or a graph to adopt, and, of a hub repository, fetch the files of the wanted precision.

    `precision` "auto" is fp32 where the artifact has it, else what it has; `onnx_file` names the graph to adopt;
    `gpu` fetches what only a GPU runs.
    Raises ModelFilesError for what is neither, HubError when the hub could not be asked, UsageError for a
    precision that is not there, and what `adopt` does.
    """
    hub = hub or HubOptions()
    found, name = find(model, precision, onnx_file, hub)
    at = replace(hub, revision=found.revision)
    if name != FILE_NAME:
        return _adopt(model, name, precision, at)
    manifest = read_manifest(found.folder)
    located = Located(found.folder, manifest, _variant(manifest, precision), gpu=gpu)
    if found.revision is not None:  # a local folder has its files, or check_sizes says so
        fetch(model, at, wanted=located.files)
    return located


def read(model: str | Path, onnx_file: str | None, hub: HubOptions) -> Manifest:
    """The manifest of an artifact, whose graphs are not fetched, or of a model to adopt; errors as of `locate`."""
    found, name = find(model, "auto", onnx_file, hub)
    if name == FILE_NAME:
        return read_manifest(found.folder)
    return _adopt(model, name, "auto", replace(hub, revision=found.revision)).manifest


def find(model: str | Path, precision: str, onnx_file: str | None, hub: HubOptions) -> tuple[Fetched, str]:
    """The folder of a model with its manifest or else an ONNX graph, and which of them it is, by its name."""
    found, name = fetch_first(model, hub, candidates=[FILE_NAME, *graph_names(precision, onnx_file)])
    if name == FILE_NAME and onnx_file is not None:
        raise UsageError(f"{model} is an artifact of onnxembed: choose its graph by precision, not by onnx_file")
    return found, name or _sole_graph(model, onnx_file, replace(hub, revision=found.revision))


def graph_names(precision: str, onnx_file: str | None) -> list[str]:
    """Where a graph is looked for, in this order: in onnx/ and in the root, where others look for it, too."""
    if onnx_file is not None:
        return [PurePosixPath(onnx_file).as_posix()]
    precisions = ["fp32"] if precision in ("auto", "fp32") else [precision, "fp32"]
    return [name for file in map(graph_file, precisions) for name in (file, PurePosixPath(file).name)]


def _sole_graph(model: str | Path, onnx_file: str | None, hub: HubOptions) -> str:
    """The one ONNX file of a model that has none of the usual names; ModelFilesError for none and for several."""
    names = list_files(model, hub)
    graphs = sorted(name for name in names if name.endswith(".onnx"))
    if not graphs:
        what = f"{model} has no {FILE_NAME}: it is not an onnxembed artifact"
        raise ModelFilesError(f"{what}; make one with: onnxembed export {model} -o DIR")
    if onnx_file is not None:
        raise UsageError(f"{model} has no {onnx_file}; its ONNX files: {', '.join(graphs)}")
    if len(graphs) > 1:
        raise ModelFilesError(
            f"{model} has several ONNX files, and none is onnx/model.onnx or model.onnx; choose one with onnx_file "
            f"(--onnx-file): {', '.join(graphs)}"
        )
    return graphs[0]


def _adopt(model: str | Path, file: str, precision: str, hub: HubOptions) -> Located:
    from onnxembed.loading.adopt import adopt  # an artifact needs nothing of it

    return adopt(model, file, precision=precision, hub=hub)


def _variant(manifest: Manifest, precision: str) -> Variant:
    if precision == "auto":
        precision = "fp32" if "fp32" in manifest.variants else next(iter(manifest.variants))
    return manifest.variant(precision)
