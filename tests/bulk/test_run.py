"""Jobs: what is in the parts, and that they are the same however often a job was stopped."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from onnxembed import OnnxEmbedder
from onnxembed.bulk.chunks import Position, pending
from onnxembed.bulk.inputs import find_inputs, open_inputs
from onnxembed.bulk.job import locked
from onnxembed.bulk.making import VectorOptions, fixed_lists, vectors_of
from onnxembed.bulk.rows import Columns
from onnxembed.errors import UsageError
from onnxembed.quantization import OutputDtype, quantization_ranges, quantize_embeddings
from tiny_embedders import texts_of_many_lengths

TEXTS = ["the cat", "", "Straße 東京", "it was " * 30, "the cat", 'a "quoted", text']
SHORT = [text for text in TEXTS if len(text) < 100]
Embed = Callable[..., Any]


def content(folder: Path) -> dict[str, bytes]:
    """The bytes of every file of a finished job."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def vectors(folder: Path) -> np.ndarray[Any, Any]:
    return vectors_of(pq.read_table(folder)["vector"])


def write(path: Path, texts: list[str]) -> None:
    table = pa.table({"id": [f"{i:03}" for i in range(len(texts))], "text": texts, "year": list(range(len(texts)))})
    kind = path.name.partition(".")[2].removesuffix(".gz").removesuffix(".zst")
    if kind == "parquet":
        pq.write_table(table, path, row_group_size=2)
        return
    rows = table.to_pylist()
    if kind == "csv":
        import csv
        import io

        buffer = io.StringIO()
        writer = csv.DictWriter(buffer, table.column_names)
        writer.writeheader()
        writer.writerows(rows)
        data = buffer.getvalue().encode()
    elif kind == "jsonl":
        data = "".join(json.dumps(row) + "\n" for row in rows).encode()
    else:
        data = "".join(text + "\n" for text in texts).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data)
    if path.suffix == ".zst":
        data = pa.compress(data, codec="zstd", asbytes=True)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "name", ["a.txt", "a.jsonl", "a.csv", "a.parquet", "a.txt.gz", "a.jsonl.zst", "a.csv.gz", "a.txt.zst"]
)
def test_every_format_gives_the_models_vectors(
    embed: Embed, artifact: Path, model: OnnxEmbedder, tmp_path: Path, name: str
) -> None:
    write(tmp_path / name, TEXTS)
    summary = embed(name)
    table = pq.read_table(tmp_path / "out")
    assert table.schema.names == ["id", "vector", "token_count", "truncated"]
    assert table["vector"].type == pa.list_(pa.float32(), 32)
    assert table["id"].to_pylist() == [0, 1, 2, 3, 4, 5]
    with OnnxEmbedder(artifact) as fresh, pytest.warns(UserWarning, match="1 of 6 texts were longer"):
        expected = fresh.encode(TEXTS)
    assert np.allclose(vectors_of(table["vector"]), expected, atol=1e-6)
    tokens = model.tokenize(TEXTS)
    assert table["token_count"].to_pylist() == [len(each) for each in tokens]
    assert table["truncated"].to_pylist() == [each.truncated for each in tokens]
    assert (summary.texts, summary.truncated, summary.rejected, summary.parts) == (6, 1, 0, 1)
    assert summary.tokens == sum(len(each) for each in tokens)


@pytest.mark.parametrize(("name", "year"), [("a.jsonl", 3), ("a.csv", "3"), ("a.parquet", 3)])
def test_ids_and_kept_columns_stand_beside_the_vectors(embed: Embed, tmp_path: Path, name: str, year: object) -> None:
    write(tmp_path / name, TEXTS)
    embed(name, id_column="id", keep=("year", "text"))
    table = pq.read_table(tmp_path / "out")
    assert table.schema.names == ["id", "year", "text", "vector", "token_count", "truncated"]
    assert table["id"].to_pylist() == ["000", "001", "002", "003", "004", "005"]
    assert table["text"].to_pylist() == TEXTS
    assert table["year"].to_pylist()[3] == year


