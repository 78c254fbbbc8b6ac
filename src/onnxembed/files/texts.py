"""Texts from .txt and .jsonl files, as they stream."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

from onnxembed.arguments import check_text
from onnxembed.errors import UsageError
from onnxembed.json_file import json_problem

TEXT_FILES = (".txt", ".jsonl")
"""The suffixes of text files."""


def read_texts(source: Iterable[bytes], name: str, field: str | None = None) -> Iterator[str]:
    """The texts of a file: its lines or, with `field`, that field of each JSON line (a JSON string is the text itself).

    An empty line is an empty text, so that row N is line N; among JSON lines it is skipped. Raises UsageError that
    names the line if it is not UTF-8, not JSON, or does not have the field.
    """
    for number, line in enumerate(source, start=1):
        where = f"{name}, line {number}"
        if number == 1:
            line = line.removeprefix(codecs.BOM_UTF8)  # noqa: PLW2901  # written by editors on Windows
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
        raise UsageError(f"{where}: not JSON ({json_problem(error)})") from None
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, a thousand brackets
        raise UsageError(f"{where}: JSON that cannot be read ({error})") from None
    if isinstance(value, dict):
        if field not in value:
            raise UsageError(f"{where}: no {field!r} (it has: {', '.join(value) or 'nothing'}); see --field")
        where, value = f"{where}: {field!r}", value[field]
    return check_text(value, where)
