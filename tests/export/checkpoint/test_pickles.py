"""Files of torch.save: every tensor is read correctly without torch, and nothing but tensors is ever built."""

from __future__ import annotations

import json
import os
import pickle
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from models.torch_files import (
    ORDERED,
    STOP,
    call,
    global_name,
    group,
    number,
    storage,
    table,
    tensor,
    text,
    write_archive,
    write_torch,
)
from onnxembed.errors import ModelFilesError, OnnxEmbedError, UnsupportedError
from onnxembed.export.checkpoint.pickles import MAX_PICKLE, read_pickle
from onnxembed.export.checkpoint.tensors import Checkpoint

BIN = "pytorch_model.bin"
VALUES = np.arange(12, dtype=np.float32)
BYTES = VALUES.tobytes()
WHOLE = tensor(storage("0", 12), (3, 4), (4, 1))


def read(path: Path) -> dict[str, NDArray[Any]]:
    return {name: record.map() for name, record in read_pickle(path).items()}


def crafted(path: Path, program: bytes, **options: Any) -> Path:
    """A file whose pickle is a table with one entry made by `program`, over one storage of 12 floats."""
    write_archive(path, table({"a": program}), {"0": BYTES}, **options)
    return path


# ---- reading, without torch


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16, np.int64])
def test_reads_every_type_as_stored(tmp_path: Path, dtype: Any) -> None:
    expected = VALUES.reshape(3, 4).astype(dtype)
    write_torch(tmp_path / BIN, {"a": expected, "b": expected[:1]})
    actual = read(tmp_path / BIN)
    assert actual["a"].dtype == np.dtype(dtype)
    np.testing.assert_array_equal(actual["a"].astype(np.float64), expected.astype(np.float64))
    np.testing.assert_array_equal(actual["b"].astype(np.float64), expected[:1].astype(np.float64))


@pytest.mark.parametrize(
    ("shape", "strides", "offset", "expected"),
    [
        ((3, 4), (4, 1), 0, VALUES.reshape(3, 4)),
        ((4, 3), (1, 4), 0, VALUES.reshape(3, 4).T),
        ((2, 4), (4, 1), 4, VALUES.reshape(3, 4)[1:]),
        ((3, 2), (4, 1), 1, VALUES.reshape(3, 4)[:, 1:3]),
        ((3, 2), (4, 2), 1, VALUES.reshape(3, 4)[:, 1::2]),
        ((2, 3, 2), (2, 4, 1), 0, VALUES.reshape(3, 2, 2).transpose(1, 0, 2)),
        ((12,), (1,), 0, VALUES),
        ((1, 12), (7, 1), 0, VALUES[None]),  # the stride of an axis of one means nothing
        ((1, 12), (0, 1), 0, VALUES[None]),  # as torch's expand leaves position_ids
        ((), (), 5, VALUES[5]),
        ((0, 4), (4, 1), 0, VALUES.reshape(3, 4)[:0]),
        ((0,), (1,), 12, VALUES[:0]),
    ],
)
def test_views_are_those_that_torch_means(
    tmp_path: Path, shape: tuple[int, ...], strides: tuple[int, ...], offset: int, expected: NDArray[np.float32]
) -> None:
    path = crafted(tmp_path / BIN, tensor(storage("0", 12), shape, strides, offset))
    actual = read(path)["a"]
    assert actual.shape == shape
    np.testing.assert_array_equal(actual, expected)
    if shape and 0 not in shape:
        with pytest.raises(ValueError, match="read-only"):
            actual[...] = 1


def test_tensors_may_share_a_storage(tmp_path: Path) -> None:
    """Tied weights, and parameters around tensors."""
    tied = call("torch._utils._rebuild_parameter", WHOLE, b"\x88", ORDERED)
    write_archive(tmp_path / BIN, table({"a": WHOLE, "b": tied}), {"0": BYTES})
    records = read_pickle(tmp_path / BIN)
    assert records["a"] == records["b"]


def test_newer_pickles_and_attributes_of_the_table_are_read(tmp_path: Path) -> None:
    """Protocol 4 has its own instructions for names and the memo; state dicts carry `_metadata`."""
    named = b"\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93\x94"
    arguments = WHOLE.removeprefix(global_name("torch._utils._rebuild_tensor_v2"))
    program = b"\x95" + struct.pack("<Q", 9) + table({"a": named + arguments}) + b"}" + text("_metadata") + b"}sb"
    write_archive(tmp_path / BIN, program, {"0": BYTES})
    np.testing.assert_array_equal(read(tmp_path / BIN)["a"], VALUES.reshape(3, 4))


