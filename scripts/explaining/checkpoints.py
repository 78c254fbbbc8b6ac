"""A tiny checkpoint of every architecture that onnxembed builds: stock classes, random weights, real module files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from parity import random_checkpoint, transformers
from tiny import VOCAB, change_json, write_sentence_bert

SIZES: dict[str, Any] = {
    "vocab_size": len(VOCAB),
    "hidden_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 70,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
DECODER = {**SIZES, "num_attention_heads": 6, "num_key_value_heads": 2}

FAMILIES: Mapping[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66},
    "xlm-roberta": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66},
    "camembert": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66},
    "electra": {**SIZES, "embedding_size": 32},
    "distilbert": {
        "vocab_size": len(VOCAB),
        "dim": 48,
        "n_layers": 3,
        "n_heads": 4,
        "hidden_dim": 70,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
    },
    "mpnet": {**SIZES, "pad_token_id": 1, "max_position_embeddings": 66},
    "modernbert": {**SIZES, "hidden_size": 40, "local_attention": 12, "cls_token_id": 2, "sep_token_id": 3},
    "nomic_bert": {**SIZES, "hidden_size": 40},
    "gte": {**SIZES, "hidden_size": 40, "type_vocab_size": 2},
    "jina_embeddings_v3": {**SIZES, "hidden_size": 40},
    "eurobert": {**SIZES, "num_key_value_heads": 2, "mask_token_id": 4},
    "llama": DECODER,
    "mistral": {**DECODER, "sliding_window": 11},
    "qwen2": DECODER,
    "qwen3": {**DECODER, "head_dim": 20},
    "gemma3_text": {**DECODER, "head_dim": 20, "query_pre_attn_scalar": 30, "sliding_window": 13},
}
"""Keys of the stock config, by model_type."""

WEAK = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
"""Families whose norms magnify: their weights are smaller, as in the tests of their architectures."""

TANH = "torch.nn.modules.activation.Tanh"


def write_tiny(folder: Path, family: str, *, dense: bool = False) -> Path:
    """A sentence-transformers checkpoint of a family: mean pooling, or last-token for decoders; normalized, prompts."""
    config = FAMILIES[family]
    decoder = family in WEAK[:4]
    size = config.get("hidden_size") or config["dim"]
    write_sentence_bert(
        folder,
        pooling="lasttoken" if decoder else "mean",
        max_length=20,
        prompts={"query": "to be: ", "title": "of: "},
        default_prompt_name="query",
        dense=((size, 24, TANH),) if dense else (),
        hidden_size=size,
    )
    stock = transformers.AutoConfig.for_model(family, **config)
    random_checkpoint(folder, stock, std=0.1 if family in WEAK else 0.15)
    change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast", model_max_length=60)
    return folder
