"""Texts in, vectors out: every line counts, every error names its line, and no file is left half-written."""

from __future__ import annotations

import errno
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed.errors import ModelFilesError, UsageError
from onnxembed.files.texts import read_texts
from onnxembed.files.vectors import check_vector_file, vector_line, write_lines, write_npy

Write = Callable[[Path, Iterator[NDArray[np.float32]]], int]


def read(content: bytes, field: str | None = None) -> list[str]:
    return list(read_texts(io.BytesIO(content), "texts", field))


def vectors(count: int, dimension: int = 3) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(size=(count, dimension)).astype(np.float32)


# Texts


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b"", []),
        (b"\n", [""]),
        (b"one\ntwo\n", ["one", "two"]),
        (b"one\ntwo", ["one", "two"]),
        (b"one\r\n\r\ntwo\r\n", ["one", "", "two"]),
        (b"  one \t\n", ["  one \t"]),
        ("\ufeffStraße\n東京\n".encode(), ["Straße", "東京"]),
        ("a\u2028b\x0bc\x85d\n".encode(), ["a\u2028b\x0bc\x85d"]),  # what str.splitlines would split
        (b"x" * 1_000_000, ["x" * 1_000_000]),
    ],
)
def test_every_line_is_a_text(content: bytes, texts: list[str]) -> None:
    assert read(content) == texts


def test_lines_are_read_when_they_are_needed() -> None:
    source = io.BytesIO(b"one\n\xff\n")
    texts = read_texts(source, "texts")
    assert next(texts) == "one"
    with pytest.raises(UsageError, match="texts, line 2: not UTF-8"):
        next(texts)


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (b'{"text": "one", "id": 1}\n{"text": ""}\n', ["one", ""]),
        (b'"one"\n\n  \r\n"two"', ["one", "two"]),
        (b'\xef\xbb\xbf{"text": "one"}\r\n', ["one"]),
        (rb'{"text": "line\nbreak \ud83d\ude42"}', ["line\nbreak 🙂"]),
    ],
)
def test_a_json_line_is_a_string_or_has_it_in_a_field(content: bytes, texts: list[str]) -> None:
    assert read(content, "text") == texts


def test_the_field_can_be_named() -> None:
    assert read(b'{"text": "one", "body": "two"}', "body") == ["two"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"text": "two"', r"not JSON \(Expecting ',' delimiter at column 15\)"),
        (b"two", r"not JSON \(Expecting value at column 1\)"),
        (b"[" * 100_000, "JSON that cannot be read"),
        (b"1" * 5_000, "JSON that cannot be read"),
        (b"\xff", "not UTF-8"),
        (b'{"body": "two", "id": 2}', r"no 'text' \(it has: body, id\); see --field"),
        (b"{}", r"no 'text' \(it has: nothing\)"),
        (b'{"text": 2}', "'text' is int, not str"),
        (b'{"text": null}', "'text' is NoneType, not str"),
        (b'["two"]', "is list, not str"),
        (rb'{"text": "\ud800"}', "'text' is not Unicode"),
    ],
)
def test_a_bad_json_line_is_named(line: bytes, complaint: str) -> None:
    with pytest.raises(UsageError, match=f"^texts, line 3.* ?{complaint}"):
        read(b'"one"\n\n' + line + b"\n", "text")


# Vectors


@pytest.mark.parametrize("count", [0, 1, 9, 10, 10_240])
def test_an_npy_file_holds_the_vectors(tmp_path: Path, count: int) -> None:
    expected = vectors(count)
    assert write_npy(tmp_path / "v.npy", iter(expected), 3) == count
    written = np.load(tmp_path / "v.npy")
    assert written.dtype == np.float32
    assert written.shape == (count, 3)
    assert np.array_equal(written, expected)


def test_vectors_that_are_slices_are_written_whole(tmp_path: Path) -> None:
    wide = vectors(5, 6)
    write_npy(tmp_path / "v.npy", iter(wide[:, ::2]), 3)
    assert np.array_equal(np.load(tmp_path / "v.npy"), wide[:, ::2])


def test_no_npy_file_is_written_of_vectors_of_another_length(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"shape \(32,\), but all have 8 numbers"):
        write_npy(tmp_path / "v.npy", [np.zeros(32, np.float32)], 8)
    assert not [*tmp_path.iterdir()]


