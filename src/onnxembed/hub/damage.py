"""Whether a file in the hub client's cache is the one that was downloaded."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

SHA256 = re.compile(r"[0-9a-f]{64}")
SHA1 = re.compile(r"[0-9a-f]{40}")


def damage(file: Path) -> str | None:
    """What is wrong with a file of a snapshot, in words; None for a sound one, or one of which nothing is known.

    The cache names the copy of each file as the hub does: a large one by its sha256, a small one by git's id of its
    content. Some mirrors use the content's sha1.
    """
    if not file.is_symlink():  # a cache without links keeps no hash
        return None
    # One step only: a blob may itself be a link, to a store that names files by another hash.
    blob = file.parent / os.readlink(file)
    if not blob.is_file():
        return "its copy in the cache is gone"
    if SHA256.fullmatch(blob.name):
        hashes = {"sha256": _digest(blob, "sha256")}
    elif SHA1.fullmatch(blob.name):
        hashes = {"git id": _digest(blob, "sha1", b"blob %d\0" % blob.stat().st_size), "sha1": _digest(blob, "sha1")}
    else:
        return None
    if blob.name in hashes.values():
        return None
    kind, actual = next(iter(hashes.items()))
    return f"{kind} {actual} instead of {blob.name}"


def _digest(file: Path, kind: str, head: bytes = b"") -> str:
    digest = hashlib.new(kind, head, usedforsecurity=False)
    with file.open("rb") as content:
        while block := content.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
