"""Every family in integers: all of its products are rounded, and a text's vector does not depend on others."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from onnxembed.decisions.flags import Flags
from onnxembed.export.build_graph import build
from onnxembed.export.plan import Options, make_plan
from onnxembed.export.quantize.calibration_texts import Samples
from onnxembed.export.quantize.measures import VectorMeasure
from onnxembed.export.quantize.opened_graph import open_graph
from onnxembed.export.quantize.quantize import write_quantized
from onnxembed.facts.facts import read_facts
from onnxembed.manifest import AttentionMode, Precision
from onnxembed.progress import silent
from parity import stock_checkpoint

pytestmark = pytest.mark.torch
EXACT = pytest.mark.exact_bytes

LAYERS = 2
COMMON: dict[str, Any] = {
    "vocab_size": 99,
    "hidden_size": 48,
    "num_attention_heads": 4,
    "num_hidden_layers": LAYERS,
    "intermediate_size": 72,
    "max_position_embeddings": 210,
    "pad_token_id": 1,
}
GROUPED = {**COMMON, "num_key_value_heads": 2, "head_dim": 8}
DISTIL = {"vocab_size": 99, "dim": 48, "n_heads": 4, "n_layers": LAYERS, "hidden_dim": 72, "pad_token_id": 1}
MODERN = {**COMMON, "global_attn_every_n_layers": 2, "local_attention": 12, "cls_token_id": 2, "sep_token_id": 3}
# Family -> its config, and how many products a layer has.
FAMILIES: dict[str, tuple[dict[str, Any], int]] = {
    "bert": (COMMON, 6),
    "roberta": (COMMON, 6),
    "distilbert": (DISTIL, 6),
    "mpnet": (COMMON, 6),
    "modernbert": ({**MODERN, "bos_token_id": 2, "eos_token_id": 3}, 7),
    "eurobert": ({**GROUPED, "head_dim": 12}, 7),
    "llama": (GROUPED, 7),
    "mistral": ({**GROUPED, "sliding_window": 11}, 7),
    "qwen2": (GROUPED, 7),
    "qwen3": (GROUPED, 7),
    "gemma3_text": ({**GROUPED, "sliding_window": 12, "use_bidirectional_attention": True}, 7),
}
DECODERS = ("llama", "mistral", "qwen2", "qwen3")
# Precision -> what multiplies, and how many of it a product takes that is not kept wider.
OPERATORS: dict[Precision, tuple[str, int]] = {
    "int16": ("MatMulIntegerToFloat", 2),
    "int8": ("MatMulIntegerToFloat", 1),
    "int8w": ("MatMulNBits", 1),
}
IDS = [np.random.default_rng(seed).integers(8, 99, 5 + seed) for seed in range(24)]


def feeds(*rows: Any) -> dict[str, Any]:
    ids = np.stack(rows)
    return {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}


@pytest.mark.parametrize("precision", [pytest.param("int16", marks=EXACT), pytest.param("int8", marks=EXACT), "int8w"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(tmp_path: Path, family: str, precision: Precision) -> None:
    values, products = FAMILIES[family]
    folder = stock_checkpoint(tmp_path / "model", family, values)
    attention: AttentionMode | None = "bidirectional" if family in DECODERS else None
    flags = Flags(pooling=("mean",), normalize=True, attention=attention)
    plan = make_plan(read_facts(folder), None, Options(flags=flags))
    samples = Samples([feeds(ids) for ids in IDS[::2]], [feeds(ids) for ids in IDS[1::2]])
    variant = write_quantized(
        partial(build, plan, "fp32"),
        tmp_path,
        precision,
        samples,
        measure=VectorMeasure(0.9, ("mean",)),
        progress=silent,
    )
    assert variant.quality is not None
    wider = [key for key in variant.quality.kept_wider if "embed" not in key]
    operator, per_product = OPERATORS[precision]
    assert variant.operators[operator] == per_product * products * LAYERS + len(wider)
    assert variant.quality.min_cosine is not None
    assert (0.99999 if precision == "int16" else 0.9) <= variant.quality.min_cosine <= 1
    model = open_graph(tmp_path / variant.file, VectorMeasure(0.9, ("mean",)))
    rows = [ids[:5] for ids in IDS]
    together = model.vectors([feeds(*rows)])
    alone = model.vectors([feeds(row) for row in rows])
    cosines = (together * alone).sum(axis=1)
    assert cosines.min() >= 0.99999