def test_json_lines_round_trip_to_the_same_numbers(tmp_path: Path) -> None:
    expected = np.concatenate([vectors(50), np.array([[0, -0.0, 1e-30], [1, 3.4e38, 1e-45]], np.float32)])
    assert write_lines(tmp_path / "v.jsonl", map(vector_line, expected)) == len(expected)
    lines = (tmp_path / "v.jsonl").read_text().splitlines()
    assert np.array_equal(np.array([json.loads(line) for line in lines], np.float32), expected)


def test_writing_no_lines_makes_an_empty_file(tmp_path: Path) -> None:
    assert write_lines(tmp_path / "v.jsonl", []) == 0
    assert (tmp_path / "v.jsonl").read_bytes() == b""


WRITERS: dict[str, Write] = {
    "v.npy": lambda path, vectors: write_npy(path, vectors, 3, force=True),
    "v.jsonl": lambda path, vectors: write_lines(path, map(vector_line, vectors), force=True),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"older")

    def interrupted() -> Iterator[NDArray[np.float32]]:
        yield from vectors(2)
        assert (tmp_path / name).read_bytes() == b"older"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        WRITERS[name](tmp_path / name, interrupted())
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"older"
    WRITERS[name](tmp_path / name, iter(vectors(2)))
    assert (tmp_path / name).read_bytes() != b"older"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("v.csv", "vectors are written to .npy or .jsonl"),
        ("v", "vectors are written to .npy or .jsonl"),
        ("absent/v.npy", "absent is not a folder"),
        ("folder.npy", "is a folder"),
    ],
)
def test_a_path_for_no_vectors_is_refused(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "folder.npy").mkdir()
    with pytest.raises(UsageError, match=complaint):
        check_vector_file(tmp_path / name)


def test_a_file_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    name = "v" * 250 + ".npy"  # valid as it is, too long as a temporary name
    with pytest.raises(UsageError, match=r"cannot write .*v\.npy: File name too long"):
        write_npy(tmp_path / name, [], 3)


# What is there already


REFUSERS: dict[str, Callable[..., Any]] = {"v.npy": write_npy, "v.jsonl": write_lines}


@pytest.mark.parametrize("name", REFUSERS)
def test_what_exists_is_replaced_only_when_forced(tmp_path: Path, name: str) -> None:
    write = REFUSERS[name]
    arguments = (3,) if name == "v.npy" else ()
    (tmp_path / "broken.link").symlink_to(tmp_path / "nowhere")
    (tmp_path / "precious").write_bytes(b"older")
    (tmp_path / "link").symlink_to("precious")
    for there in ("precious", "link", "broken.link"):
        with pytest.raises(UsageError, match=f"{there} exists; pass --force to replace it"):
            write(tmp_path / there, [], *arguments)
    assert (tmp_path / "precious").read_bytes() == b"older"
    write(tmp_path / "link", [], *arguments, force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "precious").read_bytes() != b"older"
    assert len([*tmp_path.iterdir()]) == 3


def test_what_appears_while_a_file_is_written_is_not_replaced(tmp_path: Path) -> None:
    def meanwhile() -> Iterator[bytes]:
        (tmp_path / "v.jsonl").write_text("somebody else's")
        yield b"[]"

    with pytest.raises(UsageError, match="exists; pass --force"):
        write_lines(tmp_path / "v.jsonl", meanwhile())
    assert [path.read_text() for path in tmp_path.iterdir()] == ["somebody else's"]


def test_the_name_of_a_draft_cannot_be_guessed(tmp_path: Path) -> None:
    """In a folder that others can write to, a link of that name would lead elsewhere."""

    def drafts() -> Iterator[bytes]:
        seen.extend(path.name for path in tmp_path.iterdir())
        yield b"[]"

    seen: list[str] = []
    for name in ("one.jsonl", "one.jsonl"):
        write_lines(tmp_path / name, drafts(), force=True)
    first, second = (name for name in seen if name.endswith(".part"))
    assert first != second


def test_a_draft_follows_no_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda count: "guessed")
    (tmp_path / "victim").write_text("precious")
    (tmp_path / ".v.jsonl.guessed.part").symlink_to("victim")
    with pytest.raises(UsageError, match=r"cannot write .*v\.jsonl: File exists"):
        write_lines(tmp_path / "v.jsonl", [b"[]"])
    assert (tmp_path / "victim").read_text() == "precious"


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    def full() -> Iterator[bytes]:
        yield b"[]"
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UsageError, match=r"cannot write .*v\.jsonl: No space left on device"):
        write_lines(tmp_path / "v.jsonl", full())
    assert [*tmp_path.iterdir()] == []
