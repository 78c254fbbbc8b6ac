"""Turns a checkpoint's facts, its recipe and the caller's options into a plan, and refuses what cannot be exported.

Builders refuse only what the weights and the keys of config.json show: a missing tensor, an unknown key.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from onnxembed.decisions.decide import Decisions, decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import UnsupportedError, UsageError
from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.export.engines.build import unpooled_token
from onnxembed.export.engines.engine import EngineOption, Ignored, choose_engine
from onnxembed.export.heads import HEADS
from onnxembed.export.quantize.measures import check_floors
from onnxembed.facts.facts import Facts
from onnxembed.manifest import MIN_COSINES, Decision, Engine, Form, Precision, Task
from onnxembed.recipes.recipe import Recipe

PACKED_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""The types that CUDA's PackedMultiHeadAttention has kernels for."""

PORTABLE_PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16")
"""The types that programs which read standard operators compute in; integer graphs need ONNX Runtime's own."""

# The types that engines other than our builders write.
ENGINE_PRECISIONS: dict[Engine, tuple[Precision, ...]] = {"trace": ("fp32", "fp16"), "optimum": ("fp32",)}


@dataclass(frozen=True)
class Options:
    """What the caller decides about an export; the defaults follow the model's files."""

    precisions: tuple[Precision, ...] = ("fp32",)
    flags: Flags = field(default_factory=Flags)
    recipe: str | None = None
    """The recipe to follow; None follows that of a hub id, if the book has one."""
    pooling_out: bool = False
    """Leave pooling to the runtime."""
    ignored_config_keys: tuple[str, ...] = ()
    """Keys of config.json that onnxembed does not know and the caller vouches for."""
    ignored_tensors: tuple[str, ...] = ()
    """Tensors, or modules, that no builder reads and the caller vouches for; only a verified export leaves any out."""
    force: bool = False
    """Replace an artifact that is there."""
    engine: EngineOption = "auto"
    calibration: Path | None = None
    """A file of texts to make integer graphs with; None takes onnxembed's own."""
    min_cosine: float | None = None
    """The lowest cosine with its fp32 vector that a text of an integer graph may have; None: the manifest's."""
    min_agreement: float | None = None
    """The lowest rank agreement of an integer reranker's scores with those of fp32; None: the manifest's."""
    form: Form = "fused"
    packed: bool = False
    """Add the form that CUDA runs without padding."""

    @property
    def ignored(self) -> Ignored:
        """What the caller vouches for."""
        return Ignored(self.ignored_config_keys, self.ignored_tensors)


@dataclass(frozen=True)
class ExportPlan:
    """Everything that is settled before a graph is built."""

    facts: Facts
    recipe: Recipe | None
    options: Options
    engine: Decision[Engine]
    decisions: Decisions

    @property
    def tasks(self) -> tuple[Task, ...]:
        """The model's tasks, in the order of the graph's outputs."""
        return tuple(task for task, head in HEADS.items() if head.is_wanted(self.decisions))

    @property
    def graph_tasks(self) -> tuple[Task, ...]:
        """The tasks whose outputs the graph computes itself."""
        outside = self.options.pooling_out or leaves_out_prompt(self.decisions)
        return tuple(task for task in self.tasks if not (task == "embedding" and outside))

    @property
    def float_precisions(self) -> tuple[Precision, ...]:
        """The precisions asked for that are floating-point types."""
        return tuple(precision for precision in self.options.precisions if precision not in MIN_COSINES)

    @property
    def integer_precisions(self) -> tuple[Precision, ...]:
        """The precisions asked for that are made by quantization."""
        return tuple(precision for precision in self.options.precisions if precision in MIN_COSINES)


def make_plan(facts: Facts, recipe: Recipe | None, options: Options) -> ExportPlan:
    """Settle how a checkpoint is exported.

    Raises MissingExtraError for an engine that is not installed, UsageError for options that contradict the model,
    UnsupportedError for what onnxembed does not build, ModelFilesError for what the model's files leave out.
    """
    engine = choose_engine(facts, options.engine)
    plan = ExportPlan(facts, recipe, options, engine, decide(facts, options.flags, recipe))
    if plan.integer_precisions:
        _check_quantizable(plan.decisions, engine.value, plan.integer_precisions)
        check_floors(options.min_cosine, options.min_agreement)
    elif any(value is not None for value in (options.calibration, options.min_cosine, options.min_agreement)):
        raise UsageError(
            "calibration, min_cosine and min_agreement are for integer graphs: name one with --precision, or leave "
            "--calibration, --min-cosine and --min-agreement out"
        )
    _check_engine_precisions(engine.value, plan.float_precisions)
    if options.form == "portable":
        _check_portable(options)
    if options.packed:
        _check_packable(facts, plan.decisions, engine.value, options.precisions)
    if plan.decisions.embedding is None and facts.post.token_layers:
        raise UnsupportedError(f"{facts.folder} has modules before its Pooling, which only --task embedding applies")
    if options.pooling_out or leaves_out_prompt(plan.decisions):
        _check_pooling_out(facts, plan.decisions, packed=options.packed)
    for task in plan.tasks:
        HEADS[task].check(facts, plan.decisions)
    return plan


