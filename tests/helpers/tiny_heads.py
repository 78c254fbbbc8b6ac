"""Tiny random checkpoints with sparse and multi-vector heads, written without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from models.torch_files import write_torch
from tiny import CONFIG, SPECIALS, VOCAB, change_json, write_bert, write_encoder, write_json

Tensors = dict[str, NDArray[np.float32]]

MODULE = "sentence_transformers"


def random(rng: np.random.Generator, *shape: int) -> NDArray[np.float32]:
    return rng.normal(0, 0.15, shape).astype(np.float32)


def write_bge_m3(folder: Path, *, dimension: int = 32, **config: Any) -> Path:
    """An XLM-R with bge-m3's two heads beside it, in the format and float type of the real ones."""
    write_encoder(folder, "xlm-roberta", pooling="cls", **{"pad_token_id": 0, **config})
    change_json(folder / "tokenizer_config.json", eos_token="[SEP]", cls_token="[CLS]")
    hidden = config.get("hidden_size", CONFIG["hidden_size"])
    rng = np.random.default_rng(3)
    for name, out in (("sparse_linear", 1), ("colbert_linear", dimension)):
        # Biases that leave some of the tokens a weight above 0, and others none.
        head = {"weight": random(rng, out, hidden), "bias": np.full(out, 0.9)}
        write_torch(folder / f"{name}.pt", {key: tensor.astype(np.float16) for key, tensor in head.items()}, root=name)
    return folder


# Tensor names of masked-language-model heads: dense, norm, decoder's bias.
MASKED_LM = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias"),
    "distilbert": ("vocab_transform", "vocab_layer_norm", "vocab_projector.bias"),
    "electra": ("generator_predictions.dense", "generator_predictions.LayerNorm", "generator_lm_head.bias"),
    **dict.fromkeys(
        ("camembert", "mpnet", "roberta", "xlm-roberta"), ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias")
    ),
}
CLASSES = {
    "bert": "BertForMaskedLM",
    "camembert": "CamembertForMaskedLM",
    "distilbert": "DistilBertForMaskedLM",
    "electra": "ElectraForMaskedLM",
    "mpnet": "MPNetForMaskedLM",
    "roberta": "RobertaForMaskedLM",
    "xlm-roberta": "XLMRobertaForMaskedLM",
}


