"""One graph in OpenVINO, which computes fp32 graphs in bf16 on x86 processors that have the instructions.

ONNX Runtime has no products in bf16 there. OpenVINO computed wrong vectors, in bf16, in the branch that a fused graph
takes for runs without padding, where they held two texts of 256 tokens; with a mask, all were right. So every run takes
the branch with the mask. The portable form of a graph has no other.
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

    def __init__(self, graph: Path, wanted: Wanted, threads: int, *, streams: int = 1, precision: str = "bf16") -> None:
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
            core = self._runtime.Core()
            model = core.read_model(str(graph))
            self._rows = min((table.shape[0] for table in _tables(model)), default=None)
            _run_masked(self._runtime, model)
            self._compiled = core.compile_model(model, "CPU", options)
        except RuntimeError as error:  # openvino's own exceptions
            raise ModelFilesError(
                f"OpenVINO cannot open {graph}: {_cause(error)}; use precision fp32; graphs of onnxembed export --form "
                "portable have standard operators only"
            ) from error
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


def _run_masked(runtime: Any, model: Any) -> None:
    """Make the graph say of every run that it needs its mask.

    Whether a run needs none is the least entry of an integer mask as a truth value: `Mask.free` of the export.
    """
    never = runtime.op.Constant(runtime.Type.boolean, runtime.Shape([]), [False])
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Convert" or node.get_output_element_type(0) != runtime.Type.boolean:
            continue
        if node.input_value(0).get_node().get_type_name() == "ReduceMin":
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(never.output(0))
    model.validate_nodes_and_infer_types()


def _cause(error: RuntimeError) -> str:
    """The last line of an error of OpenVINO that says something; those before it name its source files."""
    lines = [line.strip() for line in f"{error}".splitlines() if line.strip()]
    return next((line for line in reversed(lines) if not line.startswith("Exception from")), f"{error}")
