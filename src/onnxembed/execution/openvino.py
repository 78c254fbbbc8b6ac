"""One graph in OpenVINO, which computes fp32 graphs in bf16 on x86 processors that have the instructions.

ONNX Runtime has no products in bf16 there. OpenVINO computes wrong vectors in the branches of graphs: in bf16, in the
one for runs without padding, where they hold two texts of 256 tokens; in fp32, too, in the first runs of a model with
local windows. So no branch is left to it: of the graphs that are built here every run takes the general way, which has
a mask, and other graphs with branches are refused. The portable form of a graph has none.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import MissingExtraError, ModelFilesError, ProviderError, TokenRowError, UsageError
from onnxembed.execution.providers import CPU, OPENVINO, Wanted
from onnxembed.user_cache import user_cache


def load_openvino() -> Any:
    """The openvino module; MissingExtraError, which names the extra that installs it, if there is none."""
    try:
        import openvino
    except ImportError as error:
        raise MissingExtraError(
            f"precision bf16 on this CPU needs openvino, which cannot be imported ({error}): "
            "pip install 'onnxembed[openvino]', or use precision fp32"
        ) from error
    return openvino


class OpenVinoSession:
    """One graph in OpenVINO, on the CPU. `run` may be called from many threads at once.

    Args:
        graph: the ONNX file of an fp32 graph.
        wanted: the CPU, without options: those are ONNX Runtime's.
        threads: each run is computed by this many threads together.
        streams: where that is one thread, this many runs are computed side by side; they share the weights.
        built: whether a builder of the export made the graph.
        precision: what OpenVINO computes in, by its own name. It is always said, since its default depends on the
            processor.

    Raises:
        MissingExtraError: there is no openvino.
        ModelFilesError: OpenVINO cannot open the graph.
        ProviderError: OpenVINO would compute in another precision.
        UsageError: the provider has options, or is not the CPU alone.
    """

    provider = OPENVINO
    """What computes the graph."""

    def __init__(
        self,
        graph: Path,
        wanted: Wanted,
        threads: int,
        *,
        streams: int = 1,
        built: bool = False,
        precision: str = "bf16",
    ) -> None:
        if wanted.providers != ((CPU, {}),):
            raise UsageError(f"providers: OpenVINO computes bf16 here, with no options of {CPU} and no other provider")
        self._runtime = load_openvino()
        side_by_side = threads == 1
        options = {
            "INFERENCE_PRECISION_HINT": precision,
            "EXECUTION_MODE_HINT": "ACCURACY",  # nothing is rounded further than that
            "NUM_STREAMS": str(streams if side_by_side else 1),
            "INFERENCE_NUM_THREADS": str(streams if side_by_side else threads),
            "ENABLE_CPU_PINNING": "NO",  # other programs and models use the same cores
            **_cache(),
        }
        try:
            model = _read(self._runtime, graph, built=built)
            self._rows = min((table.shape[0] for table in _tables(model)), default=None)
            self._compiled = self._runtime.Core().compile_model(model, "CPU", options)
        except Exception as error:  # those of openvino's reader of graphs share no base of their own
            if not isinstance(error, RuntimeError) and not type(error).__module__.startswith("openvino"):
                raise
            raise ModelFilesError(f"OpenVINO cannot open {graph}: {_cause(error)}; use precision fp32") from error
        used = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        if used.get_type_name() != precision:
            raise ProviderError(
                f"OpenVINO {self._runtime.__version__} computes {graph} in {used.get_type_name()} on this processor, "
                f"not in {precision}: use precision fp32"
            )
        self._outputs = {name: value for value in self._compiled.outputs for name in value.get_names()}
        self._idle: deque[Any] = deque()  # requests that no run is using

    def run(self, outputs: Sequence[str], feeds: Feeds, *, shrink: bool = False) -> list[FloatArray]:
        """Compute outputs by name, as float32; outputs that are not asked for are not copied.

        `shrink` frees what the run has used, when it ends.
        """
        if absent := [name for name in outputs if name not in self._outputs]:
            raise UsageError(
                f"this model's graph has no output {', '.join(absent)}, only {', '.join(sorted(self._outputs))}"
            )
        ids = feeds["input_ids"]
        if self._rows is not None and (beyond := ids[(ids < 0) | (ids >= self._rows)]).size:
            raise TokenRowError.of(int(beyond[0]))  # OpenVINO would go on, with a row of something
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        try:
            results = request.infer(dict(feeds), share_inputs=True, share_outputs=True)
        except RuntimeError as error:
            raise ModelFilesError(f"the graph cannot compute a run of shape {ids.shape}: {_cause(error)}") from error
        copies = [np.array(results[self._outputs[name]], np.float32) for name in outputs]
        if shrink:
            del results, request
            self._compiled.release_memory()
        else:
            self._idle.append(request)
        return copies


def _cache() -> dict[str, str]:
    """The option that keeps compiled graphs in the user's cache; OpenVINO knows them by their weights and options."""
    with suppress(OSError, RuntimeError):  # RuntimeError: there is no home
        folder = user_cache() / "openvino"
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return {"CACHE_DIR": str(folder)}
    return {}