def write_masked_lm(folder: Path, model_type: str = "bert", *, pooling: dict[str, Any] | None = None) -> Path:
    """A masked language model; with the config of a SpladePooling, a SparseEncoder of sentence-transformers."""
    write_encoder(folder, model_type)
    for name in ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    hidden = CONFIG["hidden_size"]
    dense, norm, bias = MASKED_LM[model_type]
    rng = np.random.default_rng(5)
    weights = {_prefixed(model_type, name): tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    weights |= {
        f"{dense}.weight": random(rng, hidden, hidden),
        f"{dense}.bias": random(rng, hidden),
        f"{norm}.weight": 1 + random(rng, hidden),
        f"{norm}.bias": random(rng, hidden),
        bias: random(rng, len(VOCAB)),
    }
    save_file(weights, folder / "model.safetensors")
    change_json(folder / "config.json", architectures=[CLASSES[model_type]])
    change_json(folder / "tokenizer_config.json", model_max_length=20)
    if pooling is not None:
        write_modules(folder, ("base.modules.transformer.Transformer", {}), ("SpladePooling", pooling))
        write_json(
            folder / "sentence_bert_config.json",
            {
                "transformer_task": "fill-mask",
                "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
                "module_output_name": "token_embeddings",
            },
        )
        write_json(folder / "config_sentence_transformers.json", {"model_type": "SparseEncoder", "prompts": {}})
    return folder


def _prefixed(model_type: str, name: str) -> str:
    return f"{ {'xlm-roberta': 'roberta', 'camembert': 'roberta'}.get(model_type, model_type) }.{name}"


PATHS = {
    "SpladePooling": "sparse_encoder.modules.splade_pooling.SpladePooling",
    "Dense": "base.modules.dense.Dense",
    "MultiVectorMask": "multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask",
    "Normalize": "base.modules.normalize.Normalize",
}


def write_modules(folder: Path, *modules: tuple[str, dict[str, Any]]) -> None:
    """modules.json, and the config of every module but the first."""
    listed = []
    for number, (kind, config) in enumerate(modules):
        path = f"{number}_{kind}" if number else ""
        listed.append({"idx": number, "name": str(number), "path": path, "type": f"{MODULE}.{PATHS.get(kind, kind)}"})
        if number:
            write_json(folder / path / "config.json", config)
    write_json(folder / "modules.json", listed)


QUERY, DOCUMENT = "[Q] ", "[D] "


def write_colbert_encoder(
    folder: Path,
    *,
    expansion: dict[str, Any] | None = None,
    skip: tuple[str, ...] = (".", ","),
    skip_in: tuple[str, ...] = ("document",),
    normalize: bool = True,
    dimensions: tuple[int, ...] = (12,),
    **lengths: int,
) -> Path:
    """A MultiVectorEncoder of sentence-transformers."""
    write_bert(folder)
    place = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
    modules: list[tuple[str, dict[str, Any]]] = [("base.modules.transformer.Transformer", {})]
    width = CONFIG["hidden_size"]
    rng = np.random.default_rng(7)
    for dimension in dimensions:
        config = {"in_features": width, "out_features": dimension, "bias": False, **place}
        modules.append(("Dense", {**config, "activation_function": "torch.nn.modules.linear.Identity"}))
        (folder / f"{len(modules) - 1}_Dense").mkdir(exist_ok=True)
        save_file(
            {"linear.weight": random(rng, dimension, width)},
            folder / f"{len(modules) - 1}_Dense" / "model.safetensors",
        )
        width = dimension
    modules.append(
        ("MultiVectorMask", {"skiplist_words": [*skip], "skiplist_tasks": [*skip_in], "keep_only_token_ids": None})
    )
    if normalize:
        modules.append(("Normalize", place))
    write_modules(folder, *modules)
    write_json(
        folder / "sentence_bert_config.json",
        {
            "transformer_task": "feature-extraction",
            "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
            "module_output_name": "token_embeddings",
            **({"query_expansion": expansion} if expansion else {}),
            **lengths,
        },
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {"model_type": "MultiVectorEncoder", "prompts": {"query": "to be: ", "document": "of: "}},
    )
    return folder


def write_stanford_colbert(folder: Path, **metadata: Any) -> Path:
    """The original ColBERT's form: artifact.metadata, and the projection among the encoder's tensors."""
    write_bert(folder, prefix="bert.")
    weights: Tensors = load_file(folder / "model.safetensors")
    projection = random(np.random.default_rng(8), 12, CONFIG["hidden_size"])
    save_file({**weights, "linear.weight": projection}, folder / "model.safetensors")
    change_json(folder / "config.json", architectures=["HF_ColBERT"])
    write_json(
        folder / "artifact.metadata",
        {
            "query_token_id": "[unused0]",
            "doc_token_id": "[unused1]",
            "query_maxlen": 8,
            "doc_maxlen": 16,
            "mask_punctuation": True,
            "attend_to_mask_tokens": False,
            **metadata,
        },
    )
    put_in_vocabulary(folder, "[unused0]", "[unused1]")
    return folder


def write_pylate(folder: Path, **options: Any) -> Path:
    """PyLate's form: a Transformer, a Dense, and everything else in config_sentence_transformers.json."""
    write_colbert_encoder(folder)
    for name in ("2_MultiVectorMask", "3_Normalize"):
        (folder / name / "config.json").unlink()
        (folder / name).rmdir()
    write_json(
        folder / "modules.json",
        [
            {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Dense", "type": "pylate.models.Dense.Dense"},
        ],
    )
    dense = {"in_features": 32, "out_features": 12, "bias": False}
    write_json(folder / "1_Dense/config.json", {**dense, "activation_function": "torch.nn.modules.linear.Identity"})
    write_json(folder / "sentence_bert_config.json", {"max_seq_length": 19, "do_lower_case": False})
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "ColBERT",
            "query_prefix": QUERY,
            "document_prefix": DOCUMENT,
            "query_length": 8,
            "document_length": 16,
            "attend_to_expansion_tokens": False,
            "skiplist_words": [".", ","],
            **options,
        },
    )
    add_tokens(folder, QUERY, DOCUMENT)
    return folder


def put_in_vocabulary(folder: Path, *tokens: str) -> None:
    """Rename rare words of the vocabulary, so that ids and tables stay as they are."""
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    vocabulary = state["model"]["vocab"]
    for token, old in zip(tokens, ("##q", "##x"), strict=False):
        vocabulary[token] = vocabulary.pop(old)
    write_json(path, state)


def add_tokens(folder: Path, *tokens: str) -> None:
    """Tokens added after the vocabulary, as PyLate adds its markers, with rows in the table of embeddings."""
    path = folder / "tokenizer.json"
    state = json.loads(path.read_text(encoding="utf-8"))
    for token in tokens:
        number = len(state["model"]["vocab"]) + len(state["added_tokens"]) - len(SPECIALS)
        flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": True, "special": False}
        state["added_tokens"].append({"id": number, "content": token, **flags})
    write_json(path, state)
    weights = load_file(folder / "model.safetensors")
    table = "embeddings.word_embeddings.weight"
    more = random(np.random.default_rng(11), len(tokens), weights[table].shape[1])
    save_file({**weights, table: np.concatenate([weights[table], more])}, folder / "model.safetensors")
    change_json(folder / "config.json", vocab_size=len(VOCAB) + len(tokens))