def test_the_core_needs_no_torch(tmp_path: Path) -> None:
    write_torch(tmp_path / BIN, {"a": VALUES})
    program = (
        "import sys; sys.modules['torch'] = None; from pathlib import Path; "
        "from onnxembed.export.checkpoint.tensors import Checkpoint; "
        "print(Checkpoint(Path(sys.argv[1])).read('a').sum())"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.stdout == "66.0\n", done.stderr


# ---- in a checkpoint


def test_a_checkpoint_reads_a_single_pickle(tmp_path: Path) -> None:
    write_torch(tmp_path / BIN, {"bert.norm.gamma": VALUES, "bert.ids": np.arange(3), "cls.bias": VALUES})
    weights = Checkpoint(tmp_path, prefix="bert.")
    assert weights.shape("norm.weight") == (12,)
    np.testing.assert_array_equal(weights.read("norm.weight"), VALUES)
    with pytest.raises(UnsupportedError, match="ids is I64"):
        weights.read("ids")
    assert weights.unused() == ["cls.bias"]


def test_a_checkpoint_reads_shards(tmp_path: Path) -> None:
    names = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    for factor, (name, shard) in enumerate(names.items(), start=1):
        write_torch(tmp_path / shard, {name: VALUES * factor})
    (tmp_path / f"{BIN}.index.json").write_text(json.dumps({"weight_map": names}))
    weights = Checkpoint(tmp_path)
    assert [weights.read(name).max() for name in "ab"] == [11, 22]
    (tmp_path / names["b"]).unlink()
    with pytest.raises(ModelFilesError, match=f"lacks {names['b']}, which {BIN}.index.json names"):
        Checkpoint(tmp_path)


def test_safetensors_are_preferred(tmp_path: Path) -> None:
    (tmp_path / BIN).write_bytes(b"is not even looked at")
    save_file({"a": VALUES}, tmp_path / "model.safetensors")
    np.testing.assert_array_equal(Checkpoint(tmp_path).read("a"), VALUES)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its own memory from /proc")
def test_tensors_that_were_read_do_not_stay_in_memory(tmp_path: Path) -> None:
    count, size = 16, 2**22
    write_torch(tmp_path / BIN, {f"t{i}": np.full(size // 4, i, np.float32) for i in range(count)})

    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

    before = resident()
    weights, grown = Checkpoint(tmp_path), 0
    for i in range(count):
        assert weights.read(f"t{i}").sum() == i * size // 4
        grown = max(grown, resident() - before)
    assert grown < 4 * size


# ---- pickles that ask for more than tensors


class Reduced:
    """A pickle that calls `function` when it is loaded by Python."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.parts = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.parts


def attacks(proof: Path) -> dict[str, tuple[bytes, str]]:
    """Instructions that would create the file `proof` when run, and the name that the refusal must contain."""
    command = text(f"touch {proof}")
    code = text(f"__import__('pathlib').Path({str(proof)!r}).touch()")
    system = global_name("os.system")
    posix = f"{os.system.__module__}.system"
    getattr_os = call("builtins.getattr", call("builtins.__import__", text("os")), text("system"))
    return {
        "REDUCE": (call("os.system", command), "os.system"),
        "eval": (call("builtins.eval", code), "builtins.eval"),
        "exec": (call("builtins.exec", code), "builtins.exec"),
        "python 2": (call("__builtin__.eval", code), "__builtin__.eval"),
        "subprocess": (call("subprocess.check_output", group(text("touch"), text(str(proof)))), "subprocess.check_out"),
        "getattr": (getattr_os + group(command) + b"R", "builtins.getattr"),
        "a dotted name": (b"cos\nsystem.__call__\n" + group(command) + b"R", "os.system.__call__"),
        "STACK_GLOBAL": (text("os") + text("system") + b"\x93" + group(command) + b"R", "os.system"),
        "STACK_GLOBAL from the memo": (
            text("os") + b"q\x00" + text("system") + b"q\x01h\x00h\x01\x93" + group(command) + b"R",
            "os.system",
        ),
        "INST": (b"(" + command + b"ios\nsystem\n", "os.system"),
        "INST of an allowed name": (b"(icollections\nOrderedDict\n", "collections.OrderedDict"),
        "OBJ": (b"(" + system + command + b"o", "os.system"),
        "OBJ of an allowed name": (b"(" + global_name("collections.OrderedDict") + b"o", "the instruction OBJ"),
        "NEWOBJ": (system + group(command) + b"\x81", "os.system"),
        "NEWOBJ of an allowed name": (global_name("torch.FloatStorage") + b")\x81", "the instruction NEWOBJ"),
        "NEWOBJ_EX": (system + group(command) + b"}\x92", "os.system"),
        "BUILD": (global_name("collections.OrderedDict") + b"}b", "attributes of a Global"),
        "BUILD of a tensor": (WHOLE + b"}" + text("__setstate__") + system + b"sb", "os.system"),
        "BUILD with a tuple": (ORDERED + group(b"N", b"}") + b"b", "attributes of a table"),
        "EXT1": (b"\x82\x01", "the instruction EXT1"),
        "a call of a storage": (call("torch.FloatStorage", command), "a call of torch.FloatStorage"),
        "a call of no function": (text("os.system") + group(command) + b"R", "a call of str"),
        "an OrderedDict with content": (call("collections.OrderedDict", b"]"), "a call of collections.OrderedDict"),
        "persistent text": (b"P" + b"os.system\n", "the instruction PERSID"),
        "persistent id": (group(text("module"), system, text("0"), text("cpu"), number(1)) + b"Q", "os.system"),
        "persistent id of another kind": (
            group(text("module"), global_name("torch.FloatStorage"), text("0"), text("cpu"), number(1)) + b"Q",
            "an object outside the pickle",
        ),
        "torch.load": (call("torch.load", text(str(proof))), "torch.load"),
        "torch.jit": (call("torch.jit._serialization.load", text(str(proof))), "torch.jit._serialization.load"),
        "torch.hub": (call("torch.hub.load", text("a/b"), text("c")), "torch.hub.load"),
        "sparse": (call("torch._utils._rebuild_sparse_tensor", WHOLE), "torch._utils._rebuild_sparse_tensor"),
        "numpy": (call("numpy.core.multiarray._reconstruct", text("")), "numpy.core.multiarray._reconstruct"),
        "an allowed last name": (global_name("evil.OrderedDict"), "evil.OrderedDict"),
        "an allowed beginning": (global_name("collections.OrderedDict.fromkeys"), "collections.OrderedDict.fromkeys"),
        "a storage that is none": (global_name("torch.storage._load_from_bytes"), "torch.storage._load_from_bytes"),
        "made by Python": (pickle.dumps(Reduced(os.system, f"touch {proof}"), 2)[2:-1], posix),
        "made by Python, protocol 5": (pickle.dumps(Reduced(os.system, f"touch {proof}"), 5)[2:-1], posix),
    }


@pytest.mark.parametrize("attack", attacks(Path()))
def test_a_crafted_pickle_is_refused_by_name_and_not_run(tmp_path: Path, attack: str) -> None:
    proof = tmp_path / "was-run"
    program, name = attacks(proof)[attack]
    for number_, position in enumerate((program, table({"a": WHOLE}) + program, group(program))):
        path = tmp_path / f"{number_}.bin"
        write_archive(path, position, {"0": BYTES})
        with pytest.raises(UnsupportedError, match="nothing in it was run") as caught:
            read_pickle(path)
        assert name in str(caught.value)
        assert str(path) in str(caught.value)
    assert not proof.exists()


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Python's own unpickler does run the pickles that are refused above."""
    for name in ("REDUCE", "eval", "STACK_GLOBAL", "INST", "OBJ", "made by Python, protocol 5"):
        proof = tmp_path / name.replace(" ", "-")
        pickle.loads(b"\x80\x04" + attacks(proof)[name][0] + STOP)
        assert proof.exists(), name


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"N", "holds a NoneType"),
        (b"]", "holds a list"),
        (WHOLE, "holds a tensor"),
        (table({"state_dict": table({"a": WHOLE})}), "its entry 'state_dict' is a table, not a tensor"),
        (table({"a": WHOLE, "epoch": number(3)}), "its entry 'epoch' is a int, not a tensor"),
        (table({"a": storage("0", 12)}), "its entry 'a' is a Storage, not a tensor"),
    ],
)
def test_a_pickle_that_is_not_a_table_of_tensors_is_refused(tmp_path: Path, value: bytes, message: str) -> None:
    write_archive(tmp_path / BIN, value, {"0": BYTES})
    with pytest.raises(UnsupportedError, match=message):
        read_pickle(tmp_path / BIN)


@pytest.mark.parametrize("kind", ["torch.ComplexFloatStorage", "torch.QInt8Storage", "torch.storage.UntypedStorage"])
def test_a_type_that_is_not_read_is_named(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UnsupportedError, match=kind):
        read_pickle(crafted(tmp_path / BIN, tensor(storage("0", 12, kind), (3, 4), (4, 1))))


# ---- files that lie


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (tensor(storage("0", 13), (3, 4), (4, 1)), "has 48 bytes, fewer than 13 F32"),
        (tensor(storage("0", 12, "torch.DoubleStorage"), (3, 4), (4, 1)), "has 48 bytes, fewer than 12 F64"),
        (tensor(storage("0", 2**80), (3, 4), (4, 1)), "has 48 bytes"),
        (tensor(storage("0", 12), (4, 4), (4, 1)), r"shape \(4, 4\).* does not fit"),
        (tensor(storage("0", 12), (3, 4), (5, 1)), "does not fit"),
        (tensor(storage("0", 12), (3, 4), (4, 1), 1), "does not fit"),
        (tensor(storage("0", 12), (0,), (1,), 13), "does not fit"),
        (tensor(storage("0", 12), (2**62, 2**62), (0, 0)), "does not fit"),
        (tensor(storage("0", 12), (13,), (0,)), "does not fit"),
        (tensor(storage("0", 12), (2,), (-1,), 5), "is not described as torch"),
        (tensor(storage("0", 12), (2,), (1,), -1), "is not described as torch"),
        (tensor(storage("0", 12), (-2,), (1,)), "is not described as torch"),
        (tensor(storage("0", 12), (3, 4), (1,)), "is not described as torch"),
        (tensor(storage("0", 12), (1,) * 65, (1,) * 65), "is not described as torch"),
        (tensor(b"N", (3, 4), (4, 1)), "is not described as torch"),
        (tensor(storage("1", 12), (3, 4), (4, 1)), "is damaged.*data/1"),
        (tensor(storage("0", -12), (0,), (1,)), "no proper key or size"),
        (tensor(storage("../data.pkl", 1), (1,), (1,)), "no proper key or size"),
        (tensor(storage("\u0660", 12), (3, 4), (4, 1)), "no proper key or size"),
        (group(text("storage"), text("cpu")) + b"Q", "is damaged"),
        (call("torch._utils._rebuild_tensor_v2", storage("0", 12)), "is damaged"),
        (call("torch._utils._rebuild_parameter", WHOLE), "is damaged"),
        (b"h\x07", "is damaged"),
        (b"0", "the instruction POP"),
        (b"\x85\x86\x87\x87\x87", "too little on the stack"),
        (b"tttttt", "is damaged"),
        (b"]" + text("a") + WHOLE + b"s", "is damaged"),
        (b"}(" + text("a") + b"u", "is damaged"),
        (b"}]Ns", "neither texts nor numbers"),
        (b"\xff", "is damaged"),
        (b"X\xff\xff\xff\xffabc", "is damaged"),
    ],
)
def test_a_pickle_of_nonsense_is_one_clear_error(tmp_path: Path, program: bytes, message: str) -> None:
    crafted(tmp_path / BIN, program)
    with pytest.raises(OnnxEmbedError, match=message) as caught:
        read_pickle(tmp_path / BIN)
    assert len(str(caught.value)) < 1000


