"""The engine `optimum`: a stock transformers class, run through optimum's exporter. Needs the extra [optimum].

That exporter wants an older transformers than [torch], so it lives in an environment of its own, where there
is no reference to verify against; exports are checked against themselves there.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir

from onnxembed.errors import UnsupportedError
from onnxembed.export.engines.quiet import quiet
from onnxembed.export.engines.splice import splice
from onnxembed.export.engines.transformers_class import load_stock, stock_inputs
from onnxembed.export.graph.graph import OPSET, Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.facts.facts import Facts
from onnxembed.manifest import AttentionMode


def write_encoder(
    graph: Graph, inputs: Inputs, facts: Facts, attention: AttentionMode, ignored: Collection[str]
) -> Value:
    """Add the encoder that optimum exports to `graph`; returns its last hidden state [B, T, D].

    Raises what `load_stock` and `splice` do, and UnsupportedError for another precision than fp32 and for an
    encoder that optimum cannot export, or exports without one of its inputs.
    """
    if graph.precision != "fp32":
        raise UnsupportedError(f"--engine optimum writes fp32 only: on a CPU it has no {graph.precision}")
    model = load_stock(facts, attention, graph.precision, ignored)
    kind = f"optimum for {type(model).__name__}"
    with quiet():
        try:
            program = _program(model)
        except Exception as error:  # whatever torch, transformers and optimum raise
            line = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UnsupportedError(f"{facts.folder}: {kind} failed ({line})") from error
    lost = set(stock_inputs(model)) - {value.name for value in program.graph.inputs}
    if lost:
        raise UnsupportedError(f"the graph of {kind} leaves out the input {', '.join(sorted(lost))}")
    return splice(graph, inputs, program, kind)


def _program(model: Any) -> ir.Model:
    """optimum's graph, in memory.

    By way of the function inside main_export, which would load the model itself, whatever tensors are
    missing, and ask the hub for a tokenizer.
    """
    exporters: Any = import_module("optimum.exporters.onnx")
    import_module("optimum.exporters.onnx.model_configs")  # fills the table of tasks
    tasks: Any = import_module("optimum.exporters.tasks").TasksManager
    describe = tasks.get_exporter_config_constructor(
        "onnx", model, task="feature-extraction", library_name="transformers"
    )
    with TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        exporters.export(model, describe(model.config), path, opset=OPSET)
        return ir.external_data.load_to_model(ir.load(path))
