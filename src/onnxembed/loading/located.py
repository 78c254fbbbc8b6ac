"""The files of one graph of an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxembed.execution.backend import GraphFiles
from onnxembed.loading.integrity import check_hashes, check_sizes
from onnxembed.manifest import CUDA_ONLY, Manifest, Variant


@dataclass(frozen=True)
class Located:
    """An artifact whose files are at hand: those that its manifest needs for one of its graphs.

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
