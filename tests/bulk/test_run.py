"""Jobs: what is in the parts."""

from __future__ import annotations

import codecs
import gc
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from jobs import Embed, content, write
from onnxembed import OnnxEmbedder
from onnxembed.bulk.making import VectorMaker, VectorOptions, fixed_lists, vectors_of
from onnxembed.errors import UsageError
from onnxembed.quantization import OutputDtype, quantization_ranges, quantize_embeddings
from onnxembed.runtime.streaming import Block
from tiny_embedders import texts_of_many_lengths

TEXTS = ["the cat", "", "Straße 東京", "it was " * 30, "the cat", 'a "quoted", text']
SHORT = [text for text in TEXTS if len(text) < 100]


def vectors(folder: Path) -> np.ndarray[Any, Any]:
    return vectors_of(pq.read_table(folder)["vector"])


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
    with OnnxEmbedder(artifact) as fresh, pytest.warns(UserWarning, match="1 of 6 texts was longer"):
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


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.csv.gz"])
def test_the_mark_that_editors_on_windows_write_is_no_text(
    embed: Embed, model: OnnxEmbedder, tmp_path: Path, name: str
) -> None:
    write(tmp_path / name, SHORT)
    opened = gzip.open if name.endswith(".gz") else open
    with opened(tmp_path / name, "rb") as file:
        data = file.read()
    with opened(tmp_path / name, "wb") as file:
        file.write(codecs.BOM_UTF8 + data)
    assert embed(name, id_column="id").rejected == 0
    assert np.allclose(vectors(tmp_path / "out"), model.encode(SHORT), atol=1e-6)


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


def test_the_bytes_of_floats_are_split_and_ids_have_statistics(embed: Embed, tmp_path: Path) -> None:
    write(tmp_path / "a.txt", SHORT)
    embed("a.txt")
    group = pq.read_metadata(tmp_path / "out/part-00000.parquet").row_group(0)
    columns = {group.column(place).path_in_schema: group.column(place) for place in range(group.num_columns)}
    assert "BYTE_STREAM_SPLIT" in columns["vector.list.element"].encodings
    assert (columns["vector.list.element"].statistics, columns["id"].statistics.max) == (None, len(SHORT) - 1)


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


def test_texts_of_a_part_that_are_embedded_are_not_held_twice(
    model: OnnxEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part has many windows: of those that are done, only the results stay."""
    monkeypatch.setattr("onnxembed.runtime.streaming.WINDOW_TEXTS", 16)
    held = []

    def embedded(texts: int) -> None:
        blocks = [block for block in gc.get_objects() if type(block) is Block]  # asks no object
        held.append(sum(bool(block.window or block.futures) for block in blocks))

    made, _ = VectorMaker(model, VectorOptions()).columns(["the cat"] * 640, embedded=embedded)
    assert (len(made["vector"]), len(held)) == (640, 40)
    assert max(held) < 6  # what is read ahead
