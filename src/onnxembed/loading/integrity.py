"""Checks that an artifact's files are those that its manifest records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnxembed.errors import IntegrityError, ModelFilesError
from onnxembed.loading.onnx_file import read_onnx
from onnxembed.manifest import FileRecord


def check_links(graph: Path) -> None:
    """Raise ModelFilesError for weights that are linked from elsewhere, which ONNX Runtime does not open.

    It resolves links of the graph and of its weights, as the hub's cache has them, and wants both in one folder.
    """
    home = graph.resolve().parent
    for data in sorted(graph.parent / name for name in read_onnx(graph).data):
        if not data.resolve().is_relative_to(home):
            raise ModelFilesError(
                f"{data} is a link to {data.resolve()}, and ONNX Runtime reads weights only from the folder of their "
                "graph: put the file itself there, or link the graph and its weights from one folder"
            )


def check_files(folder: Path, records: Mapping[str, FileRecord], *, hashes: bool = True) -> None:
    """Compare the files of a folder with their records, by name; without `hashes`, only their sizes.

    Raises IntegrityError for a file that is absent, of another size, or of another sha256. All sizes are compared
    before any file is read.
    """
    for name, record in records.items():
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder} lacks {name}; export or download the model again", name)
        size = (folder / name).stat().st_size
        if size != record.bytes:
            raise IntegrityError(
                f"{folder / name} has {size} bytes, not the {record.bytes} of the manifest; "
                "export or download the model again",
                name,
            )
    if not hashes:
        return
    import hashlib  # it loads OpenSSL, which `import onnxembed` need not wait for

    for name, record in records.items():
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != record.sha256:
            raise IntegrityError(
                f"{folder / name} has sha256 {digest}, not the manifest's {record.sha256}; "
                "export or download the model again",
                name,
            )
