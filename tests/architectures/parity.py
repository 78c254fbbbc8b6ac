"""Ours against the stock transformers class on the same folder, at shapes unlike any example's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed.export.artifact import write_graph
from onnxembed.export.engines import EngineOption
from onnxembed.export.pipeline import Options, build
from onnxembed.facts import Facts, read_facts
from onnxembed.manifest import POOLING_MODES, AttentionMode
from onnxembed.resolve import Flags, resolve

torch = pytest.importorskip("torch", reason="compares with torch; needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="compares with transformers; needs the [torch] extra")

torch.set_num_threads(1)  # the models are tiny, and threads that wait for each other are not

# batch, tokens, padding
SHAPES = [
    (1, 1, None),
    (1, 7, None),
    (3, 17, "right"),
    (3, 17, "left"),
    (5, 19, "both"),
    (5, 40, None),
    (2, 200, None),
    (2, 200, "left"),
]

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


def batch(facts: Facts, shape: tuple[int, int, str | None]) -> dict[str, NDArray[np.int64]]:
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
) -> float:
    """Largest difference of hidden states and of every pooling, over all shapes, for a transformers folder.

    Hidden states are compared at real tokens; what stands in padded slots is nobody's vector. `attention` is
    the flag of that name, which the reference is told too, `adapter` another; `reference` is a model to compare
    with instead of transformers.AutoModel on the folder; `engine` writes the graph.
    """
    import onnxruntime
    from sentence_transformers.sentence_transformer.modules import Pooling

    if reference is None:
        loading: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": "eager"}
        reference = transformers.AutoModel.from_pretrained(folder, **loading).eval()
    if attention is not None:
        reference.config.is_causal = attention == "causal"
    facts = read_facts(folder)
    decisions = resolve(facts, Flags(pooling=POOLING_MODES, normalize=False, attention=attention, adapter=adapter))
    graph = build(facts, decisions, Options(engine=engine), "fp32")
    write_graph(graph, workdir, "fp32", lambda stage, done, total: None)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(workdir / "onnx/model.onnx", options)
    inputs = {value.name for value in session.get_inputs()}
    pool = Pooling(decisions.hidden_size, [POOLING_NAMES.get(mode, mode) for mode in POOLING_MODES])
    worst = 0.0
    for shape in SHAPES:
        feeds = {name: value for name, value in batch(facts, shape).items() if name in inputs}
        tensors = {name: torch.from_numpy(value) for name, value in feeds.items()}
        with torch.no_grad():
            hidden = reference(**tensors).last_hidden_state
            expected = pool({"token_embeddings": hidden, **tensors})["sentence_embedding"].numpy()
        sentence, tokens = session.run(["sentence_embedding", "token_embeddings"], feeds)
        assert sentence.shape == expected.shape
        differences = np.abs(sentence - expected).reshape(shape[0], len(POOLING_MODES), -1).max(axis=(0, 2))
        # mean_sqrt_len sums as many numbers as it divides by the root of: its values, and their
        # rounding, are sqrt(T) times the hidden states'.
        differences[POOLING_MODES.index("mean_sqrt_len")] /= np.sqrt(shape[1])
        real = feeds["attention_mask"] == 1
        worst = max(worst, differences.max(), np.abs(tokens - hidden.numpy())[real].max())
    return float(worst)
