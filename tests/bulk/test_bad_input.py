"""Inputs and outputs that a job refuses: one sentence, and nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.parquet as pq

from jobs import Embed
from onnxembed.bulk import rows as bulk_rows
from onnxembed.bulk.formats import csv_rows, lines, parquet_rows, text_lines
from onnxembed.errors import UsageError


def test_a_wrong_column_names_the_ones_there_are(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["a"], "title": ["b"]}), tmp_path / "a.parquet")
    (tmp_path / "a.csv").write_text("id,body\n1,a\n")
    (tmp_path / "a.jsonl").write_text('{"id": 1, "body": "a"}\n')
    for name, there in (("a.parquet", "id, body, title"), ("a.csv", "id, body"), ("a.jsonl", "id, body")):
        with pytest.raises(UsageError, match=f"{name} has no column 'text'; it has: {there}$"):
            embed(name)
        with pytest.raises(UsageError, match=f"{name} has no column 'year'; it has: {there}$"):
            embed(name, column="body", keep=("year",))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([["a"], ["b"]], "holds list<element: string>, not texts; columns of texts: title (--column)"),
        ([1, 2], "holds int64, not texts"),
        ([b"a", b"b"], "holds binary, not texts"),
        ([{"a": "b"}, None], "holds struct<a: string>, not texts"),
    ],
)
def test_a_column_without_texts_is_refused(embed: Embed, tmp_path: Path, values: list[Any], words: str) -> None:
    pq.write_table(pa.table({"text": values, "title": ["a", "b"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError) as error:
        embed("a.parquet")
    assert words in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_column_of_no_type_has_nothing_but_nulls(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.nulls(3)}), tmp_path / "a.parquet")
    assert embed("a.parquet").rejected == 3


@pytest.mark.parametrize("kind", [pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())])
def test_every_form_of_strings_is_text(embed: Embed, tmp_path: Path, kind: pa.DataType) -> None:
    texts = pa.array(["a", None, "b"]).cast(kind)
    pq.write_table(pa.table({"text": texts, "key": texts}), tmp_path / "a.parquet")
    embed("a.parquet", keep=("key",))
    table = pq.read_table(tmp_path / "out")
    assert (table["key"].type, table["key"].to_pylist()) == (pa.string(), ["a", "b"])


def test_a_type_that_changes_between_files_is_refused(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1]}), tmp_path / "a.parquet")
    pq.write_table(pa.table({"text": ["a"], "n": ["1"]}), tmp_path / "b.parquet")
    with pytest.raises(UsageError, match=r"b\.parquet: column 'n' holds string, but int64 in .*a\.parquet"):
        embed("a.parquet", "b.parquet", id_column="n")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "c.parquet")
    with pytest.raises(UsageError, match=r"c\.parquet has no column 'text'; it has: body"):
        embed("a.parquet", "c.parquet")
    assert not (tmp_path / "out").exists()
    assert embed("a.parquet", "b.parquet").texts == 2


def test_ids_are_numbers_or_strings(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"], "n": [1.5]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match="'n' holds double; ids are whole numbers or strings"):
        embed("a.parquet", id_column="n")


@pytest.mark.parametrize("name", ["id", "vector", "indices", "token_count", "truncated"])
def test_a_kept_column_with_the_name_of_another_one_is_refused(embed: Embed, tmp_path: Path, name: str) -> None:
    pq.write_table(pa.table({"text": ["a"], name: ["a"]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=f"a column '{name}' cannot be kept: the output has one of its own"):
        embed("a.parquet", keep=(name,))


def test_a_parquet_file_that_is_damaged_in_the_middle_keeps_the_parts_before_it(embed: Embed, tmp_path: Path) -> None:
    table = pa.table({"text": [f"the {i}" for i in range(300)]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=100, compression="snappy")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    group = pq.read_metadata(tmp_path / "a.parquet").row_group(1).column(0)
    start = group.dictionary_page_offset or group.data_page_offset
    data[start : start + group.total_compressed_size] = b"\xff" * group.total_compressed_size
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(UsageError, match=r"a\.parquet: row group 2 of 3 cannot be read \(.*\); the file is damaged"):
        embed("a.parquet", part_rows=40)
    assert [len(pq.read_table(path)) for path in sorted((tmp_path / "out").glob("part-*"))] == [40, 40]
    assert list((tmp_path / "out/_job").glob(".*")) == []


def test_what_is_no_file_of_its_ending_is_refused(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    with pytest.raises(UsageError, match=r"a\.parquet is not a parquet file, or it is damaged"):
        embed("a.parquet")
    (tmp_path / "a.txt.gz").write_bytes(b"not gzip at all")
    with pytest.raises(UsageError, match=r"a\.txt\.gz cannot be read to its end, it may be damaged"):
        embed("a.txt.gz")
    (tmp_path / "a.csv").touch()
    with pytest.raises(UsageError, match=r"a\.csv is empty: the first row of a \.csv file names its columns"):
        embed("a.csv")
    (tmp_path / "b.csv").write_text("text,text\na,b\n")
    with pytest.raises(UsageError, match=r"b\.csv has two columns of the name 'text'"):
        embed("b.csv")


def test_a_compressed_file_that_ends_early_is_damaged(embed: Embed, tmp_path: Path) -> None:
    import gzip

    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(b"the cat\n" * 5000)[:-20])
    with pytest.raises(UsageError, match=r"a\.txt\.gz cannot be read to its end"):
        embed("a.txt.gz")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere.txt", "No such file"),
        ("*.parquet", "no file matches"),
        ("a.md", "does not end in .parquet, .jsonl, .csv, .txt"),
        ("a.parquet.gz", "does not end in"),
        ("empty", "has no files that end in"),
    ],
)
def test_an_argument_that_names_no_input_is_refused(embed: Embed, tmp_path: Path, name: str, words: str) -> None:
    (tmp_path / "a.md").touch()
    (tmp_path / "a.parquet.gz").touch()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError) as error:
        embed(name)
    assert words in str(error.value)
    (tmp_path / "b.txt").touch()
    with pytest.raises(UsageError, match=r"b\.txt is named twice"):
        embed("b.txt", "b.*")


def test_a_folder_with_other_files_is_refused(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.parquet").touch()
    for force in (False, True):
        with pytest.raises(UsageError, match="has files in it and no job: choose another folder"):
            embed("a.txt", force=force)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.parquet"]
    with pytest.raises(UsageError, match="is a file, not a folder"):
        embed("a.txt", out="a.txt")


def test_a_text_that_is_too_long_is_rejected(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bulk_rows, csv_rows, parquet_rows):
        monkeypatch.setattr(module, "MAX_CHARACTERS", 100)
    texts = ["the cat", "ä" * 101, "ä" * 100]
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in texts), encoding="utf-8")
    (tmp_path / "a.csv").write_text("text\n" + "".join(f"{text}\n" for text in texts), encoding="utf-8")
    for name in ("a.parquet", "a.jsonl", "a.csv"):
        assert embed(name, out=name + ".out").rejected == 1
        (row,) = pq.read_table(tmp_path / f"{name}.out/_job/rejected.parquet").to_pylist()
        assert (row["row"], row["reason"]) == (2, "101 characters, more than 100")


def test_a_line_that_is_too_long_is_not_held(embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (bulk_rows, lines, text_lines, csv_rows):
        monkeypatch.setattr(module, "MAX_LINE", 3 * 2**20)
    with (tmp_path / "a.txt").open("wb") as file:
        file.write(b"the cat\n" + b"a" * (4 * 2**20) + b"\nit was\n" + b"b" * (5 * 2**20))
    assert embed("a.txt").rejected == 2
    rejected = pq.read_table(tmp_path / "out/_job/rejected.parquet").to_pylist()
    assert [row["row"] for row in rejected] == [2, 4]
    (tmp_path / "a.csv").write_bytes(b"text\nthe cat\n" + b"a" * (4 * 2**20) + b"\nit was\n")
    with pytest.raises(UsageError, match=r"a\.csv, line 3: more than 3,145,728 bytes; is a line break missing\?"):
        embed("a.csv", out="csv")


def test_a_quotation_mark_that_is_not_closed_is_named(
    embed: Embed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_rows, "MAX_CHARACTERS", 1000)
    (tmp_path / "a.csv").write_text('text\nthe cat\n"it was\n' + "and so on\n" * 200)
    with pytest.raises(UsageError, match=r"a\.csv, line \d+: field larger than .*; is a quotation mark not closed\?"):
        embed("a.csv")
