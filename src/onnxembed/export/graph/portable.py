"""The portable form of a graph: standard ONNX operators only, and one path through them for every run.

Architectures are written in the vocabulary of `Graph`. What is one of ONNX Runtime's own operators there is here what
that operator computes (https://github.com/microsoft/onnxruntime, docs/ContribOperators.md), in operators of opset 18:
`Gelu`, `RotaryEmbedding` and `Attention` are standard ones, too, but of newer opsets, which other programs lack. Every
run is masked, because branches are what they lack most.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx
from onnx import TensorProto

from onnxembed.errors import UnsupportedError
from onnxembed.export.checkpoint.tensors import Checkpoint
from onnxembed.export.graph.graph import OPSET, Graph, Heads, Initializer, Value
from onnxembed.manifest import Precision

Number = Callable[[float], Value]
"""Makes a scalar in the type of what it is multiplied with."""


class PortableGraph(Graph):
    """A graph in operators that every program which reads ONNX has."""

    fused = False

    def __init__(self, weights: Checkpoint, precision: Precision) -> None:
        super().__init__(weights, precision)
        self._masks: dict[tuple[Value, Value, bool], Value] = {}

    @property
    def opsets(self) -> dict[str, int]:
        """The domains of the graph's operators, with the version of each."""
        return {"": OPSET}

    def op(
        self, op_type: str, *inputs: Value, domain: str = "", name: str = "", unread: int = 0, **attributes: Any
    ) -> Value:
        """Add a node of the standard domain and return its first output; it may have `unread` more."""
        if domain:
            raise UnsupportedError(f"--form portable: {domain}.{op_type} is no standard operator")
        return super().op(op_type, *inputs, name=name, unread=unread, **attributes)

    def append_nodes(self, nodes: Sequence[onnx.NodeProto], weights: Sequence[Initializer], opset: int) -> None:
        """Append finished nodes, written in `opset`, and their weights; no name may be in the graph already.

        Raises UnsupportedError for operators that are not standard ones of this form's opset.
        """
        if strange := sorted({node.op_type for node in nodes if node.domain}):
            raise UnsupportedError(f"--form portable: the graph of this engine has {', '.join(strange)}")
        if opset > OPSET:
            raise UnsupportedError(f"--form portable: this engine writes opset {opset}, not {OPSET}")
        super().append_nodes(nodes, weights, opset)

    # ---- the vocabulary

    def activate(
        self, x: Value, op_type: str, domain: str, attributes: Mapping[str, Any], precision: Precision
    ) -> Value:
        """An activation by its operator, of an x in the type of `precision`."""
        if not domain:
            return self.op(op_type, x, **attributes)
        return ACTIVATIONS[op_type](self, x, lambda value: self.number(value, precision), **attributes)

    def linear_act(self, x: Value, name: str, activation: str) -> Value:
        """activation(Linear(x))."""
        return self.activation(self.linear(x, name), activation)

    def rms_norm(self, x: Value, name: str, eps: float, *, offset: float = 0.0) -> Value:
        """x / rms(x) * (weight + offset) over the last axis; x / rms(x) in float32."""
        wide = self.to_float32(x)
        mean = self.op("ReduceMean", self.op("Mul", wide, wide), self.integers(-1), keepdims=1)
        root = self.op("Sqrt", self.op("Add", mean, self.float32(eps)))
        normed = self.from_float32(self.op("Div", wide, root))
        return self.op("Mul", normed, self.weight(f"{name}.weight", offset=offset), name=name)

    def add_rms_norm(self, x: Value, skip: Value, name: str, eps: float, *, offset: float = 0.0) -> tuple[Value, Value]:
        """(rms_norm(x + skip), x + skip): the second is what the next residual connection starts from."""
        total = self.op("Add", x, skip, name=f"{name}.sum")
        return self.rms_norm(total, name, eps, offset=offset), total

    def rotate(self, x: Value, cos: Value, sin: Value, heads: int) -> Value:
        """The halves of each head of x [B, T, heads * d] against each other, by cos and sin [T, d / 2]."""
        halves = self.op("Reshape", x, self.integers(0, 0, heads, 2, -1))
        first, second = (self.op("Gather", halves, self.integer(half), axis=3) for half in range(2))
        cos, sin = (self.op("Unsqueeze", table, self.integers(1)) for table in (cos, sin))  # [T, 1, d / 2]
        turned = self.op("Sub", self.op("Mul", first, cos), self.op("Mul", second, sin))
        other = self.op("Add", self.op("Mul", second, cos), self.op("Mul", first, sin))
        return self.op("Reshape", self.op("Concat", turned, other, axis=-1), self.integers(0, 0, -1))

    def attend(self, layer: Heads, *, causal: bool, keys: Value = "", scores: Value = "") -> Value:
        """softmax(query @ key.T * scale + mask) @ value for each head; see `Graph.attend`."""
        if layer.bias:
            raise ValueError("no operator adds biases here: add them in the Linears")
        factor = self.number(layer.head_dim**-0.5 if layer.scale is None else layer.scale, self.precision)
        apart = self.integers(0, 0, layer.heads, layer.head_dim)
        query, key, value = (
            self.op("Reshape", x, apart) for x in (layer.query, layer.key, layer.value)
        )  # [B, T, H, d]
        query = self.op("Mul", self.op("Transpose", query, perm=(0, 2, 1, 3)), factor)
        similar = self.op("MatMul", query, self.op("Transpose", key, perm=(0, 2, 3, 1)))  # [B, H, T, T]
        shares = self.op("Softmax", self.op("Add", similar, self._mask(keys, scores, causal)), axis=-1)
        mixed = self.op("MatMul", shares, self.op("Transpose", value, perm=(0, 2, 1, 3)))
        return self.op("Reshape", self.op("Transpose", mixed, perm=(0, 2, 1, 3)), self.integers(0, 0, -1))

    def _mask(self, keys: Value, scores: Value, causal: bool) -> Value:
        """What is added to the scores, [B, 1 or H, 1 or T, T]; made once for all layers that share it."""
        wanted = (keys, scores, causal)
        if wanted not in self._masks:
            seen = self.op("Unsqueeze", self.op("Cast", keys, to=TensorProto.BOOL), self.integers(1, 2))
            if causal:
                seen = self.op("And", seen, self._earlier(keys))
            added = self.near_or_far(seen)
            self._masks[wanted] = self.op("Add", added, scores) if scores else added
        return self._masks[wanted]

    def _earlier(self, keys: Value) -> Value:
        """Whether a key [T] is not after a query [T, 1]: bool [T, T]."""
        length = self.op("Squeeze", self.op("Shape", keys, start=1, end=2))
        places = self.op("Range", self.integer(0), length, self.integer(1))
        return self.op("LessOrEqual", places, self.op("Unsqueeze", places, self.integers(1)))


