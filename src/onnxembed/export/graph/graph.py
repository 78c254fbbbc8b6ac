"""The small vocabulary that architectures are written in: ONNX nodes with ONNX Runtime's fused operators.

A `Graph` collects nodes and the names of weights, which are read only when the file is written. A `Value`
is the name of a tensor in the graph. Shape letters: B batch, T tokens, H heads, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from onnx import TensorProto, helper

from onnxembed.arrays import Array
from onnxembed.errors import UnsupportedError
from onnxembed.export.checkpoint.tensors import Checkpoint, check_finite
from onnxembed.manifest import Precision

Value = str

Widths = Mapping[str, int]
"""The outputs of a graph by name, with the length of their last axis."""

OPSET = 18
RMS_OPSET = 23  # the first with RMSNormalization; graphs without it use OPSET, which older runtimes read too
IR_VERSION = 8

ROWS = 64  # transposed at a time: this many rows of the widest matrix fit into a cache
MICROSOFT = "com.microsoft"

FLOAT_TYPES: dict[Precision, tuple[Any, int]] = {
    "fp32": (np.float32, TensorProto.FLOAT),
    "fp16": (np.float16, TensorProto.FLOAT16),
    "bf16": (ml_dtypes.bfloat16, TensorProto.BFLOAT16),
}

# config.json's activation names -> the operator that computes them, its domain and attributes.
# gelu is the exact one, with erf, as is gelu_python; the other gelus are its tanh and sigmoid approximations.
ACTIVATIONS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "elu": ("Elu", "", {}),
    "gelu": ("Gelu", MICROSOFT, {}),
    "gelu_accurate": ("FastGelu", MICROSOFT, {}),
    "gelu_new": ("FastGelu", MICROSOFT, {}),
    "gelu_fast": ("FastGelu", MICROSOFT, {}),
    "gelu_python": ("Gelu", MICROSOFT, {}),
    "gelu_python_tanh": ("FastGelu", MICROSOFT, {}),
    "gelu_pytorch_tanh": ("FastGelu", MICROSOFT, {}),
    "hardsigmoid": ("HardSigmoid", "", {"alpha": 1 / 6}),
    "hardswish": ("HardSwish", "", {}),
    "leaky_relu": ("LeakyRelu", "", {"alpha": 0.01}),
    "mish": ("Mish", "", {}),
    "quick_gelu": ("QuickGelu", MICROSOFT, {}),
    "silu": ("QuickGelu", MICROSOFT, {"alpha": 1.0}),
    "relu": ("Relu", "", {}),
    "selu": ("Selu", "", {}),
    "sigmoid": ("Sigmoid", "", {}),
    "softmax": ("Softmax", "", {"axis": -1}),
    "softplus": ("Softplus", "", {}),
    "softsign": ("Softsign", "", {}),
    "swish": ("QuickGelu", MICROSOFT, {"alpha": 1.0}),
    "tanh": ("Tanh", "", {}),
}
# Activations with bounds: what is applied first, if anything, the lowest and the highest value.
BOUNDED_ACTIVATIONS: dict[str, tuple[str | None, float, float]] = {
    "gelu_10": ("gelu", -10.0, 10.0),
    "hardtanh": (None, -1.0, 1.0),
    "relu6": (None, 0.0, 6.0),
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
class Heads:
    """The inputs of one attention layer."""

    query: Value
    """[B, T, heads * d]."""
    key: Value
    """[B, T, key_heads * d]."""
    value: Value
    """[B, T, key_heads * d]."""
    heads: int
    """How many heads the queries have."""
    key_heads: int
    """How many heads the keys and values have; it divides `heads`."""
    bias: Value
    """The biases of query, key and value in a row, to be added by the operator; "" for none."""
    head_dim: int
    """d."""
    scale: float | None
    """The factor of the scores; None for 1 / sqrt(d)."""

    @property
    def scaling(self) -> dict[str, Any]:
        """The operators' attribute `scale`, left out where it is the default."""
        return {} if self.scale is None else {"scale": self.scale}


