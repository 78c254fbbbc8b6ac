"""Twenty faults, each of which gives wrong vectors without an error; the proof finds every one.

A graph that was changed has a hash to match, so that only its numbers can show it. The plain fp32 graph on the CPU is
opened as `prove=True` and `onnxembed verify` run it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ProofError
from onnxembed.execution.session import Session
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import read_manifest
from running import needs_torch
from tampering import change_graph, change_tensor, ignore_mask, record_anew
from tiny import write_sentence_bert

Change = Callable[[Any], Any]

QUERY = "encoder.layer.0.attention.self.query.weight.T"
FILE = "onnx/model.onnx"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is remembered from other tests."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def copy(artifact: Path, tmp_path: Path) -> Path:
    return shutil.copytree(artifact, tmp_path / "copy")


def refused(folder: Path, precision: Any = "fp32", words: str = "does not give the model's own vectors") -> bool:
    with pytest.raises(ProofError, match=words):
        OnnxEmbedder(folder, precision=precision, prove=True)
    return True


def flip_a_bit(weight: Any) -> Any:
    """The highest bit of one number's mantissa: it grows or shrinks by a half."""
    flipped = weight.copy()
    flipped.view(np.uint32).reshape(-1)[len(flipped) // 2] ^= 1 << 22
    return flipped


def rounded(bits: int) -> Change:
    """Numbers with so many bits of mantissa, as TF32 (10) and bfloat16 (7) have them."""

    def shorten(weight: Any) -> Any:
        drop = 23 - bits
        return ((weight.view(np.uint32) + (1 << (drop - 1))) & ~np.uint32((1 << drop) - 1)).view(np.float32)

    return shorten


TENSORS: dict[str, tuple[str, Change]] = {
    "the sign of a table": ("word_embeddings.weight", lambda weight: -weight),
    "one flipped bit": (QUERY, flip_a_bit),
    "a weight that is not transposed": (QUERY, lambda weight: weight.T),
    "positions off by one": ("position_embeddings.weight", lambda weight: np.roll(weight, 1, axis=0)),
    "another segment": ("token_type_embeddings.weight", lambda weight: weight[::-1]),
    "a table of zeros": ("position_embeddings.weight", np.zeros_like),
    "products in TF32": ("encoder.layer.0.intermediate.dense.weight.T", rounded(10)),
    "weights in bfloat16": ("encoder.layer.0.intermediate.dense.weight.T", rounded(7)),
}


@pytest.mark.parametrize("fault", TENSORS)
def test_changed_weights_are_found(copy: Path, fault: str) -> None:
    name, change = TENSORS[fault]
    change_graph(copy, lambda graph: change_tensor(graph, name, change))
    assert refused(copy)


def attribute(operator: str, name: str, value: Any) -> Callable[[onnx.GraphProto], None]:
    """Set an attribute of all nodes of a type, those in branches included."""

    def change(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == operator:
                kept = [given for given in node.attribute if given.name != name]
                del node.attribute[:]
                node.attribute.extend([*kept, onnx.helper.make_attribute(name, value)])
            for given in node.attribute:
                if given.type == onnx.AttributeProto.GRAPH:
                    change(given.g)

    return change


def renamed(old: str, new: str) -> Callable[[onnx.GraphProto], None]:
    """Nodes of another type with the same inputs."""

    def change(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            if node.op_type == old:
                node.op_type = new

    return change


GRAPHS: dict[str, Callable[[onnx.GraphProto], None]] = {
    "padding that counts": ignore_mask,
    "the epsilon of a normalization": attribute("LayerNormalization", "epsilon", 1e-3),
    "the scale of attention": attribute("MultiHeadAttention", "scale", 0.5),
    "the number of heads": attribute("MultiHeadAttention", "num_heads", 2),
    "causal instead of bidirectional": attribute("MultiHeadAttention", "unidirectional", 1),
    "tanh's approximation of gelu": renamed("BiasGelu", "FastGelu"),
}


@pytest.mark.parametrize("fault", GRAPHS)
def test_changed_graphs_are_found(copy: Path, fault: str) -> None:
    change_graph(copy, GRAPHS[fault])
    assert refused(copy)


def swap(folder: Path, other: Path) -> None:
    """Put the graph of another artifact in the place of this one's."""
    shutil.copyfile(other / FILE, folder / FILE)
    record_anew(folder, FILE)


@needs_torch
def test_another_base_of_rotary_positions_is_found(tmp_path: Path) -> None:
    from stock_models import write_sentence_decoder

    for name, base in ("right", 10_000.0), ("wrong", 1_000_000.0):
        write_sentence_decoder(tmp_path / name, "llama", rope_parameters={"rope_type": "default", "rope_theta": base})
        export(tmp_path / name, tmp_path / f"{name}-onnx", Options(flags=Flags(attention="causal")))
    OnnxEmbedder(tmp_path / "right-onnx", prove=True).close()
    swap(tmp_path / "right-onnx", tmp_path / "wrong-onnx")
    assert refused(tmp_path / "right-onnx")


@needs_torch
def test_another_attention_of_a_decoder_is_found(tmp_path: Path) -> None:
    from stock_models import write_sentence_decoder

    write_sentence_decoder(tmp_path / "decoder", "llama", pooling="mean")
    for attention in ("bidirectional", "causal"):
        flags = Flags(attention=attention)
        export(tmp_path / "decoder", tmp_path / attention, Options(flags=flags))
    swap(tmp_path / "bidirectional", tmp_path / "causal")
    assert refused(tmp_path / "bidirectional")


def test_another_pooling_is_found(tmp_path: Path) -> None:
    write_sentence_bert(tmp_path / "checkpoint")
    for pooling in ("mean", "cls"):
        export(tmp_path / "checkpoint", tmp_path / pooling, Options(flags=Flags(pooling=(pooling,))))
    swap(tmp_path / "mean", tmp_path / "cls")
    assert refused(tmp_path / "mean")


@pytest.mark.parametrize(
    "change", [{"normalizer": None}, {"post_processor": None}], ids=["lower case", "special tokens"]
)
def test_a_changed_tokenizer_is_found(copy: Path, change: dict[str, Any]) -> None:
    state = json.loads((copy / "tokenizer.json").read_text())
    (copy / "tokenizer.json").write_text(json.dumps(state | change))
    record_anew(copy, "tokenizer.json")
    assert refused(copy, words="token ids are not those of the proof")
    assert refused(copy, "fp16", "token ids are not those of the proof")


def test_other_segments_are_found(copy: Path) -> None:
    text = (copy / "tokenizer.json").read_text()
    (copy / "tokenizer.json").write_text(re.sub(r'"type_id":\s*0', '"type_id": 1', text))
    record_anew(copy, "tokenizer.json")
    assert refused(copy, words=r"segments are not those of the proof: 'a' has \[1, 1, 1\].*, not \[0, 0, 0\]")


def test_numbers_beyond_fp16_are_found(copy: Path) -> None:
    file = read_manifest(copy).variants["fp16"].file
    name, largest = "layer.0.output.LayerNorm.weight", np.float32(np.finfo(np.float16).max)
    change_graph(copy, lambda graph: change_tensor(graph, name, lambda weight: np.full_like(weight, largest)), file)
    assert refused(copy, "fp16")


def wrong_kernel(monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Any], Any], when: Callable[[Any], bool]) -> None:
    """Let ONNX Runtime return something else for some shapes."""
    run = Session.run

    def running(self: Session, outputs: Sequence[str], feeds: Any, **options: Any) -> Any:
        results = run(self, outputs, feeds, **options)
        return [spoil(result) for result in results] if when(feeds["input_ids"].shape) else results

    monkeypatch.setattr(Session, "run", running)


WRONG: dict[str, tuple[Change, Callable[[Any], bool]]] = {
    "several texts of one length": (lambda result: result * np.float32(0.7), lambda shape: shape[0] > 1),
    "rows in another order": (lambda result: result[::-1], lambda shape: shape[0] > 1),
    "long texts": (lambda result: -result, lambda shape: shape[1] == 20),
    "sums that saturate": (lambda result: np.clip(result, -0.25, 0.25), lambda shape: True),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_wrong_kernel_is_found(artifact: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    wrong_kernel(monkeypatch, *WRONG[fault])
    assert refused(artifact)
    assert refused(artifact, "fp16")


@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_there_are_no_false_alarms(artifact: Path, threads: int, precision: Any) -> None:
    for _ in range(5):
        OnnxEmbedder(artifact, precision=precision, threads=threads, prove=True).close()