def _gelu(g: Graph, x: Value, number: Number) -> Value:
    """x / 2 * (1 + erf(x / sqrt(2))), in the order of torch's exporter, which other programs know as one operator."""
    erf = g.op("Erf", g.op("Div", x, number(math.sqrt(2))))
    return g.op("Mul", g.op("Mul", x, g.op("Add", erf, number(1))), number(0.5))


def _tanh_gelu(g: Graph, x: Value, number: Number) -> Value:
    """x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x ** 3)))."""
    cube = g.op("Mul", x, g.op("Mul", x, x))
    inner = g.op("Mul", g.op("Add", x, g.op("Mul", cube, number(0.044715))), number(math.sqrt(2 / math.pi)))
    return g.op("Mul", g.op("Mul", x, number(0.5)), g.op("Add", g.op("Tanh", inner), number(1)))


def _quick_gelu(g: Graph, x: Value, number: Number, alpha: float = 1.702) -> Value:
    """x * sigmoid(alpha * x); SiLU with an alpha of 1."""
    inner = x if alpha == 1 else g.op("Mul", x, number(alpha))
    return g.op("Mul", x, g.op("Sigmoid", inner))


# ONNX Runtime's operator -> what it computes.
ACTIVATIONS: dict[str, Callable[..., Value]] = {"Gelu": _gelu, "FastGelu": _tanh_gelu, "QuickGelu": _quick_gelu}
