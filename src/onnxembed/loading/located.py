"""The files of one graph of an artifact."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from onnxembed.execution.backend import GraphFiles, Placement
from onnxembed.manifest import CUDA_ONLY, FileRecord, Manifest, PackedGraph


@dataclass(frozen=True)
class LocatedArtifact:
    """An artifact with the files of one of its graphs.

    `revision` is the commit of a hub repository, None for a folder.
    For a model that was adopted in memory, `tokenizer` is the text of its changed tokenizer.json; its files have no
    records to be checked against. The graph's packed form is included if `placement` may use a GPU.
    """

    folder: Path
    manifest: Manifest
    precision: str
    placement: Placement
    revision: str | None
    tokenizer: str | None = None

    @property
    def graph(self) -> GraphFiles:
        """The graph to open."""
        variant = self.manifest.variants[self.precision]
        size = sum((self.folder / file).stat().st_size for file in (variant.file, variant.data) if file)
        packed = self.folder / self._packed.file if self._packed else None
        quantized = variant.quality is not None
        return GraphFiles(
            self.folder / variant.file,
            size,
            self.precision in CUDA_ONLY,
            packed,
            quantized,
            one_text=variant.runs_single_texts,
        )

    @cached_property
    def records(self) -> dict[str, FileRecord]:
        """The manifest's records of the files that the runtime reads, by file."""
        read = self.manifest.files_read(self.precision, packed=self._packed is not None)
        recorded = self.manifest.files
        return {file: recorded[file] for names in read.values() for file in names if file in recorded}

    @cached_property
    def _packed(self) -> PackedGraph | None:
        """The graph's packed form, if a GPU may run it."""
        packed = self.manifest.variants[self.precision].packed
        return packed if packed and self.placement.may_use_gpu else None