BOMBS = {
    "lists inside lists": (b"]" * 2**20, "nests deeper"),
    "marks": (b"(" * 2**20, "nests deeper"),
    "tables inside tables": ((b"}" + text("a")) * 2**18, "nests deeper"),
    "tuples inside tuples": (b")" + b"\x85" * 2**20, "its entry 'a' is a tuple"),
    "tuples that double": (b")" + b"q\x00h\x00\x86" * 60, "its entry 'a' is a tuple"),
    "a key that doubles": (b"}" + b")" + b"q\x00h\x00\x86" * 60 + b"Ns", "neither texts nor numbers"),
    "doubling compared": (global_name("collections.OrderedDict") + b")" + b"q\x00h\x00\x86" * 60 + b"R", "a call of"),
    "a place far out in the memo": (b"Nr\xff\xff\xff\x7f", "its entry 'a' is a NoneType"),
    "a large memo": (b"N\x94" * 2**20, "nests deeper"),
    "a long name": (global_name("x" * 2**20 + ".y"), "nothing in it was run"),
    "a number of many digits": (b"I" + b"9" * 2**20 + b"\n", "is damaged|the instruction INT"),
    "too long": (b"N" * MAX_PICKLE, "too many for a table"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_one_clear_error_soon(tmp_path: Path, bomb: str) -> None:
    program, message = BOMBS[bomb]
    crafted(tmp_path / BIN, program)
    begun = time.process_time()
    with pytest.raises(OnnxEmbedError, match=message) as caught:
        read_pickle(tmp_path / BIN)
    assert time.process_time() - begun < 20
    assert len(str(caught.value)) < 1000


# ---- archives that lie


def members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_truncated_file_is_an_error_wherever_it_is_cut(tmp_path: Path) -> None:
    write_torch(tmp_path / "whole", {"a": VALUES, "b": VALUES})
    whole = (tmp_path / "whole").read_bytes()
    for size in range(len(whole)):
        (tmp_path / BIN).write_bytes(whole[:size])
        with pytest.raises(ModelFilesError, match=r"cut short|not a file that torch\.save writes"):
            read_pickle(tmp_path / BIN)


def test_a_damaged_file_is_an_error_of_ours_or_read(tmp_path: Path) -> None:
    """With any byte outside the tensors changed: never another exception, and never values from another place."""
    write_torch(tmp_path / "whole", {"a": VALUES})
    whole = (tmp_path / "whole").read_bytes()
    data = whole.index(BYTES)
    for place in [*range(data), *range(data + len(BYTES), len(whole))]:
        for change in (1, 0x80):
            damaged = bytearray(whole)
            damaged[place] ^= change
            (tmp_path / BIN).write_bytes(damaged)
            try:
                arrays = read(tmp_path / BIN)
            except OnnxEmbedError:
                continue
            for array in arrays.values():
                assert array.nbytes <= len(BYTES)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_archive_is_refused(tmp_path: Path, compression: int) -> None:
    write_archive(tmp_path / BIN, table({"a": WHOLE}), {"0": bytes(48)}, compression=compression)
    with pytest.raises(ModelFilesError, match=r"data\.pkl is compressed"):
        read_pickle(tmp_path / BIN)


@pytest.mark.parametrize(
    "name",
    [
        "../evil",
        "tiny/../../evil",
        "/etc/passwd",
        "tiny/./data/1",
        "tiny//data/1",
        "tiny\\..\\evil",
        "tiny/",
        "other/data/0",
    ],
)
def test_a_member_that_torch_would_not_write_is_refused(tmp_path: Path, name: str) -> None:
    path = crafted(tmp_path / BIN, WHOLE, others={name: b""})
    with pytest.raises(ModelFilesError, match=r"has a member .*, which torch\.save would not write") as caught:
        read_pickle(path)
    assert repr(name) in str(caught.value)


def test_a_member_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    path = crafted(tmp_path / BIN, WHOLE)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate"):
        archive.writestr("tiny/data/0", bytes(48))
    with pytest.raises(ModelFilesError, match="'tiny/data/0', which torch"):
        read_pickle(path)


def test_a_directory_that_points_outside_the_file_is_refused(tmp_path: Path) -> None:
    path = crafted(tmp_path / BIN, WHOLE)
    whole = path.read_bytes()
    entry = whole.rindex(b"tiny/data/0") - 46  # the archive's directory, which ends with its entries' names
    for field, value in ((20, 2**20), (24, 2**20), (42, 7), (42, len(whole) - 4), (42, 2**31)):
        damaged = bytearray(whole)
        damaged[entry + field : entry + field + 4] = struct.pack("<I", value)
        path.write_bytes(damaged)
        with pytest.raises(ModelFilesError, match="cut short or damaged"):
            read_pickle(path)


def test_an_archive_that_torch_did_not_write_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / BIN, "w") as archive:
        archive.writestr("tiny/model.txt", "")
    with pytest.raises(ModelFilesError, match=r"not of torch\.save: it has no data\.pkl"):
        read_pickle(tmp_path / BIN)
    (tmp_path / BIN).write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ModelFilesError, match="does not begin as a zip archive"):
        read_pickle(tmp_path / BIN)


