"""A tiny checkpoint of every architecture that onnxembed builds: stock classes, random weights, real module files."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors, trainers

from parity import random_checkpoint, transformers
from tiny import VOCAB, WORDS, change_json, write_json, write_sentence_bert

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
QWEN2_TOKENS = 320
DECODER = {**SIZES, "num_attention_heads": 6, "num_key_value_heads": 2}

FAMILIES: Mapping[str, dict[str, Any]] = {
    "bert": SIZES,
    "roberta": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66},
    "xlm-roberta": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66},
    "camembert": {**SIZES, "type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66},
    "albert": {**SIZES, "embedding_size": 32, "hidden_act": "gelu"},
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
    "deberta-v2": {
        **SIZES,
        "relative_attention": True,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "type_vocab_size": 0,
    },
    "modernbert": {**SIZES, "hidden_size": 40, "local_attention": 12, "cls_token_id": 2, "sep_token_id": 3},
    "nomic_bert": {**SIZES, "hidden_size": 40},
    "gte": {**SIZES, "hidden_size": 40, "type_vocab_size": 2},
    "jina_embeddings_v3": {**SIZES, "hidden_size": 40},
    "eurobert": {**SIZES, "num_key_value_heads": 2, "mask_token_id": 4},
    "llama": DECODER,
    "mistral": {**DECODER, "sliding_window": 11},
    "qwen2": {
        **DECODER,
        "vocab_size": QWEN2_TOKENS,
        "use_sliding_window": True,
        "sliding_window": 9,
        "max_window_layers": 1,
    },
    "qwen3": {**DECODER, "head_dim": 20},
    "gemma3_text": {
        **DECODER,
        "head_dim": 20,
        "query_pre_attn_scalar": 30,
        "sliding_window": 13,
        "sliding_window_pattern": 3,
    },
}
"""Keys of the stock config, by model_type."""

WEAK = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
"""Families whose norms magnify: their weights are smaller, as in the tests of their architectures."""

END = "<|endoftext|>"
"""The token that ends a text of Qwen."""

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
    if family == "qwen2":
        _write_byte_level(folder)
    elif config["pad_token_id"] == 1:
        _swap_first_two(folder / "tokenizer.json")
    return folder


def _swap_first_two(file: Path) -> None:
    """Give [PAD] the id 1, as RoBERTa has it, and [UNK] the id 0: pad tokens inside a text have no position."""
    content = json.loads(file.read_text())
    swapped = {"[PAD]": 1, "[UNK]": 0}
    vocab = {**content["model"]["vocab"], **swapped}
    content["model"]["vocab"] = dict(sorted(vocab.items(), key=lambda entry: entry[1]))
    for token in content["added_tokens"]:
        token["id"] = swapped.get(token["content"], token["id"])
    content["added_tokens"].sort(key=lambda token: token["id"])
    file.write_text(json.dumps(content))


def _write_byte_level(folder: Path) -> None:
    """A tokenizer as Qwen2Tokenizer reads it: byte-level BPE, no lower-casing, one special token at the end."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=QWEN2_TOKENS, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([" ".join(WORDS)] * 2, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, 0)])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": END, "pad_token": END, "add_eos_token": True}
    write_json(folder / "tokenizer_config.json", {**config, "model_max_length": 60})
