"""What a checkpoint's weights are, in one hash: of the names, shapes and numbers of all tensors that decide vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from onnxembed.export.checkpoint.linear import FORMATS
from onnxembed.export.checkpoint.lora import adapter_records
from onnxembed.export.checkpoint.tensor_record import TensorRecord
from onnxembed.export.checkpoint.tensors import WEIGHT_DTYPES, tensor_records
from onnxembed.facts.facts import Facts

LENGTH = 16
"""Hexadecimal digits: 64 bits."""

# Numbers that are hashed at a time.
_CHUNK = 2**24


def tensors_digest(facts: Facts) -> str:
    """The hash of a checkpoint's weights, in no matter which files they lie, in which order or how many.

    Integer tensors are left out: they are buffers that some releases write and others do not.
    """
    digest = hashlib.sha256()
    for name, record in sorted(_records(facts), key=lambda item: item[0]):
        if record.dtype in WEIGHT_DTYPES:
            digest.update(f"{name} {record.dtype} {record.shape}\n".encode())
            flat = record.map().reshape(-1)
            for start in range(0, len(flat), _CHUNK):
                digest.update(np.ascontiguousarray(flat[start : start + _CHUNK]).view(np.uint8).data)
    return digest.hexdigest()[:LENGTH]


def _records(facts: Facts) -> Iterator[tuple[str, TensorRecord]]:
    """Every tensor with its name: those of the transformer, of an adapter, of the modules after it, and of heads."""
    yield from tensor_records(facts.weights_folder).items()
    if facts.lora is not None:
        yield from ((f"adapter {name}", record) for name, record in adapter_records(facts.lora.folder).items())
    for place, layer in enumerate((*facts.post.token_layers, *facts.post.layers)):
        folder = getattr(layer, "folder", None)
        if folder is not None:
            yield from ((f"module {place} {name}", record) for name, record in tensor_records(folder).items())
    for head in ("sparse_linear", "colbert_linear"):
        for suffix, read in FORMATS.items():
            if (file := facts.folder / f"{head}{suffix}").is_file():
                yield from ((f"{head} {name}", record) for name, record in read(file).items())
                break
