"""Texts from .txt and .jsonl files, as they stream."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import IO, Any

from onnxembed.arguments import check_text
from onnxembed.errors import UsageError

TEXT_FILES = (".txt", ".jsonl")


def read_texts(source: IO[bytes], name: str, field: str | None = None) -> Iterator[str]:
    """The texts of a file: its lines, or with `field` that field of its JSON lines (or the line, if a string).

    An empty line is an empty text, so that rows are lines; among JSON lines it is none. Raises UsageError
    naming the line that is not UTF-8, not JSON, or has no such field.
    """
    for number, line in enumerate(source, start=1):
        where = f"{name}, line {number}"
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901  # Windows' editors write it
        try:
            text = line.decode().rstrip("\r\n")
        except UnicodeDecodeError as error:
            raise UsageError(f"{where}: not UTF-8 ({error.reason})") from None
        if field is None:
            yield text
        elif text.strip():
            yield _field(text, field, where)


def _field(line: str, field: str, where: str) -> str:
    try:
        value: Any = json.loads(line)
    except json.JSONDecodeError as error:
        raise UsageError(f"{where}: not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, a thousand brackets
        raise UsageError(f"{where}: not JSON that can be read ({error})") from None
    if isinstance(value, dict):
        if field not in value:
            raise UsageError(f"{where}: no {field!r} (it has: {', '.join(value) or 'nothing'}); see --field")
        where, value = f"{where}: {field!r}", value[field]
    return check_text(value, where)
