"""Operations of a graph, counted from its products: what is divided by the time for a share of the roof.

    each text of T tokens: T x (sum over weight products of 2 x K x N) + sum over attentions of 4 x T x T x D

Products of the token embeddings' descendants (a Dense layer after pooling) have one row a text instead of T.
Attention counts every pair of tokens, also where a causal or local one skips some; everything else
(normalization, activations, softmax) counts as nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

PRODUCTS = ("MatMul", "Gemm", "FusedMatMul", "FusedGemm", "MatMulInteger", "DynamicQuantizeMatMul", "MatMulNBits")
ATTENTIONS = ("MultiHeadAttention", "GroupQueryAttention", "Attention")


@dataclass(frozen=True)
class Flops:
    """Operations for each token, for each text, and for each pair of tokens of one text."""

    token: int
    text: int
    pair: int

    def of(self, lengths: Iterable[int]) -> float:
        """Operations for texts with these numbers of tokens."""
        return float(sum(self.token * length + self.text + self.pair * length * length for length in lengths))


def count(path: Path) -> Flops:
    """Count the operations of an ONNX file."""
    graph = onnx.load(str(path), load_external_data=False).graph
    weights = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    producers = {name: node for node in graph.node for name in node.output}
    pooled = {"token_embeddings"}  # and everything computed from it
    token = text = pair = 0
    for node in graph.node:
        after = any(name in pooled for name in node.input)
        if after:
            pooled.update(node.output)
        inner, columns = _weight(node, weights)
        if after:
            text += 2 * inner * columns
        else:
            token += 2 * inner * columns
        # Both branches of an If do the same work.
        branches = [[inside for inside in branch if inside.op_type in ATTENTIONS] for branch in _branches(node)]
        for attention in max(branches, key=len, default=[]):
            pair += 4 * _width(attention.input[0], producers, weights)
        if node.op_type in ATTENTIONS:
            pair += 4 * _width(node.input[0], producers, weights)
    return Flops(token, text, pair)


def _weight(node: Any, weights: dict[str, tuple[int, ...]]) -> tuple[int, int]:
    """Rows and columns of the weight that a node multiplies by; zeros for other nodes."""
    if node.op_type not in PRODUCTS:
        return 0, 0
    attributes = {attribute.name: attribute.i for attribute in node.attribute}
    if node.op_type == "MatMulNBits":
        return attributes["K"], attributes["N"]
    shape = weights.get(node.input[1], ())
    return (shape[0], shape[1]) if len(shape) == 2 else (0, 0)


def _branches(node: Any) -> Iterator[list[Any]]:
    return (list(attribute.g.node) for attribute in node.attribute if attribute.HasField("g"))


def _width(name: str, producers: dict[str, Any], weights: dict[str, tuple[int, ...]]) -> int:
    """The width of a query: that of the product it comes from, through normalizations and rotations."""
    waiting, parts = [name], 1
    while waiting:
        node = producers.get(waiting.pop(0))
        if node is None:
            continue
        _, columns = _weight(node, weights)
        if columns:
            return columns // parts
        if node.op_type == "Split":
            parts = len(node.output)
        waiting += node.input
    raise ValueError(f"no product with a weight leads to the query {name!r}")
