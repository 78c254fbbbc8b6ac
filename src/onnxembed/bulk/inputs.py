"""Input files: found by their names, read by their formats, known by their hashes."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from glob import glob, has_magic
from pathlib import Path

from onnxembed.bulk.arrow import pa
from onnxembed.bulk.formats.csv_rows import CsvRows
from onnxembed.bulk.formats.json_lines import JsonLines
from onnxembed.bulk.formats.lines import COMPRESSIONS
from onnxembed.bulk.formats.parquet_rows import ParquetRows
from onnxembed.bulk.formats.text_lines import TextLines
from onnxembed.bulk.rows import Columns, Format
from onnxembed.errors import UsageError

FORMATS: Mapping[str, Format] = {
    ".parquet": ParquetRows(),
    ".jsonl": JsonLines(),
    ".csv": CsvRows(),
    ".txt": TextLines(),
}
"""The formats by the endings of files. All but parquet, which compresses by itself, may be compressed."""

Progress = Callable[[str, int, int], None]
"""Is told a stage, and how many of its steps are done, of how many."""

_CHUNK = 2**22


@dataclass(frozen=True)
class InputFile:
    """A file of texts, as it was when the job began."""

    path: Path
    bytes: int
    sha256: str
    modified: int
    """Nanoseconds; tells whether it changed while it was read."""

    @property
    def format(self) -> Format:
        """How it is read."""
        return FORMATS[_ending(self.path)]

    def check_unchanged(self) -> None:
        """Raise UsageError if the file is gone or is another one."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise UsageError(f"{self.path} is gone; put it back and run the same command again") from None
        if (found.st_size, found.st_mtime_ns) != (self.bytes, self.modified):
            raise UsageError(f"{self.path} changed while it was read; finish writing it before a job begins")


def find_inputs(arguments: Sequence[str], progress: Progress) -> list[InputFile]:
    """The files that the arguments name, each hashed: files, all files of a known format in folders, and patterns.

    They are in the order of the arguments, those of a folder or a pattern in the order of their names. Raises
    UsageError for an argument that names no file, for a file of another format, and for a file that is named twice.
    """
    paths = [path for argument in arguments for path in _named(argument)]
    for path, times in Counter(paths).items():
        if times > 1:
            raise UsageError(f"{path} is named twice")
    total, done = sum(path.stat().st_size for path in paths), 0
    files = []
    for path in paths:
        before, digest = path.stat(), hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
                done += len(chunk)
                progress("hashing the inputs", done, total)
        files.append(InputFile(path, before.st_size, digest.hexdigest(), before.st_mtime_ns))
    return files


def _named(argument: str) -> Iterator[Path]:
    """The files that an argument names."""
    path = Path(argument)
    if path.is_dir():
        found = sorted(file for file in path.iterdir() if file.is_file() and _is_known(file))
        if not found:
            raise UsageError(f"{path} has no files that end in {_endings()}")
        yield from found
    elif path.exists():
        if not path.is_file():
            raise UsageError(f"{path} is a pipe or a device; a job reads its input again to go on: save it to a file")
        _require_format(path)
        yield path
    elif has_magic(argument):
        matches = sorted(file for file in map(Path, glob(argument, recursive=True)) if file.is_file())
        if not matches:
            raise UsageError(f"no file matches {argument}")
        for file in matches:
            _require_format(file)
        yield from matches
    else:
        raise UsageError(f"{argument}: No such file; a job reads files, folders and patterns of names")


def _ending(path: Path) -> str:
    """The ending that says the format, without that of a compression."""
    plain = path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path
    return plain.suffix.lower()


def _is_known(path: Path) -> bool:
    compressed = path.suffix.lower() in COMPRESSIONS
    return _ending(path) in FORMATS and not (compressed and _ending(path) == ".parquet")


def _require_format(path: Path) -> None:
    if not _is_known(path):
        raise UsageError(f"{path} does not end in {_endings()}")


def _endings() -> str:
    return f"{', '.join(FORMATS)}, or in these with {', '.join(COMPRESSIONS)} (not parquet)"


@dataclass(frozen=True)
class Inputs:
    """The files of a job with the columns that are read from them; `open_inputs` has checked that they agree."""

    files: list[InputFile]
    columns: Columns
    types: dict[str, pa.DataType] = field(default_factory=dict)
    """The types of the columns beside the text."""

    @property
    def bytes(self) -> int:
        """The bytes of all files."""
        return sum(file.bytes for file in self.files)


def open_inputs(files: list[InputFile], columns: Columns) -> Inputs:
    """Check that every file has the columns, and that they have one type in all files.

    Raises UsageError for a column that a file lacks (it names those that are there), for texts and ids of an
    impossible type, for a column of one type here and of another there, and for files that cannot be read.
    """
    types: dict[str, pa.DataType] = {}
    first: dict[str, Path] = {}
    for file in files:
        found = file.format.columns(file.path)
        if isinstance(file.format, TextLines):
            if columns.beside:
                raise UsageError(f"{file.path} has lines of text and no columns: no {columns.beside[0]!r}")
            continue
        if isinstance(file.format, JsonLines) and not found and not (columns.beside and file.bytes):
            continue  # strings of JSON, or nothing
        _check_texts(file, columns.text, found)
        for name in columns.beside:
            _check_column(file, name, found)
            kind = _stored(found[name])
            if types.setdefault(name, kind) != kind:
                raise UsageError(
                    f"{file.path}: column {name!r} holds {kind}, but {types[name]} in {first[name]}: "
                    "give them one type, or embed them by two jobs"
                )
            first.setdefault(name, file.path)
    types = {name: types.get(name, pa.string()) for name in columns.beside}
    if columns.id is not None:
        kind = types[columns.id]
        if not (pa.types.is_integer(kind) or _is_text(kind)):
            raise UsageError(f"column {columns.id!r} holds {kind}; ids are whole numbers or strings")
    return Inputs(files, columns, types)


def _check_texts(file: InputFile, name: str, found: Mapping[str, pa.DataType]) -> None:
    _check_column(file, name, found)
    if isinstance(file.format, ParquetRows) and not (_is_text(found[name]) or pa.types.is_null(found[name])):
        texts = [other for other, kind in found.items() if _is_text(kind)]
        others = f"; columns of texts: {', '.join(texts)} (--column)" if texts else "; no column holds texts"
        raise UsageError(f"{file.path}: column {name!r} holds {found[name]}, not texts{others}")


def _check_column(file: InputFile, name: str, found: Mapping[str, pa.DataType]) -> None:
    if name not in found:
        raise UsageError(f"{file.path} has no column {name!r}; it has: {', '.join(found) or 'none'}")


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _stored(kind: pa.DataType) -> pa.DataType:
    """The type that a column has in the output: strings of any form are plain strings."""
    return pa.string() if _is_text(kind) else kind
