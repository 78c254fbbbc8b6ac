"""Rows that cannot be embedded: each stands in a file with the reason, or stops a strict job."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import Embed, content
from onnxembed.errors import UsageError


def test_rows_without_a_text_are_rejected_with_the_reason(embed: Embed, tmp_path: Path) -> None:
    lines = ['{"text": null}', '{"text": 5}', '{"text": ["a"]}', '{"a": "b"}', "{", '{"text": "\\ud800"}', "\xff"]
    data = b"".join(line.encode("latin-1") + b"\n" for line in lines) + b'\n{"text": "the cat"}\n"it was"\n'
    (tmp_path / "a.jsonl").write_bytes(data)
    summary = embed("a.jsonl")
    assert (summary.texts, summary.rejected, summary.rows) == (2, 7, 9)
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == [7, 8]
    names = sorted(content(tmp_path / "out"))
    assert names == ["_job/job.json", "_job/rejected.parquet", "_job/summary.json", "part-00000.parquet"]
    rejected = pq.read_table(tmp_path / "out/_job/rejected.parquet").to_pylist()
    assert [row["row"] for row in rejected] == [1, 2, 3, 4, 5, 6, 7]
    assert {row["file"] for row in rejected} == {"a.jsonl"}
    reasons = [row["reason"] for row in rejected]
    assert reasons[:4] == ["null", "int, not a text", "list, not a text", "no 'text'"]
    assert reasons[4].startswith("not JSON (")
    assert reasons[5] == "not Unicode"
    assert reasons[6].startswith("not UTF-8 (")


def test_a_parquet_column_that_is_not_utf_8_loses_the_wrong_rows_alone(embed: Embed, tmp_path: Path) -> None:
    texts = pa.array([b"the cat", b"\xff", "東京".encode()], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    assert embed("a.parquet").texts == 2
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == [0, 2]
    (row,) = pq.read_table(tmp_path / "out/_job/rejected.parquet").to_pylist()
    assert (row["row"], row["reason"]) == (2, "not UTF-8 (invalid start byte)")


def test_rows_with_a_wrong_id_or_column_are_rejected(embed: Embed, tmp_path: Path) -> None:
    rows = [{"id": 1, "text": "a", "n": 1}, {"id": "x", "text": "b", "n": 2}, {"text": "c", "n": 3}]
    rows.append({"id": 4, "text": "d", "n": "many"})
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    embed("a.jsonl", id_column="id", keep=("n",))
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == [1]
    rejected = pq.read_table(tmp_path / "out/_job/rejected.parquet").to_pylist()
    assert [row["reason"] for row in rejected] == [
        "'id' is str, not int64",
        "'id' is null: it has no id",
        "'n' is str, not int64",
    ]


def test_rows_of_a_csv_file_that_are_not_whole_are_rejected(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text,n\r\n"two\nlines",1\r\nx\r\n\r\n\xff,3\r\n"a ""b""",4\r\ny,5,6\r\n')
    embed("a.csv", keep=("text",))
    assert pq.read_table(tmp_path / "out")["text"].to_pylist() == ["two\nlines", 'a "b"']
    rejected = pq.read_table(tmp_path / "out/_job/rejected.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [
        (2, "1 fields, not 2"),
        (3, "not Unicode"),
        (5, "3 fields, not 2"),
    ]


def test_a_strict_job_stops_at_the_first_row_without_a_text(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 10 + [None]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet, row 11: null \(--strict\)"):
        embed("a.parquet", part_rows=5, strict=True)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    assert embed("a.parquet", part_rows=5).rejected == 1