class Graph:
    """An ONNX graph under construction, in one floating-point type."""

    fused = True
    """Whether ONNX Runtime's own operators are in the graph, and branches that choose between them."""

    def __init__(self, weights: Checkpoint, precision: Precision) -> None:
        self.weights = weights
        self.precision = precision
        self.numpy_float, self.onnx_float = FLOAT_TYPES[precision]
        self.opset = OPSET
        self.initializers: dict[str, Initializer] = {}
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.layer_inputs: list[Value] = []
        """What each layer of the encoder gets, [B, T, D]; empty if the encoder's builder does not tell."""
        self._shape_hints: list[onnx.ValueInfoProto] = []
        self._nodes: list[onnx.NodeProto] = []
        self._counts: dict[str, int] = {}

    # ---- nodes and constants

    def op(
        self, op_type: str, *inputs: Value, domain: str = "", name: str = "", unread: int = 0, **attributes: Any
    ) -> Value:
        """Add a node and return its first output; it may have `unread` more, which nothing reads.

        An empty input name leaves an optional input out.
        """
        output = self._unique(name or op_type)
        outputs = [output, *(f"{output}.unread_{index}" for index in range(unread))]
        node = helper.make_node(op_type, list(inputs), outputs, name=output, domain=domain, **attributes)
        self._nodes.append(node)
        return output

    def append_nodes(self, nodes: Sequence[onnx.NodeProto], weights: Sequence[Initializer], opset: int) -> None:
        """Append finished nodes, written in `opset`, and their weights; no name may be in the graph already."""
        self._nodes.extend(nodes)
        self.initializers.update({weight.name: weight for weight in weights})
        self.opset = max(self.opset, opset)

    def input(self, name: str, onnx_type: int, shape: tuple[str | int, ...]) -> Value:
        """Declare a graph input."""
        self.inputs.append(helper.make_tensor_value_info(name, onnx_type, shape))
        return name

    def output(self, name: str, value: Value, shape: tuple[str | int, ...]) -> None:
        """Declare `value` as a float32 graph output, and rename it to `name` wherever it is used."""
        for node in _walk(self._nodes):
            for names in (node.input, node.output):
                names[:] = [name if used == value else used for used in names]
        self.outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))

    @property
    def input_names(self) -> tuple[str, ...]:
        """The inputs, in order."""
        return tuple(value.name for value in self.inputs)

    @property
    def widths(self) -> dict[str, int]:
        """The outputs with the length of their last axis; 0 for one that varies."""
        return {value.name: int(value.type.tensor_type.shape.dim[-1].dim_value) for value in self.outputs}

    def hint_shape(self, value: Value, onnx_type: int, shape: tuple[str | int, ...]) -> Value:
        """Declare a shape that ONNX Runtime cannot infer: it fuses sums only if it knows their shapes to be equal."""
        self._shape_hints.append(helper.make_tensor_value_info(value, onnx_type, shape))
        return value

    def constant(self, name: str, value: Array) -> Value:
        """A small constant; the same name must always mean the same value."""
        onnx_type = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.initializers.setdefault(name, Initializer(name, onnx_type, value.shape, lambda: value))
        return name

    def integers(self, *values: int) -> Value:
        """A one-dimensional int64 constant, as shapes and axes are."""
        return self.constant("int64_" + "_".join(map(str, values)), np.array(values, np.int64))

    def integer(self, value: int) -> Value:
        """An int64 scalar."""
        return self.constant(f"int64_{value}_scalar", np.array(value, np.int64))

    def float32(self, value: float) -> Value:
        """A float32 scalar."""
        return self.constant(f"float32_{value!r}", np.array(value, np.float32))

    def number(self, value: float, precision: Precision) -> Value:
        """A scalar in the type of `precision`."""
        return self.constant(f"{precision}_{value!r}", np.array(value, FLOAT_TYPES[precision][0]))

    def weight(self, name: str, *, rows: slice | None = None, transpose: bool = False, offset: float = 0.0) -> Value:
        """A tensor of the checkpoint in the graph's type: all or some of its rows, transposed or not, plus `offset`."""
        stored = self.weights.shape(name)
        shape = (len(range(stored[0])[rows]), *stored[1:]) if rows else stored
        value = name + (f"[{rows.start}:{rows.stop}]" if rows else "") + (f"+{offset:g}" if offset else "")

        def read() -> Array:
            tensor = self.weights.read(name)
            tensor = tensor[rows] if rows else tensor
            tensor = tensor.astype(np.float32) + np.float32(offset) if offset else tensor
            return self._to_float(name, tensor, transpose=transpose)

        if transpose:
            value, shape = f"{value}.T", shape[::-1]
        self.initializers[value] = Initializer(value, self.onnx_float, shape, read)
        return value

    def stored(self, name: str) -> Value:
        """A tensor of the checkpoint in the type that it is stored in."""
        onnx_type = helper.np_dtype_to_tensor_dtype(self.weights.dtype(name))
        read = partial(self.weights.read_stored, name)
        self.initializers[name] = Initializer(name, onnx_type, self.weights.shape(name), read)
        return name

    def _to_float(self, name: str, tensor: Array, *, transpose: bool = False) -> Array:
        with np.errstate(over="ignore"):
            make = _transposed if transpose else np.ascontiguousarray
            converted = make(tensor, dtype=self.numpy_float)
        if not np.isfinite(converted).all():
            check_finite(name, tensor)
            raise UnsupportedError(f"the weight {name} has values that {self.precision} cannot hold")
        return converted

    def _unique(self, stem: str) -> str:
        count = self._counts[stem] = self._counts.get(stem, 0) + 1
        return stem if count == 1 and "." in stem else f"{stem}_{count}"

    # ---- the vocabulary

    def embedding(self, name: str, ids: Value) -> Value:
        """Rows of a table: ids [B, T] -> [B, T, D]."""
        return self.op("Gather", self.weight(f"{name}.weight"), ids, name=name)

    def product(self, x: Value, name: str, rows: slice | None = None) -> Value:
        """x @ W.T for a torch Linear's weight (out, in), or for some of its rows, without its bias."""
        return self.op("MatMul", x, self.weight(f"{name}.weight", rows=rows, transpose=True), name=name)

    def linear(self, x: Value, name: str, *, rows: slice | None = None, bias: bool = True) -> Value:
        """A torch Linear, or some of its rows, with its bias where it has one."""
        product = self.product(x, name, rows)
        return self.op("Add", product, self.weight(f"{name}.bias", rows=rows)) if bias else product

    def activation(self, x: Value, name: str, precision: Precision | None = None) -> Value:
        """An activation by its name in config.json, of an x in the graph's type or in that of `precision`."""
        precision = precision or self.precision
        if name in BOUNDED_ACTIVATIONS:
            inner, *bounds = BOUNDED_ACTIVATIONS[name]
            x = self.activation(x, inner, precision) if inner else x
            return self.op("Clip", x, *(self.number(bound, precision) for bound in bounds))
        return self.activate(x, *activation_operator(name), precision)

    def activate(
        self, x: Value, op_type: str, domain: str, attributes: Mapping[str, Any], precision: Precision
    ) -> Value:
        """An activation by its operator, of an x in the type of `precision`."""
        return self.op(op_type, x, domain=domain, **attributes)

    def linear_act(self, x: Value, name: str, activation: str) -> Value:
        """activation(Linear(x)), with the bias folded into the activation where an operator does both."""
        op_type = ACTIVATIONS.get(activation, ("",))[0]
        if op_type in BIASED_ACTIVATIONS:
            biased = BIASED_ACTIVATIONS[op_type]
            return self.op(biased, self.product(x, name), self.weight(f"{name}.bias"), domain=MICROSOFT)
        return self.activation(self.linear(x, name), activation)

    def layer_norm(self, x: Value, name: str, eps: float, *, bias: bool = True) -> Value:
        """LayerNorm over the last axis."""
        return self.op("LayerNormalization", x, *self._norm_weights(name, bias), name=name, epsilon=eps)

    def rms_norm(self, x: Value, name: str, eps: float, *, offset: float = 0.0) -> Value:
        """x / rms(x) * (weight + offset) over the last axis."""
        self.opset = RMS_OPSET
        return self.op("RMSNormalization", x, self.weight(f"{name}.weight", offset=offset), name=name, epsilon=eps)

    def add_rms_norm(self, x: Value, skip: Value, name: str, eps: float, *, offset: float = 0.0) -> tuple[Value, Value]:
        """(rms_norm(x + skip), x + skip): the second is what the next residual connection starts from."""
        inputs = [x, skip, self.weight(f"{name}.weight", offset=offset)]
        output, total = self._unique(name), self._unique(f"{name}.sum")
        node = helper.make_node(
            "SkipSimplifiedLayerNormalization",
            inputs,
            [output, "", "", total],
            name=output,
            domain=MICROSOFT,
            epsilon=eps,
        )
        self._nodes.append(node)
        return output, total

    # ONNX Runtime's SkipLayerNormalization adds and normalizes at once, but takes the CPU four times as long
    # as an Add and a LayerNormalization do (5.1 against 1.2 ns a number). For CUDA it fuses the two when it opens
    # a graph, if nothing else reads the sum: in post-norm layers, not in pre-norm ones.

    def add_pre_layer_norm(
        self, x: Value, skip: Value, name: str, eps: float, *, bias: bool = True
    ) -> tuple[Value, Value]:
        """(layer_norm(x + skip), x + skip): the second is what the next residual connection starts from."""
        total = self.op("Add", x, skip, name=f"{name}.sum")
        return self.layer_norm(total, name, eps, bias=bias), total

    def add_layer_norm(self, x: Value, skip: Value, name: str, eps: float, *, linear: str | None = None) -> Value:
        """LayerNorm(x + skip + bias), where the bias is that of the Linear `linear` whose product is x."""
        if linear:
            x = self.op("Add", x, self.weight(f"{linear}.bias"))
        return self.add_pre_layer_norm(x, skip, name, eps)[0]

    def _norm_weights(self, name: str, bias: bool) -> list[Value]:
        weights = [self.weight(f"{name}.weight")]
        if bias:
            weights.append(self.weight(f"{name}.bias"))
        return weights

    def rotate(self, x: Value, cos: Value, sin: Value, heads: int) -> Value:
        """The halves of each head of x [B, T, heads * d] against each other, by cos and sin [T, d / 2]."""
        return self.op("RotaryEmbedding", x, self.integers(0), cos, sin, domain=MICROSOFT, num_heads=heads)

    def attend(self, layer: Heads, *, causal: bool, keys: Value = "", scores: Value = "") -> Value:
        """Attention with as many heads of keys and values as of queries, [B, T, heads * d].

        Args:
            layer: what attends to what.
            causal: whether a query attends only to keys up to its own position.
            keys: int32 [B, T], 1 for keys that may be attended to; "" if all may.
            scores: [1, 1 or heads, T, T], added to the scores; "" for nothing.
        """
        inputs = [layer.query, layer.key, layer.value, layer.bias, keys, scores]
        while not inputs[-1]:  # optional inputs at the end that are not there are left out
            inputs.pop()
        attributes: dict[str, Any] = {"unidirectional": int(causal), **layer.scaling}
        if keys:
            # What is added to the scores of other keys. The operator's own -10,000 does not hide a key whose score is
            # that much above the rest. Together with `scores` it has to stay finite: see `near_or_far`.
            attributes["mask_filter_value"] = lowest(self.precision) / 4
        return self.op("MultiHeadAttention", *inputs, domain=MICROSOFT, num_heads=layer.heads, **attributes)

    def near_or_far(self, near: Value) -> Value:
        """What is added to scores: 0 where `near` is true, elsewhere so little that a softmax gives nothing.

        It is finite, because a query in padding may see no key at all, and the softmax of a row of -inf is NaN.
        """
        far = self.constant("far", np.array(lowest(self.precision) / 2, self.numpy_float))
        return self.op("Where", near, self.constant("near", np.array(0, self.numpy_float)), far)

    def if_else(self, condition: Value, then: Callable[[], Value], otherwise: Callable[[], Value]) -> Value:
        """The value of `then` or of `otherwise`; a run computes only the one that `condition` selects."""
        branches = {"then_branch": self._branch(then), "else_branch": self._branch(otherwise)}
        return self.op("If", condition, **branches)

    def _branch(self, body: Callable[[], Value]) -> onnx.GraphProto:
        outer, self._nodes = self._nodes, []
        output = body()
        inner, self._nodes = self._nodes, outer
        return helper.make_graph(inner, output, [], [helper.make_empty_tensor_value_info(output)])

    def concatenated(self, *names: str) -> Value:
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

    def from_float32(self, x: Value) -> Value:
        """A float32 x in the graph's type."""
        return x if self.onnx_float == TensorProto.FLOAT else self.op("Cast", x, to=self.onnx_float)

    # ---- the finished graph

    @property
    def opsets(self) -> dict[str, int]:
        """The domains of the graph's operators, with the version of each."""
        return {"": self.opset, MICROSOFT: 1}

    def proto(self, name: str) -> onnx.GraphProto:
        """The graph without its initializers' bytes."""
        return helper.make_graph(self._nodes, name, self.inputs, self.outputs, value_info=self._shape_hints)

    def operators(self) -> dict[str, int]:
        """How many nodes of each type the graph has, branches included, sorted by name."""
        counts: dict[str, int] = {}
        for node in _walk(self._nodes):
            counts[node.op_type] = counts.get(node.op_type, 0) + 1
        return dict(sorted(counts.items()))


