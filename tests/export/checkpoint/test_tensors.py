"""Safetensors files, single and sharded: every type is read, and every false header is refused."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.tensors import INDEX, SINGLE, Checkpoint

ONES = np.ones((2, 3), np.float32)
DATA = b"\0" * 24


def write_raw(path: Path, header: dict[str, Any] | bytes, data: bytes = DATA, *, length: int | None = None) -> None:
    """A safetensors file by hand: 8 bytes of length, the header, the tensors' bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def entry(begin: int, end: int, *, shape: Any = (2, 3), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


# ---- reading


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_reads_every_floating_type_as_stored(tmp_path: Path, dtype: Any) -> None:
    expected = np.arange(12, dtype=np.float32).reshape(3, 4).astype(dtype) / dtype(8)
    save_file({"other": ONES, "a": expected}, tmp_path / SINGLE)
    tensor = Checkpoint(tmp_path).read("a")
    assert tensor.dtype == np.dtype(dtype)
    np.testing.assert_array_equal(np.asarray(tensor, np.float64), np.asarray(expected, np.float64))


def test_tensors_are_read_only_views(tmp_path: Path) -> None:
    save_file({"a": ONES}, tmp_path / SINGLE)
    with pytest.raises(ValueError, match="read-only"):
        Checkpoint(tmp_path).read("a")[0] = 2


def test_scalars_and_empty_tensors(tmp_path: Path) -> None:
    scalar, empty = np.array(2.5, np.float32), np.zeros((0, 4), np.float32)
    save_file({"a": ONES, "empty": empty, "scalar": scalar}, tmp_path / SINGLE)
    weights = Checkpoint(tmp_path)
    assert weights.read("scalar") == scalar
    assert weights.read("scalar").shape == weights.shape("scalar") == ()
    assert weights.read("empty").shape == weights.shape("empty") == (0, 4)


def test_a_header_of_odd_length_leaves_tensors_unaligned_and_right(tmp_path: Path) -> None:
    """Only newer writers pad the header to a multiple of eight."""
    values = np.arange(6, dtype=np.float32)
    for padding in range(4):
        header = json.dumps({"a": entry(0, 24)}).encode() + b" " * padding
        write_raw(tmp_path / SINGLE, header, values.tobytes())
        np.testing.assert_array_equal(Checkpoint(tmp_path).read("a").ravel(), values)


def test_metadata_is_not_a_tensor(tmp_path: Path) -> None:
    save_file({"a": ONES}, tmp_path / SINGLE, metadata={"format": "pt"})
    assert Checkpoint(tmp_path).unused() == ["a"]


def test_a_tensor_is_used_once_it_or_its_shape_is_read(tmp_path: Path) -> None:
    save_file({"a": ONES, "b": ONES, "c": ONES, "d": ONES}, tmp_path / SINGLE)
    weights = Checkpoint(tmp_path)
    weights.read("a")
    weights.shape("c")
    assert weights.unused() == ["b", "d"]


def test_a_missing_tensor_is_named_with_its_folder(tmp_path: Path) -> None:
    save_file({"a": ONES}, tmp_path / SINGLE)
    with pytest.raises(ModelFilesError, match="no tensor b") as caught:
        Checkpoint(tmp_path).shape("b")
    assert str(tmp_path) in str(caught.value)


def test_gamma_and_beta_are_old_names_of_weight_and_bias(tmp_path: Path) -> None:
    save_file({"norm.gamma": ONES, "norm.beta": ONES * 2, "lin.weight": ONES * 3}, tmp_path / SINGLE)
    weights = Checkpoint(tmp_path)
    assert weights.read("norm.weight").max() == 1
    assert weights.read("norm.bias").max() == 2
    assert weights.read("lin.weight").max() == 3
    assert weights.unused() == []


def test_a_prefix_is_taken_off_the_names_that_have_it(tmp_path: Path) -> None:
    save_file({"bert.a.gamma": ONES, "cls.bert.b": ONES}, tmp_path / SINGLE)
    weights = Checkpoint(tmp_path, prefix="bert.")
    assert weights.shape("a.weight") == (2, 3)
    assert weights.unused() == ["cls.bert.b"]


def test_the_first_of_several_prefixes_is_taken_off(tmp_path: Path) -> None:
    save_file({"gte.a": ONES, "new.gte.b": ONES, "c": ONES}, tmp_path / SINGLE)
    weights = Checkpoint(tmp_path, ("gte.", "new."))
    assert [weights.has(name) for name in ("a", "gte.b", "c", "b", "gte.a")] == [True, True, True, False, False]
    assert weights.unused() == ["a", "c", "gte.b"]


def test_the_same_tensor_with_and_without_prefix_is_ambiguous(tmp_path: Path) -> None:
    save_file({"bert.a": ONES, "a": ONES * 2}, tmp_path / SINGLE)
    with pytest.raises(ModelFilesError, match=r"with and without the prefix 'bert\.'"):
        Checkpoint(tmp_path, prefix="bert.")


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint8, np.bool_, np.uint16])
def test_integer_tensors_are_allowed_but_are_not_weights(tmp_path: Path, dtype: Any) -> None:
    """position_ids are a buffer; an integer weight would need a scale."""
    save_file({"ids": np.ones(3, dtype), "a": ONES}, tmp_path / SINGLE)
    weights = Checkpoint(tmp_path)
    assert weights.shape("ids") == (3,)
    with pytest.raises(UnsupportedError, match="ids is"):
        weights.read("ids")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its own memory from /proc")
