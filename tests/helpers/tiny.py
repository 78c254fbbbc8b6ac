"""Tiny random checkpoints on disk, written without torch: a BERT with its own WordPiece tokenizer."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

WORDS = """
    the a of and to in is it that was for on are as with his they at be this from have or by one had not but
""".split()  # noqa: SIM905  (a word list)
SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCAB = [*SPECIALS, *WORDS, *string.ascii_lowercase, *(f"##{letter}" for letter in string.ascii_lowercase), ".", ","]

CONFIG: dict[str, Any] = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "vocab_size": len(VOCAB),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "hidden_act": "gelu",
    "max_position_embeddings": 64,
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
    "position_embedding_type": "absolute",
}

# BERT's names -> DistilBERT's, of config keys and of parts of tensor names, in this order.
DISTILBERT_KEYS = {
    "hidden_size": "dim",
    "intermediate_size": "hidden_dim",
    "num_attention_heads": "n_heads",
    "num_hidden_layers": "n_layers",
    "hidden_act": "activation",
}
DISTILBERT_TENSORS = {
    "encoder.layer": "transformer.layer",
    "attention.self.query": "attention.q_lin",
    "attention.self.key": "attention.k_lin",
    "attention.self.value": "attention.v_lin",
    "attention.output.dense": "attention.out_lin",
    "attention.output.LayerNorm": "sa_layer_norm",
    "intermediate.dense": "ffn.lin1",
    "output.dense": "ffn.lin2",
    "output.LayerNorm": "output_layer_norm",
}

# BERT's parts of tensor names -> MPNet's.
MPNET_TENSORS = {
    "attention.self.query": "attention.attn.q",
    "attention.self.key": "attention.attn.k",
    "attention.self.value": "attention.attn.v",
    "attention.output.dense": "attention.attn.o",
    "attention.output.LayerNorm": "attention.LayerNorm",
}

BERT_LIKE = ("bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta")

TEXTS = [
    "the cat",
    "a",
    "it was that of the and to in is",
    "",
    "they have not had this from one by his with, as for on at.",
    "the cat",
    " ".join(["word"] * 12),
]


def write_bert(folder: Path, *, seed: int = 0, prefix: str = "", **config: Any) -> Path:
    """A plain transformers checkpoint: config.json, model.safetensors and the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    values = {**CONFIG, **config}
    write_json(folder / "config.json", values)
    save_file(bert_weights(values, seed=seed, prefix=prefix), folder / "model.safetensors")
    write_tokenizer(folder)
    return folder


def write_sentence_bert(
    folder: Path,
    *,
    pooling: str = "mean",
    normalize: bool = True,
    dense: tuple[tuple[int, int, str], ...] = (),
    max_length: int | None = 20,
    prompts: dict[str, str] | None = None,
    default_prompt_name: str | None = None,
    **config: Any,
) -> Path:
    """A sentence-transformers checkpoint around `write_bert`; dense is (in, out, activation class) per layer."""
    write_bert(folder, **config)
    kinds = ["Transformer", "Pooling", *["Dense"] * len(dense), *["Normalize"] * normalize]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"sentence_transformers.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    write_json(folder / "modules.json", modules)
    hidden = config.get("hidden_size", CONFIG["hidden_size"])
    write_json(folder / "1_Pooling/config.json", {"embedding_dimension": hidden, "pooling_mode": pooling})
    rng = np.random.default_rng(9)
    for i, (in_features, out_features, activation) in enumerate(dense, start=2):
        write_json(
            folder / f"{i}_Dense/config.json",
            {"in_features": in_features, "out_features": out_features, "bias": True, "activation_function": activation},
        )
        weights = {"linear.weight": _random(rng, out_features, in_features), "linear.bias": _random(rng, out_features)}
        save_file(weights, folder / f"{i}_Dense/model.safetensors")
    if max_length is not None:
        write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_length, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {"prompts": prompts or {}, "default_prompt_name": default_prompt_name},
    )
    return folder


