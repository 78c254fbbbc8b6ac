"""The engine `optimum`: a stock transformers class, run through optimum's exporter. Needs the extra [optimum].

That exporter needs an older transformers than [torch], so it has an environment of its own, without a reference to
verify against; there, exports are checked only against themselves.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import onnx_ir as ir

from onnxembed.decisions.decide import Decisions
from onnxembed.errors import UnsupportedError
from onnxembed.export.engines.engine import Ignored
from onnxembed.export.engines.quiet import quiet
from onnxembed.export.engines.splice import splice
from onnxembed.export.engines.transformers_class import load_stock, open_for_heads, stock_inputs
from onnxembed.export.graph.graph import OPSET, GraphFactory
from onnxembed.export.graph.inputs import Encoded
from onnxembed.facts.facts import Facts


def write_encoder(facts: Facts, decisions: Decisions, make: GraphFactory, ignored: Ignored) -> Encoded:
    """The encoder that optimum exports; `ignored` is what the caller vouches for.

    Raises what `load_stock` and `splice` do, and UnsupportedError for an encoder that optimum cannot export, or
    exports without one of its inputs.
    """
    graph = make(open_for_heads(facts))
    model = load_stock(facts, decisions.encoder.attention.value, graph.precision, ignored)
    exporter = f"optimum for {type(model).__name__}"
    with quiet():
        try:
            program = _program(model)
        except Exception as error:  # whatever torch, transformers and optimum raise
            line = f"{type(error).__name__}: {error}".partition("\n")[0]
            raise UnsupportedError(f"{facts.folder}: {exporter} failed ({line})") from error
    lost = set(stock_inputs(model)) - {value.name for value in program.graph.inputs}
    if lost:
        raise UnsupportedError(f"the graph of {exporter} leaves out the input {', '.join(sorted(lost))}")
    return splice(graph, program, exporter)


def _program(model: Any) -> ir.Model:
    """optimum's graph, in memory.

    Calls the function inside main_export, because main_export would load the model itself, ignore missing tensors,
    and ask the hub for a tokenizer.
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