def _tables(model: Any) -> Iterator[Any]:
    """The tables in which token ids are looked up."""
    (ids,) = [value for value in model.inputs if "input_ids" in value.get_names()]
    for reader in ids.get_target_inputs():
        node = reader.get_node()
        if node.get_type_name() == "Gather" and reader.get_index() == 1:
            yield node.input_value(0)


def _read(runtime: Any, graph: Path, *, built: bool) -> Any:
    """The graph, whose runs all take the `else` of its branches; ModelFilesError if that may be wrong."""
    from openvino.frontend import FrontEndManager
    from openvino.frontend.onnx import ConversionExtension

    frontend = FrontEndManager().load_by_framework("onnx")
    if built:
        frontend.add_extension(ConversionExtension("RotaryEmbedding", "com.microsoft", _rotated))
        # Operators that OpenVINO lacks are left as they are: they stand in branches that are never taken.
        model = frontend.convert_partially(frontend.load(str(graph)))
        _take_else(runtime, model)
        return model
    model = frontend.convert(frontend.load(str(graph)))
    if any(node.get_type_name() == "If" for node in model.get_ordered_ops()):
        raise ModelFilesError(
            f"{graph} has branches, in which OpenVINO {runtime.__version__} computes wrong numbers: use precision fp32"
        )
    return model


def _take_else(runtime: Any, model: Any) -> None:
    """Make false the condition of each branch, and of those in it."""
    never = runtime.op.Constant(runtime.Type.boolean, runtime.Shape([]), [False])
    for node in model.get_ordered_ops():
        if node.get_type_name() == "If":
            _take_else(runtime, node.get_function(1))  # what `then` holds is not computed
            node.input(0).replace_source_output(never.output(0))
    model.validate_nodes_and_infer_types()


def _rotated(node: Any) -> list[Any]:
    """What `RotaryEmbedding` is in OpenVINO's operators: `Graph.rotate` of the export, with positions from 0."""
    from openvino import opset13 as ops

    x, _, cos, sin = (node.get_input(place) for place in range(4))
    shape = ops.shape_of(x)
    length = ops.gather(shape, [1], 0)
    rows = (ops.slice(table, [0], length, [1], [0]) for table in (cos, sin))
    cos, sin = (ops.unsqueeze(each, [0, 2]) for each in rows)  # [1, T, 1, d / 2]
    heads = ops.reshape(x, [0, 0, node.get_attribute("num_heads", 0), -1], special_zero=True)
    first, second = ops.split(heads, -1, 2).outputs()
    turned = [
        ops.subtract(ops.multiply(first, cos), ops.multiply(second, sin)),
        ops.add(ops.multiply(second, cos), ops.multiply(first, sin)),
    ]
    return [ops.reshape(ops.concat(turned, -1), shape, special_zero=False).output(0)]


def _cause(error: Exception) -> str:
    """The last line of an error of OpenVINO that says something; those before it name its source files."""
    lines = [line.strip() for line in f"{error}".splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("Exception from")), f"{error}")
