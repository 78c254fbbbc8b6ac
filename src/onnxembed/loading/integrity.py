"""Whether an artifact's files are those that its manifest records."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from onnxembed.errors import IntegrityError
from onnxembed.manifest import Manifest


def check_sizes(folder: Path, manifest: Manifest, files: Iterable[str]) -> None:
    """Raise IntegrityError for a file that is absent or of another size than the manifest's."""
    for name in files:
        record = manifest.files[name]
        if not (folder / name).is_file():
            raise IntegrityError(f"{folder} lacks {name}; export or download the model again")
        size = (folder / name).stat().st_size
        if size != record.bytes:
            raise IntegrityError(
                f"{folder / name} has {size} bytes, not the {record.bytes} of the manifest; "
                "export or download the model again"
            )


def check_hashes(folder: Path, manifest: Manifest, files: Iterable[str]) -> None:
    """Raise IntegrityError for a file whose sha256 is not the manifest's."""
    import hashlib  # it loads OpenSSL, which `import onnxembed` need not wait for

    for name in files:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != manifest.files[name].sha256:
            raise IntegrityError(
                f"{folder / name} has sha256 {digest}, not the manifest's {manifest.files[name].sha256}; "
                "export or download the model again"
            )
