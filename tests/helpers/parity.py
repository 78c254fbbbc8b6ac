"""Our graphs against the stock transformers class on the same folder, at shapes unlike those of the examples."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

from onnxembed.decisions.flags import Flags
from onnxembed.execution.openvino import OpenVinoSession
from onnxembed.execution.providers import wanted_providers
from onnxembed.export.artifact.graph_file import write_graph
from onnxembed.export.build_graph import build
from onnxembed.export.engines.engine import EngineOption
from onnxembed.export.graph.graph import Graph
from onnxembed.export.plan import ExportPlan, Options, make_plan
from onnxembed.facts.facts import Facts, read_facts
from onnxembed.manifest import FORMS, POOLING_MODES, AttentionMode, Precision, graph_file
from onnxembed.progress import silent
from parity_table import Architecture, record_differences, record_layer
from portable import check_portable, evaluate

torch = pytest.importorskip("torch", reason="compares with torch; needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="compares with transformers; needs the [torch] extra")

torch.set_num_threads(1)  # the models are tiny, and threads that wait for each other are not

Shape = tuple[int, int, str | None]  # batch, tokens, padding

# The sizes of a tiny model. They are odd on purpose: heads of 12, an inner width that is not a multiple, few layers.
SMALL: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": 3,
    "intermediate_size": 70,
}

SHAPES: list[Shape] = [
    (1, 1, None),
    (1, 7, None),
    (3, 17, "right"),
    (3, 17, "left"),
    (5, 19, "both"),
    (5, 40, None),
    (2, 200, None),
    (2, 200, "left"),
]

# Shapes that ONNX's reference evaluator, which is slow, runs too: longer than most windows of tiny models.
EVALUATED: list[Shape] = [(3, 17, "left")]

# sentence-transformers' names where they are not ours.
POOLING_NAMES = {"mean_sqrt_len": "mean_sqrt_len_tokens"}


def random_checkpoint(folder: Path, config: Any, *, task: str = "AutoModel", std: float = 0.15) -> Path:
    """Save a random model of a transformers config, with weights large enough that masks matter.

    `task` names the auto class: a task class saves heads, and a prefix before the encoder's names.
    """
    torch.manual_seed(0)
    model = getattr(transformers, task).from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, std)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1)
    model.save_pretrained(folder)
    return folder


def stock_checkpoint(
    folder: Path, model_type: str, config: Mapping[str, Any], *, task: str = "AutoModel", std: float = 0.15
) -> Path:
    """`random_checkpoint` of the stock config of a model_type."""
    return random_checkpoint(folder, transformers.AutoConfig.for_model(model_type, **config), task=task, std=std)


@dataclass(frozen=True)
class Family:
    """Tiny random checkpoints of one model_type.

    Attributes:
        model_type: that of the stock config.
        config: its keys.
        std: the standard deviation of the weights.
        layers_key: the key of the number of layers.
    """

    model_type: str
    config: Mapping[str, Any]
    std: float = 0.15
    layers_key: str = "num_hidden_layers"

    def save(self, folder: Path, task: str = "AutoModel", **changes: Any) -> Path:
        """Save a checkpoint of an auto class, with some keys of the config changed; returns `folder`."""
        return stock_checkpoint(folder, self.model_type, {**self.config, **changes}, task=task, std=self.std)

    def count_layer(
        self, workdir: Path, precision: Precision = "fp32", **flags: Any
    ) -> tuple[dict[str, int], dict[str, int]]:
        """`count_layer` of this family's checkpoints, which are saved to `workdir`."""

        def save(layers: int) -> Path:
            change: dict[str, Any] = {self.layers_key: layers}
            return self.save(workdir / str(layers), **change)

        return count_layer(save, precision, **flags)


def load_reference(folder: Path, task: str = "AutoModel") -> Any:
    """The stock model of a folder, in fp32 with explicit attention."""
    loading: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
    return getattr(transformers, task).from_pretrained(folder, **loading).eval()


