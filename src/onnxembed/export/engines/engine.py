"""Which engine writes the encoder's graph: onnxembed's builders, transformers' exporter, or optimum's."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Literal

from onnxembed.errors import MissingExtraError, UnsupportedError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.graph.graph import Graph
from onnxembed.facts.facts import Facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import ENGINES, Decision, Engine
from onnxembed.warning import warn

EngineOption = Literal["auto"] | Engine

# What an engine needs: distribution -> a module of it.
TOOLS: dict[Engine, dict[str, str]] = {
    "build": {},
    "trace": {"torch": "torch", "transformers": "transformers.exporters.exporter_onnx", "onnxscript": "onnxscript"},
    "optimum": {"torch": "torch", "transformers": "transformers", "optimum-onnx": "optimum.exporters.onnx"},
}
INSTALL: dict[Engine, str] = {
    "build": "pip install 'onnxembed[export]'",
    "trace": "pip install 'onnxembed[torch]'",
    "optimum": "pip install 'onnxembed[cpu,optimum]', in an environment of its own: optimum needs an older "
    "transformers than [torch] does",
}


@dataclass(frozen=True)
class Ignored:
    """What the caller vouches for: keys of config.json, and tensors, or modules of tensors, that change no vector."""

    config_keys: tuple[str, ...] = ()
    tensors: tuple[str, ...] = ()

    def has_tensor(self, name: str) -> bool:
        """Whether a tensor, or a module that it belongs to, is among them."""
        return any(name == given or name.startswith(f"{given}.") for given in self.tensors)


def choose_engine(facts: Facts, option: EngineOption) -> Decision[Engine]:
    """The engine for a checkpoint: the one asked for; for `auto`, the builder if there is one, else the tracer.

    Raises UnsupportedError, with the engines that would do, for a model that this engine cannot export;
    MissingExtraError, with the pip command, for an engine that is not installed.
    """
    model_type = facts.model_type
    able = [engine for engine in ENGINES if _can_export(engine, model_type)]
    if not able:
        raise UnsupportedError(_unknown(facts))
    engine = able[0] if option == "auto" else option
    if engine not in able:
        cause = f"there is no builder for {model_type}" if engine == "build" else f"{model_type} is not proved with it"
        raise UnsupportedError(f"--engine {engine}: {cause}; this model can be exported with --engine {_or(able)}")
    missing = [name for name, module in TOOLS[engine].items() if not _installed(module)]
    if missing:
        need = f"--engine {engine}" if option == engine else f"{model_type} has no builder, and engine {engine}"
        raise MissingExtraError(f"{need} needs {' and '.join(missing)}: {INSTALL[engine]}")
    if option == engine:
        return Decision(engine, "flag", f"--engine {engine}")
    reason = f"there is {'a' if engine == 'build' else 'no'} builder for {model_type}"
    return Decision(engine, "architecture", reason)


def announce(engine: Decision[Engine], graphs: Iterable[Graph]) -> None:
    """Warn about the cost when `auto` had no builder to choose."""
    if engine.value == "build" or engine.origin == "flag":
        return
    nodes = max(sum(graph.operators().values()) for graph in graphs)
    warn(
        f"{engine.reason}: its graph was traced from transformers' class instead, which takes longer, needs torch, "
        f"and gives {nodes} nodes, with fewer fused operators than a built one has"
    )


def _can_export(engine: Engine, model_type: str) -> bool:
    architecture = ARCHITECTURES.get(model_type)
    if architecture is None:
        return False
    if engine == "build":
        return architecture.build is not None
    # optimum writes every decoder as causal, and with inputs that the runtime does not feed.
    return architecture.traceable and not (engine == "optimum" and MODEL_TYPES[model_type].decoder)


def _unknown(facts: Facts) -> str:
    why = "there is no builder for it, and its class in transformers, if there is one, has not been proved"
    if code := facts.config.get("auto_map"):
        names = ", ".join(sorted(map(str, code.values()))) if isinstance(code, dict) else str(code)
        why = f"there is no builder for it, and code of the model's own (auto_map: {names}) is never run"
    supported = ", ".join(sorted(ARCHITECTURES))
    named = f"{facts.folder}: config.json's model_type is {facts.model_type!r}"
    return f"{named}, which onnxembed cannot export: {why}; known: {supported}"


def _or(engines: list[Engine]) -> str:
    return " or ".join(engines)


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # a parent package is missing
        return False
