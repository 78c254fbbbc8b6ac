"""Ours against the stock transformers class on the same folder, at shapes unlike any example's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from onnxembed.export.artifact import write_graph
from onnxembed.export.pipeline import Options, build
from onnxembed.facts import read_facts
from onnxembed.manifest import POOLING_MODES, PoolingMode
from onnxembed.pooling import normalize
from onnxembed.resolve import Flags, resolve

torch = pytest.importorskip("torch", reason="compares with torch; needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="compares with transformers; needs the [torch] extra")

# batch, tokens, padding
SHAPES = [(1, 1, None), (1, 7, None), (3, 17, "right"), (3, 17, "left"), (5, 40, None), (2, 200, None), (2, 200, "left")]


def random_checkpoint(folder: Path, config: Any, *, std: float = 0.15) -> Path:
    """Save a random model of a transformers config, with weights large enough that masks matter."""
    torch.manual_seed(0)
    model = transformers.AutoModel.from_config(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, std)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1)
    model.save_pretrained(folder)
    return folder


def batch(shape: tuple[int, int, str | None], vocab: int, pad: int) -> dict[str, NDArray[np.int64]]:
    """Random ids [B, T] without pad ids among the real ones; each row of a padded batch is shorter than the last."""
    rows, length, side = shape
    rng = np.random.default_rng(rows * 1000 + length)
    ids = rng.integers(5, vocab, (rows, length))
    mask = np.ones((rows, length), np.int64)
    if side:
        for row in range(rows - 1):
            hidden = length // (row + 2)
            mask[row, :hidden] = 0
            mask[row] = mask[row] if side == "left" else mask[row, ::-1]
    return {"input_ids": np.where(mask == 1, ids, pad).astype(np.int64), "attention_mask": mask}


def max_difference(folder: Path, workdir: Path, modes: tuple[PoolingMode, ...] = POOLING_MODES) -> float:
    """Largest difference of hidden states and of every pooling, over all shapes, for a transformers folder.

    Hidden states are compared at real tokens; what stands in padded slots is nobody's vector.
    """
    import onnxruntime
    from sentence_transformers.sentence_transformer.modules import Pooling

    reference = transformers.AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    facts = read_facts(folder)
    worst = 0.0
    for mode in modes:
        decisions = resolve(facts, Flags(pooling=(mode,), normalize=mode == "mean"))
        graph = build(facts, decisions, Options(), "fp32")
        write_graph(graph, workdir / mode, "fp32", lambda stage, done, total: None)
        session = onnxruntime.InferenceSession(workdir / mode / "onnx/model.onnx")
        name = "mean_sqrt_len_tokens" if mode == "mean_sqrt_len" else mode
        pool = Pooling(decisions.hidden_size, name)
        for shape in SHAPES:
            feeds = batch(shape, facts.config["vocab_size"], decisions.pad_token_id.value)
            tensors = {key: torch.from_numpy(value) for key, value in feeds.items()}
            with torch.no_grad():
                hidden = reference(**tensors).last_hidden_state
                expected = pool({"token_embeddings": hidden, **tensors})["sentence_embedding"].numpy()
            expected = normalize(expected) if mode == "mean" else expected
            wanted = {value.name for value in session.get_inputs()}
            feeds["token_type_ids"] = np.zeros_like(feeds["input_ids"])
            sentence, tokens = session.run(
                ["sentence_embedding", "token_embeddings"], {key: feeds[key] for key in feeds.keys() & wanted}
            )
            real = feeds["attention_mask"] == 1
            assert sentence.shape == expected.shape
            # mean_sqrt_len sums as many numbers as it divides by the root of: its values, and their
            # rounding, are sqrt(T) times the hidden states'.
            scale = np.sqrt(shape[1]) if mode == "mean_sqrt_len" else 1.0
            worst = max(worst, np.abs(sentence - expected).max() / scale, np.abs(tokens - hidden.numpy())[real].max())
    return float(worst)
