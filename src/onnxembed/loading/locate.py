"""A folder or hub id -> an artifact's folder, its manifest, and the graph to run."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import NamedTuple

from onnxembed.errors import ModelFilesError, NotAnArtifactError, UnsupportedError, UsageError
from onnxembed.execution.backend import GraphFiles
from onnxembed.execution.opening import bf16_way
from onnxembed.execution.providers import Device
from onnxembed.hub.model_files import ModelFiles, open_model_files
from onnxembed.hub.source import HubOptions
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
    device: Device | None = None,
    choices: AdoptionChoices | None = None,
) -> LocatedArtifact:
    """Find an artifact, or a graph to adopt; from the hub, fetch the files of the wanted precision.

    `precision` "auto" is fp32 if the artifact has it, else what it has; `onnx_file` names the graph to adopt, and
    `choices` are what the caller decides about it; `device` is what will run the graph: a GPU runs a packed form, and
    the CPU computes "bf16" from the fp32 graph.
    Raises ModelFilesError if there is neither, HubError if the hub cannot be asked, UsageError for a precision
    that the artifact does not have, ProviderError for bf16 on a CPU without it, and the errors of `adopt`.
    """
    if precision not in ("auto", *PRECISIONS):
        raise UsageError(f"precision is {precision!r}, not one of auto, {', '.join(PRECISIONS)}")
    choices = choices or AdoptionChoices()
    files, name = find(model, hub or HubOptions(), precision, onnx_file)
    if name != FILE_NAME:
        return _adopt(files, name, precision, choices)
    if choices != AdoptionChoices():
        raise UsageError(
            f"{model} is an artifact of onnxembed, about which everything is decided: pooling, normalize, task, "
            "activation and share_scales are for a graph that another program made"
        )
    if files.revision is not None:
        files.check([FILE_NAME])
    on_gpu = device == "gpu"
    manifest, chosen, records = choose_graph(files.folder, precision, packed=on_gpu, cpu=device == "cpu")
    in_bf16 = precision == "bf16" and chosen == "fp32"
    if in_bf16 and manifest.model.engine == "adopted":
        raise UnsupportedError(
            f"{model}: another program made its graph, so nothing proves its vectors in bf16 on a CPU; use precision "
            "fp32, or make a graph with onnxembed export"
        )
    way = bf16_way() if in_bf16 else None
    if files.revision is not None:  # check_files finds what a local folder lacks
        files.get(records, [SIMILARITY_FILE])
        files.check([SIMILARITY_FILE])
        files.remember()
    variant = manifest.variants[chosen]
    graph = GraphFiles(
        files.folder / variant.file,
        size=sum(records[file].bytes for file in (variant.file, variant.data) if file),
        cuda_only=chosen in CUDA_ONLY,
        packed=files.folder / variant.packed.file if on_gpu and variant.packed else None,
        quantized=variant.quality is not None,
        one_text=bool(variant.one_text and variant.one_text.value),
        built=manifest.model.engine == "build",
        bf16=way,
    )
    return LocatedArtifact(files, manifest, chosen, graph, records)


def fetch_artifact(model: str | Path, hub: HubOptions, precision: str | None = None) -> Path:
    """The folder of an artifact, with the files of one of its graphs, or of all; those of a hub model are fetched.

    Raises NotAnArtifactError for a model without a manifest, and what `locate` does.
    """
    files = open_model_files(model, hub)
    if files.first([FILE_NAME]) is None:
        raise NotAnArtifactError(
            f"{model} has no {FILE_NAME}: make an artifact of it with onnxembed adopt {model} -o DIR if it has an ONNX "
            f"graph, else with onnxembed export {model} -o DIR"
        )
    if files.revision is None:
        return Path(model).expanduser()
    manifest = _own_manifest(files)
    wanted = [*manifest.variants] if precision is None else [precision]
    if precision == "bf16":  # a CPU computes it from the fp32 graph
        wanted = [name for name in ("fp32", "bf16") if name in manifest.variants] or wanted
    for name in wanted:
        _, _, records = choose_graph(files.folder, name, packed=False)
        files.get(records)
    return files.folder


class ModelManifest(NamedTuple):
    """What is known of a model without its graph."""

    manifest: Manifest
    revision: str | None
    """The commit of a hub model, None for a folder."""


def read_model_manifest(model: str | Path, hub: HubOptions, onnx_file: str | None) -> ModelManifest:
    """The manifest of an artifact, without fetching its graphs, or of a model to adopt; errors as for `locate`."""
    return manifest_of(open_model_files(model, hub), onnx_file)


def manifest_of(files: ModelFiles, onnx_file: str | None) -> ModelManifest:
    """`read_model_manifest` of a model whose files are open."""
    name = _find_in(files, "auto", onnx_file)
    own = name == FILE_NAME
    manifest = _own_manifest(files) if own else _adopt(files, name, "auto", AdoptionChoices()).manifest
    return ModelManifest(manifest, files.revision)


def find(model: str | Path, hub: HubOptions, precision: str, onnx_file: str | None) -> tuple[ModelFiles, str]:
    """A model's files, and the name of one that is then in their folder: the manifest, or else an ONNX graph."""
    files = open_model_files(model, hub)
    return files, _find_in(files, precision, onnx_file)


def _find_in(files: ModelFiles, precision: str, onnx_file: str | None) -> str:
    name = files.first([FILE_NAME, *graph_names(precision, onnx_file)])
    if name == FILE_NAME and onnx_file is not None:
        raise UsageError(f"{files.model} is an artifact of onnxembed: choose its graph by precision, not by onnx_file")
    return name or _sole_graph(files, onnx_file)


def _own_manifest(files: ModelFiles) -> Manifest:
    files.check([FILE_NAME])
    return read_manifest(files.folder)


def graph_names(precision: str, onnx_file: str | None) -> list[str]:
    """The paths to look for a graph, in order: in onnx/, then in the root, as other programs do."""
    if onnx_file is not None:
        return [PurePosixPath(onnx_file).as_posix()]
    if precision in ("auto", "fp32"):
        return [*USUAL]
    path = graph_file(precision)
    return [path, PurePosixPath(path).name, *USUAL]


def _sole_graph(files: ModelFiles, onnx_file: str | None) -> str:
    """The only ONNX file of a model, whatever its name; ModelFilesError if there is none, or more than one."""
    model = files.model
    graphs = sorted(name for name in files.names if name.endswith(".onnx"))
    if not graphs:
        try:
            files.get([FILE_NAME])  # without the hub, nobody knows whether the model has it
        except ModelFilesError as error:
            cure = f"make one with: onnxembed export {model} -o DIR"
            raise NotAnArtifactError(f"{error}: it is not an onnxembed artifact; {cure}") from None
    if onnx_file is not None:
        try:
            files.get([onnx_file])
        except ModelFilesError:
            raise UsageError(f"{model} has no {onnx_file}; its ONNX files: {', '.join(graphs)}") from None
        return onnx_file
    if len(graphs) > 1:
        raise ModelFilesError(
            f"{model} has several ONNX files, and none is onnx/model.onnx or model.onnx; choose one with onnx_file "
            f"(--onnx-file): {', '.join(graphs)}"
        )
    return graphs[0]


def _adopt(files: ModelFiles, file: str, precision: str, choices: AdoptionChoices) -> LocatedArtifact:
    from onnxembed.loading.adopt import adopt  # not needed for an artifact

    return adopt(files, file, precision, choices)