def plan_mean(folder: Path, **flags: Any) -> ExportPlan:
    """The plan for a folder: mean pooling and normalization, unless `flags` say otherwise."""
    options = Options(flags=Flags(**{"task": "embedding", "pooling": ("mean",), "normalize": True, **flags}))
    return make_plan(read_facts(folder), None, options)


def make_graph(folder: Path, precision: Precision = "fp32", **flags: Any) -> Graph:
    """The graph that is built from a folder by `plan_mean`."""
    return build(plan_mean(folder, **flags), precision)


def open_graph(graph: Graph, workdir: Path, precision: Precision = "fp32") -> onnxruntime.InferenceSession:
    """A session on one thread with a graph that is written to `workdir`."""
    variant = write_graph(graph, workdir, precision, silent)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3  # not that an initializer of a branch is unused
    return onnxruntime.InferenceSession(workdir / variant.file, options, providers=["CPUExecutionProvider"])


def open_folder(
    folder: Path, workdir: Path, precision: Precision = "fp32", **flags: Any
) -> onnxruntime.InferenceSession:
    """A session with the graph that `make_graph` builds from a folder."""
    return open_graph(make_graph(folder, precision, **flags), workdir, precision)


def run(session: onnxruntime.InferenceSession, output: str, feeds: Mapping[str, NDArray[np.int64]]) -> NDArray[Any]:
    """One output of a session, fed with those values of a batch that are its inputs."""
    inputs = {value.name: feeds[value.name] for value in session.get_inputs()}
    return np.asarray(session.run([output], inputs)[0])


def count_layer(
    save: Callable[[int], Path], precision: Precision = "fp32", **flags: Any
) -> tuple[dict[str, int], dict[str, int]]:
    """The operators that a third layer adds, and those of all three layers.

    `save` saves a checkpoint with the given number of layers.
    """
    folders = save(2), save(3)
    two, three = (make_graph(folder, precision, **flags).operators() for folder in folders)
    layer = {name: count - two.get(name, 0) for name, count in three.items() if count != two.get(name, 0)}
    if precision == "fp32":
        plan = plan_mean(folders[0], **flags)
        attention = plan.decisions.encoder.attention.value
        record_layer(Architecture(plan.facts.model_type, "build", attention), layer)
    return layer, three


def assert_half_precision_is_near(folder: Path, workdir: Path, shape: Shape = (5, 90, "both"), **flags: Any) -> None:
    """fp16 gives nearly the vectors of fp32, and not quite the same."""
    feeds = batch(read_facts(folder), shape)
    precisions: tuple[Precision, ...] = ("fp32", "fp16")
    single, half = (
        run(open_folder(folder, workdir, precision, **flags), "sentence_embedding", feeds) for precision in precisions
    )
    assert (single * half).sum(axis=1).min() >= 0.999
    assert np.abs(single - half).max() > 0


