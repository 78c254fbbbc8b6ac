"""The engine `trace`: a stock transformers class, run through transformers' own exporter. Needs the extra [torch].

For architectures without a builder, and to compare builders with.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from onnxembed.decisions.decide import Decisions
from onnxembed.errors import UnsupportedError
from onnxembed.export.engines.engine import Ignored
from onnxembed.export.engines.quiet import quiet
from onnxembed.export.engines.splice import splice
from onnxembed.export.engines.transformers_class import load_stock, open_for_heads, stock_inputs
from onnxembed.export.graph.graph import OPSET, GraphFactory
from onnxembed.export.graph.inputs import Encoded
from onnxembed.facts.facts import Facts

# Shape of the traced example; neither axis is 1, which torch would take for a constant.
ROWS, LENGTH = 2, 9


def write_encoder(facts: Facts, decisions: Decisions, make: GraphFactory, ignored: Ignored) -> Encoded:
    """The traced encoder of a checkpoint; `ignored` is what the caller vouches for.

    Raises what `load_stock` and `splice` do, and UnsupportedError for an encoder that cannot be traced.
    """
    graph = make(open_for_heads(facts))
    model = load_stock(facts, decisions.encoder.attention.value, graph.precision, ignored)
    exporter = f"transformers' {type(model).__name__}"
    with quiet():
        try:
            program = _program(model, stock_inputs(model), fused=graph.fused)
        except Exception as error:  # whatever torch, transformers and onnxscript raise
            line = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UnsupportedError(f"{facts.folder}: {exporter} could not be traced ({line})") from error
    return splice(graph, program, exporter)


def _program(model: Any, names: list[str], *, fused: bool) -> Any:
    """The onnx_ir model: any batch and sequence, and, if `fused`, the fusions that ONNX Runtime's CPU kernels take."""
    import torch

    onnx: Any = import_module("transformers.exporters.exporter_onnx")

    example = {name: torch.ones((ROWS, LENGTH), dtype=torch.int64) for name in names}
    example["attention_mask"][0, LENGTH // 2 :] = 0
    free = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC}
    target = {"ort_fusions": "cpu"} if fused else {"opset_version": OPSET}
    config = onnx.OnnxConfig(dynamic_shapes=dict.fromkeys(names, free), **target)
    return onnx.OnnxExporter().export(model, example, config=config).program
