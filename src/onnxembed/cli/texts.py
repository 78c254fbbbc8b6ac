"""The texts that arguments stand for: themselves, the lines of a file, or standard input."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from onnxembed.errors import UsageError

FIELD = "text"
"""The field of a JSON line that is read where no other is named."""


@contextmanager
def opened(texts: Sequence[str], field: str | None = None, jsonl: bool = False) -> Iterator[Iterable[str]]:
    """The texts that the arguments stand for; `field` and `jsonl` are the options of these names."""
    from onnxembed.files.texts import read_texts

    name = _file(texts, jsonl)
    jsonl = jsonl or (name or "").endswith(".jsonl")
    if field is not None and not jsonl:
        raise UsageError("--field is for JSON lines: a .jsonl file, or --jsonl for another or standard input")
    wanted = (FIELD if field is None else field) if jsonl else None
    if name is None:
        yield texts
    elif name == "-":
        yield read_texts(sys.stdin.buffer, "standard input", wanted)
    else:
        with open(name, "rb") as file:
            yield read_texts(file, name, wanted)


def _file(texts: Sequence[str], jsonl: bool) -> str | None:
    """The file that the arguments name, "-" for standard input, None when they are the texts themselves."""
    from onnxembed.files.texts import TEXT_FILES

    if not texts:
        raise UsageError("no texts: give texts, a .txt or .jsonl file, or - for standard input")
    for text in texts:
        # What exists is never meant as a text, not even among others or with an unknown ending.
        if os.path.isdir(text):
            raise UsageError(f"{text} is a folder here, not a text: give a file, or - for standard input")
        if len(texts) > 1 and (text == "-" or os.path.exists(text)):
            raise UsageError(f"{text} is a file among texts: give one file, or join several (cat ... | ... -)")
    name = texts[0]
    if len(texts) == 1 and (name == "-" or name.endswith(TEXT_FILES) or (os.path.exists(name) and jsonl)):
        return name
    if os.path.exists(name):
        raise UsageError(f"{name} is a file, but neither .txt nor .jsonl; any is read as standard input: - < {name}")
    if jsonl:
        raise UsageError("--jsonl is for a file or standard input, not for texts")
    return None
