"""Tiny random checkpoints of stock classes, with the tiny BERT's tokenizer. Needs torch and transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from parity import random_checkpoint, stock_checkpoint, transformers
from tiny import VOCAB, change_json, write_sentence_bert


def write_sentence_albert(folder: Path) -> Path:
    """A sentence-transformers ALBERT: the tiny BERT's tokenizer and modules around random weights."""
    write_sentence_bert(folder, prompts={"query": "to be: "})
    config = transformers.AlbertConfig(
        vocab_size=len(VOCAB),
        embedding_size=20,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=64,
    )
    return random_checkpoint(folder, config)


def write_sentence_decoder(folder: Path, model_type: str, *, pooling: str = "lasttoken", **config: Any) -> Path:
    """A sentence-transformers model around a stock decoder: the tiny BERT's tokenizer and modules, random weights."""
    write_sentence_bert(folder, pooling=pooling)
    values = {
        "vocab_size": len(VOCAB),
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    }
    stock_checkpoint(folder, model_type, values)
    change_json(folder / "config.json", **config)
    return folder
