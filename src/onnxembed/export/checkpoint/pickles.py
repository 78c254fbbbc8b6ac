"""torch.save's files (pytorch_model.bin, *.pt) read without torch, and without running anything in them.

Such a file is a zip archive, NAME/data.pkl next to NAME/data/0, NAME/data/1, ...: a pickle that describes
the tensors, and the bytes of their storages, never compressed. (Reference: torch/serialization.py and
torch/_utils.py.) A pickle is a program. Ours is a machine of its own with only the instructions that
torch.save writes for a table of tensors; a global is a name to it, looked up in a small table, and no
name leads to a function that is called. Bytes are mapped when a tensor is read.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.checkpoint.tensor_record import DTYPES, TensorRecord

# A checkpoint of 10,000 tensors has a pickle of 2 MB, and never more than 2,000 values on the stack,
# because entries are put into a table a thousand at a time.
MAX_PICKLE = 16_000_000
MAX_STACK = 10_000
MAX_AXES = 64  # as many as numpy's arrays may have

DICT = "collections.OrderedDict"
TENSOR = "torch._utils._rebuild_tensor_v2"
PARAMETER = "torch._utils._rebuild_parameter"
STORAGES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
GLOBALS = {DICT, TENSOR, PARAMETER, *STORAGES}

LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # how files of torch before 1.6 begin
CONVERT = 'convert it once, where torch is: torch.save(torch.load("{0}", map_location="cpu", weights_only=True), "{0}")'

LOCAL_HEADER = b"PK\x03\x04"
LOCAL_HEADER_SIZE = 30
ENCRYPTED, UTF8 = 0x1, 0x800  # flags of a member


@dataclass(frozen=True)
class Global:
    """A module.name that the pickle asks for: nothing but the name."""

    name: str


@dataclass(frozen=True)
class Storage:
    """Bytes of the file that tensors are views of."""

    dtype: str
    offset: int
    elements: int


@dataclass(frozen=True)
class Member:
    """Where a file of the archive lies."""

    offset: int
    size: int


def read_pickle(path: Path) -> dict[str, TensorRecord]:
    """The tensors of a file of torch.save, by name.

    Raises UnsupportedError for a file that holds, or asks for, anything but tensors, and for the format
    of torch before 1.6; ModelFilesError for a file that is damaged. Nothing of the file is ever run.
    """
    with path.open("rb") as file:
        members = _members(path, file)
        pickle = members["data.pkl"]
        if pickle.size > MAX_PICKLE:
            raise ModelFilesError(f"{path}: its pickle has {pickle.size} bytes, too many for a table of tensors")
        file.seek(pickle.offset)
        program = file.read(pickle.size)
        if "byteorder" in members:
            file.seek(members["byteorder"].offset)
            if (order := file.read(min(members["byteorder"].size, 16))) != b"little":
                raise UnsupportedError(f"{path} is of byte order {order!r}; onnxembed reads little-endian files")
    table = _Machine(path, members).run(program)
    if not isinstance(table, dict):
        raise UnsupportedError(f"{path} holds a {_type_name(table)}, not a table of tensors")
    for name, value in table.items():
        if not isinstance(name, str) or not isinstance(value, TensorRecord):
            raise UnsupportedError(f"{path}: its entry {name!r} is a {_type_name(value)}, not a tensor")
    return table


# ---- the archive


def _members(path: Path, file: BinaryIO) -> dict[str, Member]:
    """The archive's files, by their names below its one folder."""
    start = file.read(len(LEGACY))
    if start == LEGACY:
        raise UnsupportedError(f"{path} is in the format of torch before 1.6; " + CONVERT.format(path.name))
    if not start.startswith(LOCAL_HEADER):
        raise ModelFilesError(f"{path} is not a file that torch.save writes: it does not begin as a zip archive")
    try:
        with zipfile.ZipFile(file) as archive:
            entries, directory = archive.infolist(), archive.start_dir
    except (zipfile.BadZipFile, NotImplementedError, ValueError, EOFError, OSError) as error:
        raise ModelFilesError(f"{path} is cut short or damaged: {error}") from error
    members: dict[str, Member] = {}
    for entry in entries:
        root, _, name = entry.orig_filename.partition("/")
        parts = entry.orig_filename.split("/")
        first = entries[0].orig_filename.partition("/")[0]
        if root != first or name in members or {"", ".", ".."} & {*parts} or "\\" in entry.orig_filename:
            raise ModelFilesError(f"{path} has a member {entry.orig_filename!r}, which torch.save would not write")
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & ENCRYPTED:
            raise ModelFilesError(f"{path}: its member {name} is compressed or encrypted, which torch's never are")
        members[name] = _locate(path, file, entry, directory)
    if "data.pkl" not in members:
        raise ModelFilesError(f"{path} is a zip archive, but not of torch.save: it has no data.pkl")
    return members