def test_another_byte_order_is_refused(tmp_path: Path) -> None:
    path = crafted(tmp_path / BIN, WHOLE)
    changed = {**members(path), "tiny/byteorder": b"big"}
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in changed.items():
            archive.writestr(name, data)
    with pytest.raises(UnsupportedError, match="byte order b'big'"):
        read_pickle(path)


def test_the_format_before_torch_1_6_is_refused_with_the_way_to_convert_it(tmp_path: Path) -> None:
    old = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps(os.system, 2)
    (tmp_path / BIN).write_bytes(old)
    with pytest.raises(
        UnsupportedError, match=r"before torch 1\.6|torch before 1\.6; convert it once.*weights_only=True"
    ):
        read_pickle(tmp_path / BIN)


# ---- beside torch


@pytest.mark.torch
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", ["float64", "float32", "float16", "bfloat16", "int64", "int32", "uint8", "bool"])
def test_equals_torch(tmp_path: Path, name: str, protocol: int) -> None:
    torch = pytest.importorskip("torch", reason="writes with torch; needs the [torch] extra")
    base = (torch.randn(6, 8) * 10).to(getattr(torch, name))
    state = {
        "whole": base,
        "transposed": base.T,
        "rows": base[2:4],
        "columns": base[:, 1:7:2],
        "tied": base,
        "diagonal": base.diagonal(),
        "scalar": base[1, 1],
        "empty": base[:0],
        "expanded": base[0].expand(1, -1),
        "own": base[:, 3].clone(),
        "permuted": base.view(2, 3, 8).permute(2, 0, 1),
    }
    if base.is_floating_point():
        state["parameter"] = torch.nn.Parameter(base[1:])
    torch.save(state, tmp_path / BIN, pickle_protocol=protocol)
    actual = read(tmp_path / BIN)
    assert actual.keys() == state.keys()
    for key, expected in state.items():
        value = expected.detach()
        assert actual[key].shape == tuple(value.shape)
        assert actual[key].dtype.name == name
        np.testing.assert_array_equal(actual[key].astype(np.float64), value.to(torch.float64).numpy())


