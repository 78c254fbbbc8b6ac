"""The texts that a command's arguments name: the arguments themselves, a file's lines, or standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from onnxembed.errors import UsageError

FIELD = "text"
"""The field of a JSON line that is read by default."""


@contextmanager
def open_texts(texts: Sequence[str], field: str | None = None, jsonl: bool = False) -> Iterator[Iterable[str]]:
    """The texts that the arguments name; `field` and `jsonl` are the options of these names.

    Raises UsageError for arguments that mix files and texts, and for options that do not apply to them.
    """
    from onnxembed.files.texts import read_texts

    name = _find_file(texts, jsonl)
    jsonl = jsonl or (name or "").endswith(".jsonl")
    if field is not None and not jsonl:
        raise UsageError("--field needs JSON lines: a .jsonl file, or --jsonl for another file or standard input")
    json_field = (field or FIELD) if jsonl else None
    if name is None:
        yield texts
    elif name == "-":
        yield read_texts(sys.stdin.buffer, "standard input", json_field)
    else:
        with open(name, "rb") as file:
            yield read_texts(file, name, json_field)


def _find_file(texts: Sequence[str], jsonl: bool) -> str | None:
    """The file that the arguments name, "-" for standard input, None if they are the texts themselves."""
    from onnxembed.files.texts import TEXT_FILES

    if not texts:
        raise UsageError("no texts: give texts, a .txt or .jsonl file, or - for standard input")
    for text in texts:
        # An existing file is never meant as a text, even among texts or with an unknown suffix.
        if os.path.isdir(text):
            raise UsageError(f"{text} is a folder, not a text: give a file, or - for standard input")
        if len(texts) > 1 and (text == "-" or os.path.exists(text)):
            raise UsageError(f"{text} is a file among other arguments: give one file, or join files (cat ... | ... -)")
    name = texts[0]
    if len(texts) == 1 and (name == "-" or name.endswith(TEXT_FILES) or (os.path.exists(name) and jsonl)):
        return name
    if os.path.exists(name):
        raise UsageError(f"{name} is neither a .txt nor a .jsonl file; read it as standard input: - < {name}")
    if jsonl:
        raise UsageError("--jsonl needs a file or standard input, not texts")
    return None