def test_tensors_that_were_read_do_not_stay_in_memory(tmp_path: Path) -> None:
    tensors, size = 16, 2**22
    save_file({f"t{i}": np.full(size // 4, i, np.float32) for i in range(tensors)}, tmp_path / SINGLE)
    weights = Checkpoint(tmp_path)

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    grown = 0
    for i in range(tensors):
        assert weights.read(f"t{i}").sum() == i * size // 4
        grown = max(grown, resident() - before)
    assert grown < 4 * size


# ---- shards


def shards(folder: Path, weight_map: dict[str, Any]) -> None:
    save_file({"a": ONES, "b": ONES * 2}, folder / "model-00001-of-00002.safetensors")
    save_file({"c": ONES * 3}, folder / "model-00002-of-00002.safetensors")
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 72}, "weight_map": weight_map}))


MAP = {
    "a": "model-00001-of-00002.safetensors",
    "b": "model-00001-of-00002.safetensors",
    "c": "model-00002-of-00002.safetensors",
}


def test_reads_shards_through_their_index(tmp_path: Path) -> None:
    shards(tmp_path, MAP)
    weights = Checkpoint(tmp_path)
    assert [weights.read(name).max() for name in "abc"] == [1, 2, 3]
    assert weights.unused() == []


def test_a_shard_may_be_named_with_a_dot_before_it(tmp_path: Path) -> None:
    shards(tmp_path, {name: f"./{shard}" for name, shard in MAP.items()})
    assert [Checkpoint(tmp_path).read(name).max() for name in "abc"] == [1, 2, 3]


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    shards(tmp_path, MAP)
    (tmp_path / MAP["c"]).unlink()
    with pytest.raises(ModelFilesError, match=f"lacks {MAP['c']}"):
        Checkpoint(tmp_path)


def test_a_tensor_that_the_index_names_and_no_shard_has_is_named(tmp_path: Path) -> None:
    shards(tmp_path, {**MAP, "d": MAP["c"]})
    with pytest.raises(ModelFilesError, match="lacks the tensor d"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/model.safetensors", "sub/model.safetensors", ".", ""])
def test_a_shard_outside_the_folder_is_refused(tmp_path: Path, shard: str) -> None:
    shards(tmp_path, {**MAP, "d": shard})
    with pytest.raises(ModelFilesError, match="outside the model's folder"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 3}}'])
def test_an_invalid_index_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / INDEX).write_text(content)
    with pytest.raises(ModelFilesError, match=r"is not (an index of shards|readable JSON|a JSON object)"):
        Checkpoint(tmp_path)


def test_no_weights_at_all_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"has no model\.safetensors and no .*index\.json, and no pytorch"):
        Checkpoint(tmp_path)


# ---- files that lie


def test_a_truncated_file_is_an_error_wherever_it_is_cut(tmp_path: Path) -> None:
    save_file({"a": ONES, "b": ONES}, tmp_path / SINGLE)
    whole = (tmp_path / SINGLE).read_bytes()
    for size in (0, 4, 8, 20, len(whole) - 24, len(whole) - 1):
        (tmp_path / SINGLE).write_bytes(whole[:size])
        with pytest.raises(ModelFilesError, match="cut short"):
            Checkpoint(tmp_path)


def test_bytes_after_the_last_tensor_are_an_error(tmp_path: Path) -> None:
    write_raw(tmp_path / SINGLE, {"a": entry(0, 24)}, DATA + b"\0")
    with pytest.raises(ModelFilesError, match="cut short or damaged"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("length", [0, 1, 2**20, 2**63, 2**64 - 1])
def test_a_header_length_that_cannot_be_is_an_error(tmp_path: Path, length: int) -> None:
    write_raw(tmp_path / SINGLE, {"a": entry(0, 24)}, length=length)
    with pytest.raises(ModelFilesError, match="not a safetensors file"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize(
    "header",
    [
        b"[]",
        b"{x",
        b"\xff\xff",
        {"a": 3},
        {"a": {}},
        {"a": {"dtype": "F32", "shape": [2, 3]}},
        {"a": entry(0, 24, shape=[2, 4])},
        {"a": entry(0, 24, shape=[-2, -3])},
        {"a": entry(0, 24, shape=["2", "3"])},
        {"a": entry(0, 24, shape=[2.0, 3.0])},
        {"a": entry(0, 24, shape=[True, 6])},
        {"a": entry(-24, 0)},
        {"a": entry(24, 0)},
        {"a": {**entry(0, 24), "data_offsets": [0]}},
        {"a": {**entry(0, 24), "data_offsets": ["0", "24"]}},
        {"a": entry(0, 0, shape=[2**32, 2**32])},
        {"a": entry(0, 24), "b": entry(0, 24)},
        {"a": entry(0, 24), "b": entry(12, 36)},
        {"a": entry(0, 4, shape=[1]), "b": entry(8, 24, shape=[4])},
        {"a": entry(4, 24, shape=[5])},
        {"a": entry(0, 24, dtype=["F32"])},
    ],
    ids=str,
)
def test_a_header_of_nonsense_is_an_error(tmp_path: Path, header: Any) -> None:
    write_raw(tmp_path / SINGLE, header)
    with pytest.raises(ModelFilesError, match="broken safetensors header"):
        Checkpoint(tmp_path)


def test_offsets_past_the_end_are_an_error(tmp_path: Path) -> None:
    write_raw(tmp_path / SINGLE, {"a": entry(0, 24), "b": entry(24, 48)})
    with pytest.raises(ModelFilesError, match="cut short"):
        Checkpoint(tmp_path)


@pytest.mark.parametrize("dtype", ["F8_E4M3", "C64", "Q4"])
def test_an_unknown_type_is_named_with_the_known_ones(tmp_path: Path, dtype: str) -> None:
    write_raw(tmp_path / SINGLE, {"a": entry(0, 24, dtype=dtype)})
    with pytest.raises(UnsupportedError, match=rf"type {dtype}; onnxembed reads F64, F32, F16, BF16"):
        Checkpoint(tmp_path)
