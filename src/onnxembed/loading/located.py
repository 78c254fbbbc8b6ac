"""The files of one graph of an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from onnxembed.execution.backend import GraphFiles
from onnxembed.loading.integrity import check_hashes, check_sizes
from onnxembed.manifest import CUDA_ONLY, Manifest


@dataclass(frozen=True)
class LocatedArtifact:
    """An artifact whose files are at hand: those that its manifest needs for one of its graphs.

    For a model that was adopted in memory `tokenizer` is the text of its changed tokenizer.json. Its files are not
    recorded, so there is nothing to check them against. With `gpu` the graph's packed form is read, too.
    """

    folder: Path
    manifest: Manifest
    precision: str
    tokenizer: str | None = None
    gpu: bool = False

    @property
    def graph(self) -> GraphFiles:
        """The graph to open."""
        variant = self.manifest.variants[self.precision]
        size = sum((self.folder / file).stat().st_size for file in (variant.file, variant.data) if file)
        packed = self.folder / variant.packed.file if variant.packed and self.gpu else None
        quantized = variant.quality is not None
        return GraphFiles(self.folder / variant.file, size, self.precision in CUDA_ONLY, packed, quantized)

    @cached_property
    def files(self) -> list[str]:
        """The recorded files that the runtime reads."""
        read = self.manifest.files_read(self.precision, packed=self.gpu)
        return [file for names in read.values() for file in names if file in self.manifest.files]

    def check_sizes(self) -> None:
        """Raise IntegrityError for a file that is absent or of another size than the manifest's."""
        check_sizes(self.folder, self.manifest, self.files)

    def check_hashes(self) -> None:
        """Raise IntegrityError for a file whose sha256 is not the manifest's."""
        check_hashes(self.folder, self.manifest, self.files)