def test_folders_patterns_and_files_are_read_in_order(embed: Embed, model: OnnxEmbedder, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for name in ("b.txt", "a.jsonl", "c.csv"):
        write(tmp_path / "in" / name, [f"the {name}"])
    write(tmp_path / "in" / "ignored.md", ["no"])
    write(tmp_path / "z1.txt", ["it was"])
    write(tmp_path / "z2.txt", ["it is"])
    assert embed("z?.txt", "in").parts == 1
    expected = ["it was", "it is", "the a.jsonl", "the b.txt", "the c.csv"]
    assert np.allclose(vectors(tmp_path / "out"), model.encode(expected), atol=1e-6)


def test_parts_cross_files_and_are_as_long_as_asked(embed: Embed, model: OnnxEmbedder, tmp_path: Path) -> None:
    texts = texts_of_many_lengths(100)
    write(tmp_path / "a.txt", texts[:33])
    write(tmp_path / "b.parquet", texts[33:])
    assert embed("a.txt", "b.parquet", part_rows=20).parts == 5
    assert [len(pq.read_table(path)) for path in sorted((tmp_path / "out").glob("*.parquet"))] == [20] * 5
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == list(range(100))
    assert np.allclose(vectors(tmp_path / "out"), model.encode(texts), atol=1e-6)


@pytest.mark.parametrize(("dtype", "kind"), [("float16", pa.float16()), ("binary", pa.int8()), ("ubinary", pa.uint8())])
def test_vectors_are_quantized(
    embed: Embed, model: OnnxEmbedder, tmp_path: Path, dtype: OutputDtype, kind: pa.DataType
) -> None:
    texts = texts_of_many_lengths(50)
    write(tmp_path / "a.txt", texts)
    embed("a.txt", vectors=VectorOptions(dtype=dtype), part_rows=20)
    column = pq.read_table(tmp_path / "out")["vector"]
    assert column.type == pa.list_(kind, 32 if dtype == "float16" else 4)
    embed("a.txt", out="full", part_rows=20)
    assert np.array_equal(vectors_of(column), quantize_embeddings(vectors(tmp_path / "full"), dtype))


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_the_ranges_of_8_bit_vectors_are_those_of_the_first_part_and_recorded(
    embed: Embed, tmp_path: Path, dtype: OutputDtype
) -> None:
    write(tmp_path / "a.txt", texts_of_many_lengths(300))
    embed("a.txt", out="full", part_rows=120)
    ranges = quantization_ranges(vectors(tmp_path / "full")[:120])
    embed("a.txt", vectors=VectorOptions(dtype=dtype), part_rows=120)
    assert np.array_equal(vectors(tmp_path / "out"), quantize_embeddings(vectors(tmp_path / "full"), dtype, ranges))
    before = content(tmp_path / "out")
    for path in sorted((tmp_path / "out").glob("part-*")):
        recorded = json.loads(pq.read_metadata(path).metadata[b"onnxembed.ranges"])
        assert np.array_equal(np.array(recorded, np.float32), ranges)
    for lost in ("part-00000.parquet", "part-00001.parquet"):
        (tmp_path / "out" / lost).unlink()
        embed("a.txt", vectors=VectorOptions(dtype=dtype), part_rows=120)
        assert content(tmp_path / "out") == before


def test_ranges_that_are_given_are_used_and_decide_the_job(embed: Embed, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", texts_of_many_lengths(20))
    ranges = np.array([[-1.0] * 32, [1.0] * 32], np.float32)
    embed("a.txt", out="full")
    embed("a.txt", vectors=VectorOptions(dtype="int8", ranges=ranges))
    assert np.array_equal(vectors(tmp_path / "out"), quantize_embeddings(vectors(tmp_path / "full"), "int8", ranges))
    with pytest.raises(UsageError, match="ranges: "):
        embed("a.txt", vectors=VectorOptions(dtype="int8", ranges=ranges * 2))
    with pytest.raises(UsageError, match=r"ranges have the shape \(2, 32\), not \(2, 8\)"):
        embed("a.txt", out="other", vectors=VectorOptions(dtype="int8", dimensions=8, ranges=ranges))


def test_dimensions_and_prompts_are_the_embedders(embed: Embed, model: OnnxEmbedder, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", SHORT)
    embed("a.txt", vectors=VectorOptions(dimensions=8, prompt_name="query"))
    expected = model.encode(SHORT, dimensions=8, prompt_name="query")
    assert np.allclose(vectors(tmp_path / "out"), expected, atol=1e-6)
    said = json.loads(pq.read_schema(tmp_path / "out/part-00000.parquet").metadata[b"onnxembed"])
    assert (said["dimensions"], said["prompt"], said["precision"], said["dtype"]) == (8, "to be: ", "fp32", "float32")


def test_sparse_embeddings_are_two_columns_of_lists(embed: Embed, many_kinds: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", SHORT)
    embed("a.txt", folder=many_kinds, vectors=VectorOptions("sparse"), part_rows=4)
    table = pq.read_table(tmp_path / "out")
    assert table.schema.field("indices").type == pa.list_(pa.int32())
    with OnnxEmbedder(many_kinds) as model:
        expected = model.encode_sparse(SHORT)
    for indices, values, theirs in zip(table["indices"], table["values"], expected, strict=True):
        assert indices.as_py() == theirs.indices.tolist()
        assert np.allclose(values.as_py(), theirs.values, atol=1e-6)


def test_vectors_of_tokens_are_lists_of_lists(embed: Embed, many_kinds: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", SHORT)
    embed("a.txt", folder=many_kinds, vectors=VectorOptions("multi_vector"), part_rows=4)
    column = pq.read_table(tmp_path / "out")["vectors"]
    with OnnxEmbedder(many_kinds) as model:
        expected = model.encode_multi_vector(SHORT)
    assert column.type == pa.list_(pa.list_(pa.float32(), expected[0].shape[1]))
    for ours, theirs in zip(column.to_pylist(), expected, strict=True):
        assert np.allclose(np.array(ours, np.float32).reshape(theirs.shape), theirs, atol=1e-6)


def test_arrow_arrays_lie_over_the_memory_of_the_vectors() -> None:
    matrix = np.arange(12, dtype=np.float32).reshape(3, 4)
    array = fixed_lists(matrix)
    assert array.flatten().buffers()[1].address == matrix.ctypes.data
    assert vectors_of(array).ctypes.data == matrix.ctypes.data


def test_no_inputs_rows_make_no_parts(embed: Embed, tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    assert embed("a.txt").parts == 0
    assert sorted(content(tmp_path / "out")) == ["_job/job.json", "_job/summary.json"]


def test_a_million_empty_strings(embed: Embed, model: OnnxEmbedder, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": pa.array([""] * 1_000_000)}), tmp_path / "a.parquet")
    summary = embed("a.parquet", part_rows=250_000)
    assert (summary.texts, summary.parts, summary.rejected) == (1_000_000, 4, 0)
    scanner = ds.dataset(tmp_path / "out", format="parquet").head(5)
    assert np.allclose(vectors_of(scanner["vector"]), model.encode([""]), atol=1e-6)


# ---- stopped and resumed


class StopError(Exception):
    pass


class Stopping:
    """Stops a job after some windows."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stage(self, name: str, done: int, total: int) -> None: ...

    def begin(self, share: float, done: Any) -> None: ...

    def advance(self, texts: int, share: float) -> None:
        self.left -= 1
        if self.left < 0:
            raise StopError


def mixed_inputs(folder: Path) -> list[str]:
    """Inputs of all formats, with rows that are rejected."""
    texts = texts_of_many_lengths(200)
    write(folder / "a.txt", texts[:70])
    write(folder / "b.parquet", texts[70:100])
    (folder / "c.jsonl").write_text(
        "".join(f"{json.dumps({'text': text})}\n\n" for text in texts[100:150]) + '{"text": 5}\n\n{"no": "text"}\n[\n'
    )
    pq.write_table(pa.table({"text": [None, "the", None, "cat"] * 10}), folder / "d.parquet", row_group_size=7)
    write(folder / "e.csv.gz", texts[150:])
    return ["a.txt", "b.parquet", "c.jsonl", "d.parquet", "e.csv.gz"]


def test_a_job_that_was_stopped_anywhere_ends_with_the_same_bytes(embed: Embed, tmp_path: Path) -> None:
    inputs = mixed_inputs(tmp_path)
    embed(*inputs, out="whole", part_rows=16)
    expected = content(tmp_path / "whole")
    assert {"_job/rejected.parquet", "_job/summary.json", "part-00014.parquet"} <= expected.keys()
    stops = 0
    for after in (0, 1, 2, 0, 3, 1, 4, 100):
        try:
            embed(*inputs, part_rows=16, watch=Stopping(after))
        except StopError:
            stops += 1
            assert not [path for path in (tmp_path / "out").rglob("*") if ".part" in path.suffix]
    assert stops == 7
    assert content(tmp_path / "out") == expected


def test_a_lost_or_damaged_part_is_made_again(embed: Embed, tmp_path: Path) -> None:
    inputs = mixed_inputs(tmp_path)
    embed(*inputs, part_rows=16)
    expected = content(tmp_path / "out")
    (tmp_path / "out/part-00007.parquet").unlink()
    (tmp_path / "out/part-00011.parquet").write_bytes(b"PAR1 no more")
    with pytest.warns(UserWarning, match=r"part-00011.*embedded again"):
        embed(*inputs, part_rows=16)
    assert content(tmp_path / "out") == expected


@pytest.mark.parametrize("name", ["a.txt", "a.parquet", "a.jsonl"])
def test_the_share_that_is_done_grows_with_the_rows(tmp_path: Path, name: str) -> None:
    write(tmp_path / name, ["the cat"] * 10_000)
    (tmp_path / "empty.txt").touch()
    files = find_inputs([str(tmp_path / name), str(tmp_path / "empty.txt")], lambda stage, done, total: None)
    inputs = open_inputs(files, Columns("text", None, ()))
    shares = [chunk.share for chunk in pending(inputs, {}, 1000)]
    assert np.allclose(shares, np.arange(1, 11) / 10, atol=0.01)


def test_chunks_are_the_same_wherever_reading_begins(tmp_path: Path) -> None:
    names = [str(tmp_path / name) for name in mixed_inputs(tmp_path)]
    inputs = open_inputs(find_inputs(names, lambda name, done, total: None), Columns("text", None, ()))
    whole = list(pending(inputs, {}, 16))
    assert sum(len(chunk.texts) + len(chunk.rejected) for chunk in whole) == 243
    assert whole[0].start == Position()
    done = {chunk.number: (chunk.start, chunk.end) for chunk in whole}
    for missing in range(len(whole)):
        (again,) = pending(inputs, {number: ends for number, ends in done.items() if number != missing}, 16)
        first = whole[missing]
        assert (again.number, again.start, again.end) == (first.number, first.start, first.end)
        assert (again.texts, again.rejected) == (first.texts, first.rejected)
        assert again.beside == first.beside


def test_a_finished_job_does_nothing_when_it_runs_again(embed: Embed, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXTS)
    first = embed("a.txt")
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")}
    watch = Stopping(0)
    assert embed("a.txt", watch=watch) == first
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("part-*")} == times


def test_two_jobs_do_not_write_to_one_folder(embed: Embed, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXTS)
    with locked(tmp_path / "out"), pytest.raises(UsageError, match=r"another process is writing to .*: wait until"):
        embed("a.txt")
    assert embed("a.txt").texts == 6


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vectors": VectorOptions(dimensions=8)}, "dimensions: 32 and 8"),
        ({"vectors": VectorOptions(dtype="float16")}, "dtype: 'float32' and 'float16'"),
        ({"vectors": VectorOptions(prompt="a: ")}, "prompt: '' and 'a: '"),
        ({"id_column": "id"}, "id: None and 'id'"),
        ({"keep": ("year",)}, "keep: [] and ['year']"),
        ({"part_rows": 3}, "rows of a part: 16384 and 3"),
        ({"max_length": 9}, "vector space, max_length: 20, cut on the right and 9, cut on the right"),
    ],
)
def test_another_job_in_the_folder_is_refused_and_the_difference_named(
    embed: Embed, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    write(tmp_path / "a.csv", TEXTS)
    embed("a.csv")
    before = content(tmp_path / "out")
    with pytest.raises(UsageError, match="has another job") as error:
        embed("a.csv", **change)
    assert words in str(error.value)
    assert content(tmp_path / "out") == before
    embed("a.csv", force=True, **change)
    assert content(tmp_path / "out") != before


def test_other_inputs_and_another_model_are_refused(embed: Embed, many_kinds: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", TEXTS)
    embed("a.txt")
    write(tmp_path / "b.txt", TEXTS)
    with pytest.raises(UsageError, match="1 and 2 input files"):
        embed("a.txt", "b.txt")
    with pytest.raises(UsageError, match=r"input a\.txt and b\.txt"):
        embed("b.txt")
    with pytest.raises(UsageError, match=r"vector space, tensors: .*; vector space, pooling: mean and cls; model: "):
        embed("a.txt", folder=many_kinds)
    write(tmp_path / "a.txt", TEXTS[::-1])
    with pytest.raises(UsageError, match=r"a\.txt has another content"):
        embed("a.txt")


def test_an_input_that_is_lost_or_changes_meanwhile_is_named_and_the_job_goes_on_later(
    embed: Embed, tmp_path: Path
) -> None:
    inputs = mixed_inputs(tmp_path)
    embed(*inputs, out="whole", part_rows=16)
    kept = (tmp_path / "e.csv.gz").read_bytes()

    class Losing(Stopping):
        def advance(self, texts: int, share: float) -> None:
            self.left -= 1
            if self.left == 0:
                (tmp_path / "e.csv.gz").unlink()

    with pytest.raises(UsageError, match=r"e\.csv\.gz is gone; put it back and run the same command again"):
        embed(*inputs, part_rows=16, watch=Losing(2))
    (tmp_path / "e.csv.gz").write_bytes(kept)
    embed(*inputs, part_rows=16)
    assert content(tmp_path / "out") == content(tmp_path / "whole")


# ---- rejected rows


def test_rows_without_a_text_are_rejected_with_the_reason(embed: Embed, tmp_path: Path) -> None:
    lines = ['{"text": null}', '{"text": 5}', '{"text": ["a"]}', '{"a": "b"}', "{", '{"text": "\\ud800"}', "\xff"]
    data = b"".join(line.encode("latin-1") + b"\n" for line in lines) + b'\n{"text": "the cat"}\n"it was"\n'
    (tmp_path / "a.jsonl").write_bytes(data)
    summary = embed("a.jsonl")
    assert (summary.texts, summary.rejected, summary.rows) == (2, 7, 9)
    assert pq.read_table(tmp_path / "out")["id"].to_pylist() == [7, 8]
    rejected = pq.read_table(tmp_path / "out/_job/rejected.parquet").to_pylist()
    assert [row["row"] for row in rejected] == [1, 2, 3, 4, 5, 6, 7]
    assert {row["file"] for row in rejected} == {"a.jsonl"}
    reasons = [row["reason"] for row in rejected]
    assert reasons[:4] == ["null", "int, not a text", "list, not a text", "no 'text'"]
    assert reasons[4].startswith("not JSON (")
    assert reasons[5] == "not Unicode"
    assert reasons[6].startswith("not UTF-8 (")


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
    (tmp_path / "a.csv").write_bytes(b'text,n\r\n"two\nlines",1\r\nx\r\n\r\n\xff,3\r\n"a ""b""",4\r\n')
    embed("a.csv", keep=("text",))
    assert pq.read_table(tmp_path / "out")["text"].to_pylist() == ["two\nlines", 'a "b"']
    rejected = pq.read_table(tmp_path / "out/_job/rejected.parquet").to_pylist()
    assert [(row["row"], row["reason"]) for row in rejected] == [(2, "1 fields, not 2"), (3, "not Unicode")]


def test_a_strict_job_stops_at_the_first_row_without_a_text(embed: Embed, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 10 + [None]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet, row 11: null \(--strict\)"):
        embed("a.parquet", part_rows=5, strict=True)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    assert embed("a.parquet", part_rows=5).rejected == 1
