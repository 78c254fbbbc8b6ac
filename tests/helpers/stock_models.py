"""Tiny random checkpoints of stock classes that have no builder. Needs torch and transformers."""

from __future__ import annotations

from pathlib import Path

from parity import random_checkpoint, transformers
from tiny import VOCAB, write_sentence_bert


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