def batch(facts: Facts, shape: Shape) -> dict[str, NDArray[np.int64]]:
    """Random ids [B, T] in two segments, as a pair of texts has them.

    Each row of a padded batch is shorter than the last. The pad id stands once among the real ones: a
    text may spell it, and RoBERTa counts positions around it.
    """
    rows, length, side = shape
    pad = facts.config.get("pad_token_id") or 0
    rng = np.random.default_rng(rows * 1000 + length)
    ids = rng.integers(8, facts.config["vocab_size"], (rows, length))
    ids[:, length // 2] = pad
    mask = np.ones((rows, length), np.int64)
    if side:
        for row in range(rows - 1):
            hidden = length // (row + 2)
            mask[row, :hidden] = 0
            mask[row] = mask[row] if side == "left" or (side == "both" and row % 2) else mask[row, ::-1]
    segments = np.zeros((rows, length), np.int64)
    segments[:, length * 2 // 3 :] = 1
    return {"input_ids": np.where(mask == 1, ids, pad), "attention_mask": mask, "token_type_ids": segments}


def max_difference(
    folder: Path,
    workdir: Path,
    *,
    attention: AttentionMode | None = None,
    adapter: str | None = None,
    reference: Any = None,
    engine: EngineOption = "auto",
    listed: bool = True,
) -> float:
    """Largest difference of hidden states and of every pooling, over all shapes and forms, for a transformers folder.

    Hidden states are compared at real tokens only. ONNX's reference evaluator runs the portable graph, too, and
    OpenVINO, where it is installed, every graph that is built.

    Args:
        attention: the flag of that name, which is set on the reference too.
        adapter: the flag of that name.
        reference: the model to compare with; transformers.AutoModel on the folder by default.
        engine: what writes the graph.
        listed: whether the differences belong into the parity table; False for a test that expects a difference.
    """
    reference = reference or load_reference(folder)
    if attention is not None:
        reference.config.is_causal = attention == "causal"
    flags = Flags(task="embedding", pooling=POOLING_MODES, normalize=False, attention=attention, adapter=adapter)
    differences = [
        _max_difference(folder, workdir, Options(flags=flags, engine=engine, form=form), reference, listed=listed)
        for form in FORMS
    ]
    return float(np.max(differences))  # unlike max, it keeps a nan


def _max_difference(folder: Path, workdir: Path, options: Options, reference: Any, *, listed: bool) -> float:
    from sentence_transformers.sentence_transformer.modules import Pooling

    plan = make_plan(read_facts(folder), None, options)
    facts, encoder = plan.facts, plan.decisions.encoder
    graph = build(plan, "fp32")
    session = open_graph(graph, workdir)
    if options.form == "portable":
        check_portable(workdir / graph_file("fp32"))
    # The evaluator refuses a GatherElements of fewer rows than its data has, which the standard allows.
    evaluated_shapes = EVALUATED if options.form == "portable" and "GatherElements" not in graph.operators() else []
    sessions: list[Any] = [session]
    if find_spec("openvino") and plan.engine.value == "build":
        graph_path = workdir / graph_file("fp32")
        sessions.append(OpenVinoSession(graph_path, wanted_providers("cpu"), 1, built=True, precision="f32"))
    inputs = {value.name for value in session.get_inputs()}
    pool = Pooling(encoder.hidden_size, [POOLING_NAMES.get(mode, mode) for mode in POOLING_MODES])
    worst = np.zeros(1 + len(POOLING_MODES))  # of hidden states, then of each pooling
    for shape in SHAPES:
        feeds = {name: value for name, value in batch(facts, shape).items() if name in inputs}
        tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
        with torch.no_grad():
            hidden = reference(**tensors).last_hidden_state
            expected = pool({"token_embeddings": hidden, **tensors})["sentence_embedding"].numpy()
        made = [each.run(["sentence_embedding", "token_embeddings"], feeds) for each in sessions]
        if shape in evaluated_shapes:
            evaluated = evaluate(workdir / graph_file("fp32"), feeds)
            made.append([evaluated["sentence_embedding"], evaluated["token_embeddings"]])
        for sentence, tokens in made:
            assert sentence.shape == expected.shape
            differences = np.abs(sentence - expected).reshape(shape[0], len(POOLING_MODES), -1).max(axis=(0, 2))
            # mean_sqrt_len sums as many numbers as it divides by the root of: its values, and their
            # rounding, are sqrt(T) times the hidden states'.
            differences[POOLING_MODES.index("mean_sqrt_len")] /= np.sqrt(shape[1])
            real = feeds["attention_mask"] == 1
            # np.maximum and np.max, unlike max, keep a nan.
            worst = np.maximum(worst, [np.abs(tokens - hidden.numpy())[real].max(), *differences])
    if listed:
        by_pooling = dict(zip(("tokens", *POOLING_MODES), worst.tolist(), strict=True))
        engine = plan.engine.value if options.form == "fused" else f"{plan.engine.value}, portable"
        record_differences(Architecture(facts.model_type, engine, encoder.attention.value), facts.config, by_pooling)
    return float(worst.max())