def bert_weights(config: dict[str, Any], *, seed: int = 0, prefix: str = "") -> dict[str, NDArray[np.float32]]:
    """Random BertModel tensors, large enough that masks and positions matter."""
    rng = np.random.default_rng(seed)
    hidden, inner = config["hidden_size"], config["intermediate_size"]
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.word_embeddings.weight": (config["vocab_size"], hidden),
        "embeddings.position_embeddings.weight": (config["max_position_embeddings"], hidden),
        "embeddings.token_type_embeddings.weight": (config["type_vocab_size"], hidden),
        "embeddings.LayerNorm.weight": (hidden,),
        "embeddings.LayerNorm.bias": (hidden,),
        "pooler.dense.weight": (hidden, hidden),
        "pooler.dense.bias": (hidden,),
    }
    for layer in range(config["num_hidden_layers"]):
        for name, (rows, columns) in {
            "attention.self.query": (hidden, hidden),
            "attention.self.key": (hidden, hidden),
            "attention.self.value": (hidden, hidden),
            "attention.output.dense": (hidden, hidden),
            "intermediate.dense": (inner, hidden),
            "output.dense": (hidden, inner),
        }.items():
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (rows, columns)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (rows,)
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes[f"encoder.layer.{layer}.{name}.weight"] = (hidden,)
            shapes[f"encoder.layer.{layer}.{name}.bias"] = (hidden,)
    tensors = {}
    for name, shape in shapes.items():
        tensors[prefix + name] = _random(rng, *shape)
        if name.endswith("LayerNorm.weight"):
            tensors[prefix + name] += 1
    return tensors


def write_encoder(folder: Path, model_type: str, **options: Any) -> Path:
    """`write_sentence_bert` under the keys and tensor names of any model_type of the bert family."""
    config = {"model_type": model_type, "embedding_size": CONFIG["hidden_size"], "pad_token_id": 1}
    write_sentence_bert(folder, **{**config, **options})
    weights = load_file(folder / "model.safetensors")
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler")}
    if model_type == "distilbert":
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        write_json(folder / "config.json", {DISTILBERT_KEYS.get(key, key): value for key, value in values.items()})
        change_json(folder / "config.json", type_vocab_size=None, layer_norm_eps=None, position_embedding_type=None)
        del weights["embeddings.token_type_embeddings.weight"]
        for old, new in DISTILBERT_TENSORS.items():
            weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
    if model_type == "mpnet":
        unused = dict.fromkeys(("type_vocab_size", "position_embedding_type"))
        change_json(folder / "config.json", relative_attention_num_buckets=32, **unused)
        del weights["embeddings.token_type_embeddings.weight"]
        for old, new in MPNET_TENSORS.items():
            weights = {name.replace(old, new): tensor for name, tensor in weights.items()}
        bias = np.random.default_rng(3).normal(0, 0.5, (32, CONFIG["num_attention_heads"]))
        weights["encoder.relative_attention_bias.weight"] = bias.astype(np.float32)
    if model_type != "electra":
        change_json(folder / "config.json", embedding_size=None)
    save_file(weights, folder / "model.safetensors")
    return folder


def write_tokenizer(folder: Path) -> None:
    """tokenizer.json and tokenizer_config.json of a small lower-casing WordPiece tokenizer."""
    tokenizer = Tokenizer(models.WordPiece({word: i for i, word in enumerate(VOCAB)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", VOCAB.index("[CLS]")), ("[SEP]", VOCAB.index("[SEP]"))],
    )
    tokenizer.add_special_tokens(SPECIALS)
    tokenizer.save(str(folder / "tokenizer.json"))
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": True,
            "model_max_length": 64,
            "pad_token": "[PAD]",
            "unk_token": "[UNK]",
            "cls_token": "[CLS]",
            "sep_token": "[SEP]",
            "mask_token": "[MASK]",
        },
    )


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")


def change_json(path: Path, **values: Any) -> None:
    """Set keys of the JSON object in a file; None removes a key."""
    changed = {**json.loads(path.read_text(encoding="utf-8")), **values}
    write_json(path, {key: value for key, value in changed.items() if value is not None})


def _random(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(0, 0.15, shape).astype(np.float32)


def change_weights(folder: Path, **changes: Any) -> None:
    """Set tensors of a checkpoint's model.safetensors; None removes a tensor."""
    weights = {**load_file(folder / "model.safetensors"), **changes}
    remaining = {name: tensor for name, tensor in weights.items() if tensor is not None}
    save_file(remaining, folder / "model.safetensors")