def _locate(path: Path, file: BinaryIO, entry: zipfile.ZipInfo, directory: int) -> Member:
    """Where a member's bytes lie: after its own header, whose length the archive's directory does not say."""
    file.seek(max(entry.header_offset, 0))
    header = file.read(LOCAL_HEADER_SIZE)
    name_length, extra_length = (int.from_bytes(header[place : place + 2], "little") for place in (26, 28))
    name = entry.orig_filename.encode("utf-8" if entry.flag_bits & UTF8 else "cp437")
    here = header.startswith(LOCAL_HEADER) and file.read(name_length) == name and entry.header_offset >= 0
    member = Member(entry.header_offset + LOCAL_HEADER_SIZE + name_length + extra_length, entry.file_size)
    if not here or entry.file_size != entry.compress_size or member.offset + member.size > directory:
        raise ModelFilesError(f"{path} is cut short or damaged: its member {entry.orig_filename} does not lie in it")
    return member


# ---- the pickle


class _Machine:
    """Runs the pickle of one file: a stack, the memo, and values that are plain data or tensors' records."""

    def __init__(self, path: Path, members: dict[str, Member]) -> None:
        self.path = path
        self.members = members
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.instructions: dict[str, Callable[[Any], object]] = {
            "PROTO": lambda version: None,
            "FRAME": lambda size: None,
            "MARK": lambda _: self.marks.append(len(self.stack)),
            "NONE": lambda _: self.push(None),
            "NEWTRUE": lambda _: self.push(True),
            "NEWFALSE": lambda _: self.push(False),
            "EMPTY_DICT": lambda _: self.push({}),
            "EMPTY_LIST": lambda _: self.push([]),
            "EMPTY_TUPLE": lambda _: self.push(()),
            "TUPLE": lambda _: self.push(tuple(self.pop_mark())),
            "TUPLE1": lambda _: self.push(tuple(self.pop(1))),
            "TUPLE2": lambda _: self.push(tuple(self.pop(2))),
            "TUPLE3": lambda _: self.push(tuple(self.pop(3))),
            "APPEND": lambda _: self.extend(self.pop(1)),
            "APPENDS": lambda _: self.extend(self.pop_mark()),
            "SETITEM": lambda _: self.update(self.pop(2)),
            "SETITEMS": lambda _: self.update(self.pop_mark()),
            "MEMOIZE": lambda _: self.remember(len(self.memo)),
            "GLOBAL": lambda name: self.push(self.find(*name.split(" ", 1))),
            "STACK_GLOBAL": lambda _: self.push(self.find(*self.pop(2))),
            "INST": lambda name: self.refuse(repr(name.replace(" ", "."))),
            "BINPERSID": lambda _: self.push(self.storage(*self.pop(1))),
            "REDUCE": lambda _: self.push(self.rebuild(*self.pop(2))),
            "BUILD": lambda _: self.ignore_attributes(*self.pop(1)),
            **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT"), self.push),
            **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE"), self.push),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT"), self.remember),
            **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda index: self.push(self.memo[index])),
        }

    def run(self, program: bytes) -> Any:
        """The value that the pickle describes."""
        try:
            for opcode, argument, _ in pickletools.genops(program):
                if opcode.name == "STOP":
                    (value,) = self.stack
                    return value
                if opcode.name not in self.instructions:
                    self.refuse(f"the instruction {opcode.name}")
                self.instructions[opcode.name](argument)
                if len(self.stack) + len(self.marks) > MAX_STACK:
                    raise ModelFilesError(f"{self.path}: its pickle nests deeper than a table of tensors does")
        except UnsupportedError:  # which is a ValueError, too
            raise
        except (ValueError, TypeError, LookupError, AttributeError) as error:
            raise ModelFilesError(f"{self.path}: its pickle is damaged: {error!r}") from error
        raise AssertionError("genops ends with STOP, or raises")

    def refuse(self, what: str) -> NoReturn:
        raise UnsupportedError(
            f"{self.path} asks for {what:.200}, which a file of tensors has no use for; nothing in it was run. "
            "Load it with no other program either, unless you trust its origin"
        )

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def pop(self, count: int) -> list[Any]:
        base = self.marks[-1] if self.marks else 0
        if len(self.stack) - base < count:
            raise ValueError("an instruction finds too little on the stack")
        popped = self.stack[-count:]
        del self.stack[-count:]
        return popped

    def pop_mark(self) -> list[Any]:
        base = self.marks.pop()
        popped = self.stack[base:]
        del self.stack[base:]
        return popped

    def remember(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def extend(self, values: list[Any]) -> None:
        self.stack[-1].extend(values)

    def update(self, values: list[Any]) -> None:
        keys = values[::2]
        # Not tuples: the hash of one that holds another twice, and so on, takes forever.
        if not all(type(key) in (str, int) for key in keys):
            raise ValueError("a table has keys that are neither texts nor numbers")
        self.stack[-1].update(zip(keys, values[1::2], strict=True))

    def find(self, module: object, name: object) -> Global:
        """The Global for module.name; refuses a name that tensors do not need."""
        full = f"{module}.{name}" if isinstance(module, str) and isinstance(name, str) else ""
        if full not in GLOBALS:
            self.refuse(repr(full))
        return Global(full)

    def storage(self, persistent_id: Any) -> Storage:
        """The storage of an id as torch writes it: ("storage", type, key, device, number of elements)."""
        tag, storage_type, key, _, elements = persistent_id
        if tag != "storage" or not isinstance(storage_type, Global) or storage_type.name not in STORAGES:
            self.refuse("an object outside the pickle that is not a storage")
        if not re.fullmatch(r"[0-9]+", key, re.ASCII) or type(elements) is not int or elements < 0:
            raise ValueError("a storage has no proper key or size")
        member = self.members[f"data/{key}"]
        dtype = STORAGES[storage_type.name]
        if elements * np.dtype(DTYPES[dtype]).itemsize > member.size:
            raise ModelFilesError(f"{self.path}: data/{key} has {member.size} bytes, fewer than {elements} {dtype}")
        return Storage(dtype, member.offset, elements)

    def rebuild(self, function: Any, arguments: Any) -> Any:
        """What torch's function makes of its arguments, for the few that are known."""
        name = function.name if isinstance(function, Global) else _type_name(function)
        if name == TENSOR:
            return self.tensor(*arguments)
        if name == PARAMETER:
            tensor, _requires_grad, _backward_hooks = arguments
            return tensor
        if name != DICT or arguments != ():
            self.refuse(f"a call of {name}")
        return {}

    def tensor(
        self,
        storage: Storage,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
        _requires_grad: bool,
        _backward_hooks: dict[str, Any],
        metadata: Any = None,
    ) -> TensorRecord:
        """A view of a storage, checked to lie in it."""
        numbers = (offset, *shape, *strides)
        sizes = all(type(number) is int and number >= 0 for number in numbers) and len(shape) == len(strides)
        if not isinstance(storage, Storage) or not sizes or len(shape) > MAX_AXES or metadata:
            raise ValueError("a tensor is not described as torch describes tensors")
        steps = None if _packed(shape, strides) else tuple(strides)
        itemsize = np.dtype(DTYPES[storage.dtype]).itemsize
        record = TensorRecord(self.path, storage.dtype, tuple(shape), storage.offset + offset * itemsize, steps)
        # More elements than the storage has would repeat some of them, which no weight does.
        if max(prod(shape), offset + record.elements) > storage.elements:
            raise ModelFilesError(
                f"{self.path}: a tensor of shape {shape}, strides {strides} and offset {offset} does not fit in its "
                f"storage of {storage.elements} elements"
            )
        return record

    def ignore_attributes(self, attributes: Any) -> None:
        """Ignore what a state dict carries besides its entries: `_metadata`, the versions of modules."""
        if not isinstance(self.stack[-1], dict) or not isinstance(attributes, dict):
            self.refuse(f"attributes of a {_type_name(self.stack[-1])}")


def _packed(shape: tuple[int, ...], strides: tuple[int, ...]) -> bool:
    """Whether the last axis is the densest and nothing lies between."""
    expected = 1
    for size, stride in zip(reversed(shape), reversed(strides), strict=True):
        if size != 1 and stride != expected:
            return False
        expected *= size
    return True


def _type_name(value: Any) -> str:
    return {dict: "table", TensorRecord: "tensor"}.get(type(value), type(value).__name__)
