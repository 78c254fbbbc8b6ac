"""A folder or hub id -> an artefact's folder, its manifest, and the graph to run."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from onnxembed.devices import GraphFiles
from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.hub import Fetched, Hub, fetch, fetch_first, list_files
from onnxembed.integrity import check_hashes, check_sizes
from onnxembed.manifest import CUDA_ONLY, FILE_NAME, Manifest, Variant, read_manifest

FOLDERS = ("onnx/", "")  # of graphs, in the order in which others look, too


@dataclass(frozen=True)
class Located:
    """An artefact whose files are at hand: those that its manifest needs for one of its graphs.

    Of a model that was adopted in memory `tokenizer` is the text of its tokenizer.json, as changed; nobody
    recorded its files, so there is nothing to check them against. `gpu`: the graph's packed form is read, too.
    """

    folder: Path
    manifest: Manifest
    variant: Variant
    tokenizer: str | None = None
    gpu: bool = False

    @property
    def precision(self) -> str:
        """The precision of the graph."""
        return next(name for name, variant in self.manifest.variants.items() if variant is self.variant)

    @property
    def graph(self) -> GraphFiles:
        """The graph to open."""
        size = sum((self.folder / file).stat().st_size for file in (self.variant.file, self.variant.data) if file)
        packed = self.folder / self.variant.packed.file if self.variant.packed and self.gpu else None
        quantized = self.variant.quality is not None
        return GraphFiles(self.folder / self.variant.file, size, self.precision in CUDA_ONLY, packed, quantized)

    @property
    def files(self) -> list[str]:
        """The recorded files that the runtime reads."""
        dense = self.manifest.embedding.dense if self.manifest.embedding else ()
        arrays = [file for layer in dense for file in (layer.weight, layer.bias)]
        packed = self.variant.packed.file if self.variant.packed and self.gpu else None
        read = ("tokenizer.json", self.variant.file, self.variant.data, packed, *arrays)
        return [file for file in read if file and file in self.manifest.files]

    def check_sizes(self) -> None:
        """Raise IntegrityError for a file that is absent or of another size than the manifest's."""
        check_sizes(self.folder, self.manifest, self.files)

    def check_hashes(self) -> None:
        """Raise IntegrityError for a file whose sha256 is not the manifest's."""
        check_hashes(self.folder, self.manifest, self.files)


def locate(
    model: str | Path,
    *,
    precision: str = "auto",
    onnx_file: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    gpu: bool = False,
) -> Located:
    """Find an artefact, or a graph to adopt, and, of a hub repository, fetch the files of the wanted precision.

    `precision` "auto" is fp32 where the artefact has it, else what it has; `onnx_file` names the graph to adopt;
    `gpu` fetches what only a GPU runs.
    Raises ModelFilesError for what is neither, HubError when the hub could not be asked, UsageError for a
    precision that is not there, and what `adopt` does.
    """
    hub = Hub(revision, cache_dir, local_files_only)
    found, name = find(model, precision, onnx_file, hub)
    at = replace(hub, revision=found.revision)
    if name != FILE_NAME:
        return _adopt(model, name, precision, at)
    manifest = read_manifest(found.folder)
    located = Located(found.folder, manifest, _variant(manifest, precision), gpu=gpu)
    if found.revision is not None:  # a local folder has its files, or check_sizes says so
        fetch(model, wanted=located.files, **vars(at))
    return located


def read(model: str | Path, onnx_file: str | None, hub: Hub) -> Manifest:
    """The manifest of an artefact, whose graphs are not fetched, or of a model to adopt; errors as of `locate`."""
    found, name = find(model, "auto", onnx_file, hub)
    if name == FILE_NAME:
        return read_manifest(found.folder)
    return _adopt(model, name, "auto", replace(hub, revision=found.revision)).manifest


def find(model: str | Path, precision: str, onnx_file: str | None, hub: Hub) -> tuple[Fetched, str]:
    """The folder of a model with its manifest or else an ONNX graph, and which of them it is, by its name."""
    found, name = fetch_first(model, candidates=[FILE_NAME, *graph_names(precision, onnx_file)], **vars(hub))
    if name == FILE_NAME and onnx_file is not None:
        raise UsageError(f"{model} is an artefact of onnxembed: choose its graph by precision, not by onnx_file")
    return found, name or _sole_graph(model, onnx_file, replace(hub, revision=found.revision))


def graph_names(precision: str, onnx_file: str | None) -> list[str]:
    """Where a graph is looked for, in this order."""
    if onnx_file is not None:
        return [PurePosixPath(onnx_file).as_posix()]
    named = [] if precision in ("auto", "fp32") else [f"model_{precision}.onnx"]
    return [folder + name for name in (*named, "model.onnx") for folder in FOLDERS]


def _sole_graph(model: str | Path, onnx_file: str | None, hub: Hub) -> str:
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


def _adopt(model: str | Path, file: str, precision: str, hub: Hub) -> Located:
    from onnxembed.adopt import adopt  # an artefact needs nothing of it

    return adopt(model, file, precision=precision, hub=hub)


def _variant(manifest: Manifest, precision: str) -> Variant:
    if precision == "auto":
        precision = "fp32" if "fp32" in manifest.variants else next(iter(manifest.variants))
    return manifest.variant(precision)
