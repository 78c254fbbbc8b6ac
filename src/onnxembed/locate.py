"""A folder or hub id -> an artefact's folder, its manifest, and the graph to run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import ModelFilesError
from onnxembed.hub import fetch
from onnxembed.integrity import check_hashes, check_sizes
from onnxembed.manifest import FILE_NAME, Manifest, Variant, read_manifest


@dataclass(frozen=True)
class Located:
    """An artefact whose files are at hand: those that its manifest needs for one of its graphs."""

    folder: Path
    manifest: Manifest
    variant: Variant

    @property
    def files(self) -> list[str]:
        """The files that the runtime reads."""
        dense = self.manifest.embedding.dense if self.manifest.embedding else ()
        arrays = [file for layer in dense for file in (layer.weight, layer.bias)]
        return [file for file in ("tokenizer.json", self.variant.file, self.variant.data, *arrays) if file]

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
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> Located:
    """Find an artefact and, of a hub repository, fetch the files of the wanted precision.

    `precision` "auto" is fp32 where the artefact has it, else what it has. Raises ModelFilesError for what is
    no artefact, HubError when the hub could not be asked, UsageError for a precision that is not there.
    """

    def get(wanted: list[str], at: str | None) -> tuple[Path, str | None]:
        found = fetch(model, wanted=wanted, revision=at, cache_dir=cache_dir, local_files_only=local_files_only)
        return found.folder, found.revision

    try:
        folder, commit = get([FILE_NAME], revision)
    except ModelFilesError as error:
        raise ModelFilesError(
            f"{error}: it is not an onnxembed artefact; make one with: onnxembed export {model} -o DIR"
        ) from None
    manifest = read_manifest(folder)
    located = Located(folder, manifest, _variant(manifest, precision))
    if commit is not None:  # a local folder has its files, or check_sizes says so
        get(located.files, commit)
    return located


def _variant(manifest: Manifest, precision: str) -> Variant:
    if precision == "auto":
        precision = "fp32" if "fp32" in manifest.variants else next(iter(manifest.variants))
    return manifest.variant(precision)