@pytest.mark.torch
def test_a_module_with_more_tensors_than_one_batch_of_entries(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes with torch; needs the [torch] extra")
    module = torch.nn.ModuleList([torch.nn.Linear(3, 2) for _ in range(700)])
    torch.save(module.state_dict(), tmp_path / BIN)
    actual = read(tmp_path / BIN)
    assert len(actual) == 1400
    for name, value in module.state_dict().items():
        np.testing.assert_array_equal(actual[name], value.numpy())


@pytest.mark.torch
def test_whole_modules_and_the_old_format_are_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="writes with torch; needs the [torch] extra")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.bin")
    with pytest.raises(UnsupportedError, match=r"torch\.nn\.modules\.linear\.Linear.*nothing in it was run"):
        read_pickle(tmp_path / "module.bin")
    torch.save({"a": torch.zeros(2)}, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(UnsupportedError, match=r"before 1\.6"):
        read_pickle(tmp_path / "old.bin")
    torch.save(torch.load(tmp_path / "old.bin", map_location="cpu", weights_only=True), tmp_path / "old.bin")
    np.testing.assert_array_equal(read(tmp_path / "old.bin")["a"], [0, 0])  # converted as the sentence says


@pytest.mark.torch
@pytest.mark.parametrize("head", ["sparse_linear", "colbert_linear"])
def test_the_real_heads_of_bge_m3(shared_data: Path, head: str) -> None:
    torch = pytest.importorskip("torch", reason="compares with torch; needs the [torch] extra")
    path = shared_data / f"configs/bge-m3/{head}.pt"
    expected = torch.load(path, map_location="cpu", weights_only=True)
    actual = read(path)
    assert actual.keys() == expected.keys() == {"weight", "bias"}
    for name, value in expected.items():
        assert actual[name].dtype == np.float16
        np.testing.assert_array_equal(actual[name], value.numpy())