def leaves_out_prompt(decisions: Decisions) -> bool:
    """Whether the pooling leaves out the prompt, which no graph knows: the runtime pools then."""
    return decisions.embedding is not None and not decisions.embedding.include_prompt.value


def _makes_only_sentence_embeddings(decisions: Decisions) -> bool:
    return decisions.embedding is not None and decisions.sparse is None and decisions.multi_vector is None


def _check_quantizable(decisions: Decisions, engine: Engine, precisions: Sequence[Precision]) -> None:
    """Raise UnsupportedError, with what to do instead, for a model that has no integer form."""
    flag = f"--precision {','.join(precisions)}"
    if engine != "build":
        raise UnsupportedError(
            f"{flag}: only graphs that onnxembed builds can be quantized, and engine {engine} writes its own"
        )
    weights_of_tokens = decisions.sparse is not None and decisions.sparse.head is not None
    if decisions.multi_vector is not None or weights_of_tokens:
        alone = "; --task embedding makes a graph of its sentence embeddings alone" if decisions.embedding else ""
        raise UnsupportedError(
            f"{flag}: the cost of rounding is not measured for token vectors and weights of tokens; use fp16{alone}"
        )


def _check_engine_precisions(engine: Engine, precisions: Sequence[Precision]) -> None:
    """Raise UnsupportedError for a type that the engine does not write."""
    supported = ENGINE_PRECISIONS.get(engine, precisions)
    if others := [precision for precision in precisions if precision not in supported]:
        raise UnsupportedError(f"--engine {engine} writes {' and '.join(supported)} only, not {', '.join(others)}")


def _check_portable(options: Options) -> None:
    """Raise UnsupportedError for a precision that has no portable form, UsageError for an option that it excludes."""
    if others := [precision for precision in options.precisions if precision not in PORTABLE_PRECISIONS]:
        raise UnsupportedError(
            f"--form portable: standard operators give {' and '.join(PORTABLE_PRECISIONS)} only, not "
            f"{', '.join(others)}; leave out --form for a graph of ONNX Runtime's own operators"
        )
    if options.packed:
        raise UsageError("--packed is made of CUDA's own operators, which --form portable leaves out")


def _check_packable(facts: Facts, decisions: Decisions, engine: Engine, precisions: Sequence[Precision]) -> None:
    """Raise UnsupportedError, with the reason, for a model that has no packed form."""
    kernels = "CUDA's PackedMultiHeadAttention has"
    why = ""
    if engine != "build":
        why = f"engine {engine} writes graphs of its own"
    elif decisions.encoder.attention.value == "causal":
        why = f"{kernels} no causal mask; padded on the right, causal attention needs none"
    elif not ARCHITECTURES[facts.model_type].packable:
        packable = ", ".join(model_type for model_type, row in ARCHITECTURES.items() if row.packable)
        why = f"onnxembed builds no packed form of {facts.model_type}; it does of {packable}"
    elif not _makes_only_sentence_embeddings(decisions):
        why = "only graphs whose one output is sentence_embedding have one"
    elif others := [precision for precision in precisions if precision not in PACKED_PRECISIONS]:
        why = f"{kernels} kernels for {' and '.join(PACKED_PRECISIONS)}, not for {', '.join(others)}"
    if why:
        raise UnsupportedError(f"--packed: {why}")


def _check_pooling_out(facts: Facts, decisions: Decisions, *, packed: bool) -> None:
    """Raise UsageError or UnsupportedError for a graph that must pool its tokens itself."""
    cause = "--pooling-out"
    if decisions.embedding is not None and leaves_out_prompt(decisions):
        cause = f"{decisions.embedding.include_prompt.reason}, which only the runtime can do"
    if decisions.reranking is not None:
        raise UsageError("--pooling-out is for embeddings: what a reranker reads of its tokens stays in its graph")
    if packed:
        raise UnsupportedError(f"--packed: a packed graph pools itself, so it cannot be had with {cause}")
    if not facts.post.only_dense:
        raise UnsupportedError(f"{cause}: after the pooling, the runtime applies only Dense modules and Normalize")
    if unpooled_token(facts) is not None:
        raise UnsupportedError(f"{cause}: a {facts.model_type} leaves tokens out that only its graph knows")
