"""Checks that an artifact's files are those that its manifest records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from onnxembed.errors import IntegrityError
from onnxembed.manifest import FileRecord


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