GraphFactory = Callable[[Checkpoint], Graph]
"""Makes the graph, still empty, in which a model with these weights is built."""


def _transposed(tensor: Array, dtype: Any) -> Array:
    """The contiguous transpose of a matrix, some rows at a time: whole, numpy is four times slower."""
    result = np.empty(tensor.shape[::-1], dtype)
    for start in range(0, len(tensor), ROWS):
        result[:, start : start + ROWS] = tensor[start : start + ROWS].T
    return result


def lowest(precision: Precision) -> float:
    """The lowest number of a type."""
    return float(ml_dtypes.finfo(FLOAT_TYPES[precision][0]).min)  # type: ignore[no-untyped-call]


def activation_operator(name: str) -> tuple[str, str, dict[str, Any]]:
    """The operator of an activation, its domain and its attributes; UnsupportedError for one that is not built."""
    if name not in ACTIVATIONS:
        supported = ", ".join(sorted({*ACTIVATIONS, *BOUNDED_ACTIVATIONS}))
        raise UnsupportedError(f"activation {name!r} is not one onnxembed builds: {supported}")
    return ACTIVATIONS[name]


def _walk(nodes: Any) -> Iterator[onnx.NodeProto]:
    for node in nodes:
        yield node
        for attribute in node.attribute:
            yield from _walk(attribute.g.node)
