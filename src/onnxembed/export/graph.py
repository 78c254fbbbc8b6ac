"""The small vocabulary that architectures are written in: ONNX nodes with ONNX Runtime's fused operators.

A `Graph` collects nodes and names of weights; weights are read only when the file is written. Values
are the names of tensors in the graph. Shape letters: B batch, T tokens, H heads, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.weights import Checkpoint
from onnxembed.manifest import Precision

Value = str
Array = np.ndarray[Any, Any]

OPSET = 18
IR_VERSION = 8
MICROSOFT = "com.microsoft"

FLOAT_TYPES: dict[Precision, tuple[Any, int]] = {
    "fp32": (np.float32, TensorProto.FLOAT),
    "fp16": (np.float16, TensorProto.FLOAT16),
}

# config.json's activation names -> the operator (and its domain) that computes them.
# gelu is the exact one, with erf; the others are its tanh and sigmoid approximations.
ACTIVATIONS: dict[str, tuple[str, str]] = {
    "gelu": ("Gelu", MICROSOFT),
    "gelu_new": ("FastGelu", MICROSOFT),
    "gelu_fast": ("FastGelu", MICROSOFT),
    "gelu_pytorch_tanh": ("FastGelu", MICROSOFT),
    "quick_gelu": ("QuickGelu", MICROSOFT),
    "relu": ("Relu", ""),
    "sigmoid": ("Sigmoid", ""),
    "tanh": ("Tanh", ""),
}
# Activations that have an operator which also adds the bias of the product before them.
BIASED_ACTIVATIONS = {"Gelu": "BiasGelu", "FastGelu": "FastGelu"}


@dataclass(frozen=True)
class Initializer:
    """A weight of the graph, read when the graph is written."""

    name: str
    onnx_type: int
    shape: tuple[int, ...]
    read: Callable[[], Array]


@dataclass(frozen=True)
class Padding:
    """The attention mask in the forms that operators want.

    `keys` int32 [B, T] marks real tokens; `absent` is true when every entry of the mask is 1.
    """

    keys: Value
    absent: Value


class Graph:
    """An ONNX graph under construction, in one floating-point type."""

    def __init__(self, weights: Checkpoint, precision: Precision) -> None:
        self.weights = weights
        self.precision = precision
        self.numpy_float, self.onnx_float = FLOAT_TYPES[precision]
        self.initializers: dict[str, Initializer] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._counts: dict[str, int] = {}

    # ---- nodes and constants

    def op(self, op_type: str, *inputs: Value, domain: str = "", name: str = "", **attributes: Any) -> Value:
        """Add a node with one output; an empty input name leaves an optional input out."""
        output = self._unique(name or op_type)
        node = helper.make_node(op_type, list(inputs), [output], name=output, domain=domain, **attributes)
        self._nodes.append(node)
        return output

    def input(self, name: str, onnx_type: int, shape: tuple[str | int, ...]) -> Value:
        """Declare a graph input."""
        self.inputs.append(helper.make_tensor_value_info(name, onnx_type, shape))
        return name

    def output(self, name: str, value: Value, shape: tuple[str | int, ...]) -> None:
        """Declare `value` as a float32 graph output, and rename it to `name` wherever it stands."""
        for node in _walk(self._nodes):
            for names in (node.input, node.output):
                names[:] = [name if each == value else each for each in names]
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    def constant(self, name: str, value: Array) -> Value:
        """A small constant; the same name must always mean the same value."""
        onnx_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.initializers.setdefault(name, Initializer(name, onnx_type, value.shape, lambda: value))
        return name

    def integers(self, *values: int) -> Value:
        """A one-dimensional int64 constant, as shapes and axes are."""
        return self.constant("int64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def float32(self, value: float) -> Value:
        """A float32 scalar."""
        return self.constant(f"float32_{value!r}", np.array(value, np.float32))

    def weight(self, name: str, *, transpose: bool = False) -> Value:
        """A tensor of the checkpoint in the graph's type."""
        shape = self.weights.shape(name)
        value = f"{name}.T" if transpose else name

        def read() -> Array:
            tensor = self.weights.read(name)
            return self._to_float(name, tensor.T if transpose else tensor)

        self.initializers[value] = Initializer(value, self.onnx_float, shape[::-1] if transpose else shape, read)
        return value

    def _to_float(self, name: str, tensor: Array) -> Array:
        with np.errstate(over="ignore"):
            converted = np.ascontiguousarray(tensor, dtype=self.numpy_float)
        if converted.dtype != tensor.dtype and not np.isfinite(converted).all():
            raise UnsupportedError(f"the weight {name} has values that {self.precision} cannot hold")
        return converted

    def _unique(self, stem: str) -> str:
        count = self._counts[stem] = self._counts.get(stem, 0) + 1
        return stem if count == 1 and "." in stem else f"{stem}_{count}"

    # ---- the vocabulary

    def embedding(self, name: str, ids: Value) -> Value:
        """Rows of a table: ids [B, T] -> [B, T, D]."""
        return self.op("Gather", self.weight(f"{name}.weight"), ids, name=name)

    def product(self, x: Value, name: str) -> Value:
        """x @ W.T for a torch Linear's weight (out, in), without its bias."""
        return self.op("MatMul", x, self.weight(f"{name}.weight", transpose=True), name=name)

    def linear(self, x: Value, name: str) -> Value:
        """A torch Linear with its bias."""
        return self.op("Add", self.product(x, name), self.weight(f"{name}.bias"))

    def linear_act(self, x: Value, name: str, activation: str) -> Value:
        """activation(Linear(x)), with the bias folded into the activation where an operator does both."""
        op_type, domain = _activation(activation)
        if op_type in BIASED_ACTIVATIONS:
            biased = BIASED_ACTIVATIONS[op_type]
            return self.op(biased, self.product(x, name), self.weight(f"{name}.bias"), domain=MICROSOFT)
        return self.op(op_type, self.linear(x, name), domain=domain)

    def add_layer_norm(self, x: Value, skip: Value, name: str, eps: float, *, linear: str | None = None) -> Value:
        """LayerNorm(x + skip + bias), where the bias is that of the Linear `linear` whose product is x."""
        inputs = [x, skip, self.weight(f"{name}.weight"), self.weight(f"{name}.bias")]
        if linear:
            inputs.append(self.weight(f"{linear}.bias"))
        return self.op("SkipLayerNormalization", *inputs, domain=MICROSOFT, name=name, epsilon=eps)

    def padding(self, attention_mask: Value) -> Padding:
        """Prepare the attention mask [B, T] once for all layers."""
        keys = self.op("Cast", attention_mask, to=TensorProto.INT32)
        smallest = self.op("ReduceMin", keys, keepdims=0)
        return Padding(keys, self.op("Cast", smallest, to=TensorProto.BOOL))

    def attention(
        self, query: Value, key: Value, value: Value, *, biases: tuple[str, ...], heads: int, padding: Padding
    ) -> Value:
        """Bidirectional multi-head attention over [B, T, D], the Linear biases of q, k and v included.

        ONNX Runtime's CPU kernel streams over the keys (flash attention) only when it gets no mask, so
        a run without padding takes a branch without one: faster, and no T x T scores in memory.
        """
        width = self.weights.shape(f"{biases[0]}.bias")[0]
        if width % heads:
            raise ModelFilesError(f"{biases[0]} has width {width}, which {heads} attention heads do not divide")
        inputs = (query, key, value, self._concatenated(*(f"{bias}.bias" for bias in biases)))

        def attend(*mask: Value) -> Value:
            return self.op("MultiHeadAttention", *inputs, *mask, domain=MICROSOFT, num_heads=heads)

        return self._if(padding.absent, attend, lambda: attend(padding.keys))

    def _if(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        branches = {"then_branch": self._branch(then), "else_branch": self._branch(otherwise)}
        return self.op("If", condition, **branches)

    def _branch(self, body: Callable[[], Value]) -> onnx.GraphProto:
        outer, self._nodes = self._nodes, []
        output = body()
        inner, self._nodes = self._nodes, outer
        return helper.make_graph(inner, output, [], [helper.make_empty_tensor_value_info(output)])

    def _concatenated(self, *names: str) -> Value:
        """Several one-dimensional tensors of the checkpoint as one."""
        value = "+".join(names)
        length = sum(self.weights.shape(name)[0] for name in names)

        def read() -> Array:
            return np.concatenate([self._to_float(name, self.weights.read(name)) for name in names])

        self.initializers[value] = Initializer(value, self.onnx_float, (length,), read)
        return value

    def rows(self, table: str, like: Value, axis: int) -> Value:
        """The first T rows of a table of the checkpoint, T being the size of `axis` of the value `like`."""
        shape = self.op("Shape", like, start=axis, end=axis + 1)
        return self.op("Slice", self.weight(table), self.integers(0), shape, self.integers(0))

    def to_float32(self, x: Value) -> Value:
        """x in float32; itself when the graph is float32."""
        return x if self.onnx_float == TensorProto.FLOAT else self.op("Cast", x, to=TensorProto.FLOAT)

    # ---- the finished graph

    def proto(self, name: str) -> onnx.GraphProto:
        """The graph without its initializers' bytes."""
        return helper.make_graph(self._nodes, name, self.inputs, self.outputs)

    def operators(self) -> dict[str, int]:
        """How many nodes of each type the graph has, branches included, sorted by name."""
        counts: dict[str, int] = {}
        for node in _walk(self._nodes):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
        return dict(sorted(counts.items()))


def _activation(name: str) -> tuple[str, str]:
    if name not in ACTIVATIONS:
        raise UnsupportedError(f"activation {name!r} is not one onnxembed builds: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def _walk(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _walk(attribute.g.node)
