"""The texts that a command's arguments name: the arguments themselves, a file's lines, or standard input."""

from __future__ import annotations

import io
import os
import re
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import IO

from onnxembed.errors import UsageError

FIELD = "text"
"""The field of a JSON line that is read by default."""

# Endings of files that people keep texts in. An argument with one of them is never taken for a text.
TABLES = "parquet|arrow|feather|pdf|docx|xlsx|npy|gz|bz2|xz|zst|zip"
TABLE_FILE = re.compile(rf".*\.({TABLES})", re.IGNORECASE | re.DOTALL)
DATA_FILE = re.compile(rf".*\.(txt|text|md|log|json|jsonl|ndjson|csv|tsv|xml|html?|ya?ml|{TABLES})", TABLE_FILE.flags)
# No blank, and either a slash or an ending that begins with a letter.
PATH_LIKE = re.compile(r"\S*[/\\]\S*|\S+\.[A-Za-z]\w{0,7}")


@dataclass(frozen=True)
class Source:
    """Texts, as they come."""

    texts: Iterable[str]
    total: int | None = None
    """How many there are, if that is known; of a file, how many lines."""
    ready: Callable[[], bool] = lambda: True
    """Whether the next text is there already: a program that waits for an answer sends no more texts before it."""

    def bursts(self) -> Iterator[Iterator[str]]:
        """The texts in pieces, each to be read to its end before the next; one ends where the next text is awaited."""
        texts = iter(self.texts)
        for first in texts:
            yield chain([first], self._while_ready(texts))

    def _while_ready(self, texts: Iterator[str]) -> Iterator[str]:
        while self.ready():
            try:
                yield next(texts)
            except StopIteration:
                return


@contextmanager
def open_texts(
    arguments: Sequence[str],
    field: str | None = None,
    jsonl: bool = False,
    *,
    texts: Sequence[str] = (),
    output: Path | None = None,
) -> Iterator[Source]:
    """The texts that the arguments name, or those of the option --text; `field` and `jsonl` are the options.

    `output` is where the results will be written, None for standard output. Raises UsageError for arguments that mix
    files and texts, for a file that is not there, for options that do not apply to them, and for an output that is
    the input.
    """
    from onnxembed.cli.progress import count_lines
    from onnxembed.files.lines import ReadyLines
    from onnxembed.files.texts import read_texts

    name = _find_file(arguments, jsonl, texts)
    jsonl = jsonl or (name or "").endswith(".jsonl")
    if field is not None and not jsonl:
        raise UsageError("--field needs JSON lines: a .jsonl file, or --jsonl for another file or standard input")
    json_field = (field or FIELD) if jsonl else None
    if name is None:
        yield Source(texts or arguments, len(texts or arguments))
    elif name == "-":
        _refuse_same_file("standard input", sys.stdin.buffer, output)
        try:
            lines = ReadyLines(sys.stdin.fileno())
        except io.UnsupportedOperation:  # standard input was replaced by something without a file
            yield Source(read_texts(sys.stdin.buffer, "standard input", json_field))
            return
        yield Source(read_texts(lines, "standard input", json_field), ready=lines.ready)
    else:
        with open(name, "rb") as file:
            _refuse_same_file(name, file, output)
            yield Source(read_texts(file, name, json_field), count_lines(file))


def _refuse_same_file(name: str, source: IO[bytes], output: Path | None) -> None:
    """Raise UsageError if the results would be written to the file that is read, whatever its names are."""
    try:
        read = os.fstat(source.fileno())
        written = os.fstat(sys.stdout.fileno()) if output is None else os.stat(output)
    except (OSError, ValueError):  # the output is not there yet, or a stream has no file
        return
    if os.path.samestat(read, written) and stat.S_ISREG(read.st_mode):
        where = "standard output" if output is None else f"the output {output}"
        raise UsageError(f"{where} is the file that is read ({name}): write to another one")


def _find_file(arguments: Sequence[str], jsonl: bool, texts: Sequence[str]) -> str | None:
    """The file that the arguments name, "-" for standard input, None if they are the texts themselves."""
    from onnxembed.files.texts import TEXT_FILES

    if texts:
        if arguments:
            raise UsageError(f"{arguments[0]!r} and --text cannot be combined: pass every text with --text")
        if jsonl:
            raise UsageError("--jsonl needs a file or standard input, not texts")
        return None
    if not arguments:
        raise UsageError("no texts: give texts, a .txt or .jsonl file, or - for standard input")
    for text in arguments:
        _refuse_paths(text, alone=len(arguments) == 1)
    name = arguments[0]
    if len(arguments) == 1 and (name == "-" or name.endswith(TEXT_FILES) or (os.path.exists(name) and jsonl)):
        return name
    if os.path.exists(name):
        raise UsageError(f"{name} is neither a .txt nor a .jsonl file; {_cure(name)}")
    if jsonl:
        raise UsageError("--jsonl needs a file or standard input, not texts")
    return None


def _refuse_paths(text: str, *, alone: bool) -> None:
    """Raise UsageError for an argument that can only be meant as a path, and is no file to read alone."""
    # An existing file is never meant as a text, even among texts or with an unknown suffix.
    if os.path.isdir(text):
        raise UsageError(
            f"{text} is a folder, not a text: give a file, or - for standard input, or -o VECTORS/ to embed "
            "all files of a folder into another"
        )
    there = text == "-" or os.path.exists(text)
    if there and not alone:
        raise UsageError(f"{text} is a file among other arguments: give one file, or join files (cat ... | ... -)")
    if not there and (DATA_FILE.fullmatch(text) or (alone and PATH_LIKE.fullmatch(text))):
        raise UsageError(f"{text}: No such file; if it is a text, pass it with --text")


def _cure(name: str) -> str:
    """How to read a file whose name does not say that it has a text on each line."""
    if TABLE_FILE.fullmatch(name):
        return "write its texts to a .jsonl file, or to a .txt file, one per line"
    if name.endswith((".json", ".ndjson")):
        return "if it has JSON lines, pass --jsonl"
    return f"if it has one text per line, read it as standard input: - < {name}"
