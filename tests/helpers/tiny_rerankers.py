"""Tiny random rerankers on disk, written without torch: a BERT with a classification head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from tiny import CONFIG, write_bert, write_json

QUERY = "the cat of that"
DOCUMENTS = [
    "it was that of the and to in is",
    "",
    "they have not had this from one by his with, as for on at.",
    "a",
    "it was that of the and to in is",
    " ".join(["of"] * 50),
]


def write_reranker(folder: Path, *, labels: int = 1, seed: int = 3, **config: Any) -> Path:
    """A BertForSequenceClassification with the tokenizer of `tiny`."""
    names = {str(number): f"LABEL_{number}" for number in range(labels)}
    values = {"architectures": ["BertForSequenceClassification"], "id2label": names, **config}
    write_bert(folder, prefix="bert.", **values)
    rng = np.random.default_rng(seed)
    weights = load_file(folder / "model.safetensors")
    weights["classifier.weight"] = rng.normal(0, 1, (labels, CONFIG["hidden_size"])).astype(np.float32)
    weights["classifier.bias"] = rng.normal(0, 1, labels).astype(np.float32)
    save_file(weights, folder / "model.safetensors")
    return folder


def write_cross_encoder(folder: Path, activation: str | None = None, **options: Any) -> Path:
    """`write_reranker` as sentence-transformers 6.2 saves a CrossEncoder."""
    write_reranker(folder, **options)
    kind = "sentence_transformers.base.modules.transformer.Transformer"
    write_json(folder / "modules.json", [{"idx": 0, "name": "0", "path": "", "type": kind}])
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "sequence-classification",
            "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
            "module_output_name": "scores",
        },
    )
    saved: dict[str, Any] = {"model_type": "CrossEncoder", "prompts": {}, "default_prompt_name": None}
    write_json(
        folder / "config_sentence_transformers.json",
        saved | ({"activation_fn": activation} if activation else {}),
    )
    return folder
