"""Hashes of files, taken while they are written and afterwards."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path

import pytest

from onnxembed.export.artifact import graph_file, hashing
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.artifact.hashing import HashedFile, hash_files
from onnxembed.export.build_graph import build
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import FILE_NAME, FileRecord, Precision
from tiny import write_sentence_bert


def test_every_file_but_the_manifest_is_hashed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hashing, "CHUNK", 3)
    contents = {"b/c": b"12345678", "a": b"", "b/a": b"x" * 9, FILE_NAME: b"{}"}
    for name, content in contents.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    calls: list[tuple[str, int, int]] = []
    records = hash_files(tmp_path, lambda *call: calls.append(call), {})
    assert list(records) == ["a", "b/a", "b/c"]
    for name, record in records.items():
        assert record.sha256 == hashlib.sha256(contents[name]).hexdigest()
        assert record.bytes == len(contents[name])
    assert calls[-1] == ("hashing", 17, 17)


def test_files_with_known_hashes_are_not_read_again(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"12345")
    calls: list[tuple[str, int, int]] = []
    records = hash_files(tmp_path, lambda *call: calls.append(call), {"a": FileRecord("known", 5)})
    assert list(records) == ["a", "b"]
    assert records["a"] == FileRecord("known", 5)
    assert calls == [("hashing", 5, 5)]


def test_a_file_is_hashed_while_it_is_written(tmp_path: Path) -> None:
    pieces = [bytes([number]) * size for number, size in enumerate((0, 1, 4096, 3_000_000, 7))]
    with HashedFile(tmp_path / "file") as file:
        for piece in pieces:
            file.write(memoryview(piece))
        record = file.record()
    content = b"".join(pieces)
    assert (tmp_path / "file").read_bytes() == content
    assert record == FileRecord(hashlib.sha256(content).hexdigest(), len(content))


def test_a_write_that_fails_leaves_no_thread(tmp_path: Path) -> None:
    before = threading.active_count()
    with pytest.raises(TypeError), HashedFile(tmp_path / "file") as file:
        file.write("not bytes")  # type: ignore[arg-type]
    assert threading.active_count() == before


@pytest.mark.parametrize("precision", ["fp32", "fp16", "bf16"])
def test_the_weights_of_a_graph_are_hashed_while_they_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: Precision
) -> None:
    monkeypatch.setattr(graph_file, "INLINE_LIMIT", 0)
    facts = read_facts(write_sentence_bert(tmp_path / "model"))
    graph = build(make_plan(facts, None, Options()), precision)
    records: dict[str, FileRecord] = {}
    variant = write_graph(graph, tmp_path / "out", precision, lambda *call: None, records)
    assert variant.data
    assert records == {variant.data: hash_files(tmp_path / "out", lambda *call: None, {})[variant.data]}
