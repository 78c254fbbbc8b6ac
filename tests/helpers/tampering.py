"""Checkpoints and artifacts that are wrong on purpose, with correct hashes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx
from safetensors.numpy import load_file, save_file

from onnxembed.manifest import FILE_NAME, FileRecord, read_manifest


def change_weights(checkpoint: Path, change: Callable[[str, Any], Any]) -> None:
    weights = load_file(checkpoint / "model.safetensors")
    save_file({name: change(name, tensor) for name, tensor in weights.items()}, checkpoint / "model.safetensors")


def change_graph(folder: Path, change: Callable[[onnx.GraphProto], None], file: str = "onnx/model.onnx") -> None:
    """Change a graph, the fp32 one unless another is named, and its hash in the manifest to match."""
    path = folder / file
    proto = onnx.load(path)
    change(proto.graph)
    onnx.save(proto, path)
    record_anew(folder, file)


def record_anew(folder: Path, file: str) -> None:
    """Let the manifest's record of a file match what is there."""
    manifest, content = read_manifest(folder), (folder / file).read_bytes()
    record = FileRecord(hashlib.sha256(content).hexdigest(), len(content))
    (folder / FILE_NAME).write_text(replace(manifest, files={**manifest.files, file: record}).to_json())


def change_tensor(graph: onnx.GraphProto, name: str, change: Callable[[Any], Any]) -> None:
    """Change the weights of a graph whose name ends so."""
    (tensor,) = (tensor for tensor in graph.initializer if tensor.name.endswith(name))
    values = onnx.numpy_helper.to_array(tensor)
    tensor.CopyFrom(onnx.numpy_helper.from_array(change(values).astype(values.dtype), tensor.name))


def ignore_mask(graph: onnx.GraphProto) -> None:
    """Every slot is attended to and pooled, including padding."""
    for node in graph.node:
        node.input[:] = ["everything" if name == "attention_mask" else name for name in node.input]
    zero, one = (onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [], [i]) for i, name in enumerate(("no", "yes")))
    graph.initializer.extend([zero, one])
    graph.node.insert(0, onnx.helper.make_node("Mul", ["attention_mask", "no"], ["nothing"]))
    graph.node.insert(1, onnx.helper.make_node("Add", ["nothing", "yes"], ["everything"]))
