"""What is measured: an artifact, and the checkpoint for the other systems, given or with random weights.

Random weights are as fast as trained ones. Their tokenizer is that of another model, whose ids are all within
their vocabulary; Qwen2 models get one of their own class.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from benchmark.made_up import WORDS
from onnxembed import Manifest
from onnxembed.manifest import FILE_NAME, read_manifest

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")

BERT = {"vocab_size": 30522, "max_position_embeddings": 512, "pad_token_id": 0}

# name -> (config for transformers, longest text, pooling)
SHAPES: dict[str, tuple[dict[str, Any], int, str]] = {
    "minilm": (
        {**BERT, "model_type": "bert", "hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6},
        256,
        "mean",
    ),
    "bert-large": (
        {
            **BERT,
            "model_type": "bert",
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
        },
        512,
        "cls",
    ),
    "gte-large": (
        {
            "model_type": "gte",
            "vocab_size": 30528,
            "hidden_size": 1024,
            "intermediate_size": 4096,
            "num_hidden_layers": 24,
            "num_attention_heads": 16,
            "max_position_embeddings": 8192,
            "pad_token_id": 0,
        },
        8192,
        "cls",
    ),
    "modernbert-base": ({"model_type": "modernbert", "pad_token_id": 0}, 8192, "cls"),
    "qwen2-1.5b": (
        {
            "model_type": "qwen2",
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
            "pad_token_id": 0,
        },
        8192,
        "lasttoken",
    ),
}


@dataclass(frozen=True)
class Model:
    """An artifact, and the checkpoint it was exported from."""

    name: str
    artifact: Path
    checkpoint: Path

    @property
    def manifest(self) -> Manifest:
        """The artifact's manifest."""
        return read_manifest(self.artifact)


def make(
    shape: str, precisions: str, tokenizer: Path | None, work: Path, layers: int | None = None, *, packed: bool = False
) -> Model:
    """A model with random weights in the folder `work`, which is reused by the next run.

    Without a `tokenizer` to copy it gets one of the made-up texts' words; `packed` adds the form that CUDA runs
    without padding, where the model has one.
    """
    config, limit, pooling = SHAPES[shape]
    causal = shape.startswith("qwen")
    options = ["--attention", "causal"] if causal else ["--packed"] if packed else []
    name = shape if layers is None else f"{shape}-{layers}-layers"
    checkpoint = work / (name if tokenizer else f"{name}-made-up-words")
    artifact = work / "-".join(
        [checkpoint.name, *precisions.split(","), *(["packed"] if "--packed" in options else [])]
    )
    if not (checkpoint / "modules.json").exists():
        if layers is not None:
            config = {**config, "num_hidden_layers": layers}
        write_checkpoint(checkpoint, config, limit=limit, pooling=pooling, tokenizer=tokenizer)
    if not (artifact / FILE_NAME).exists():
        export_artifact(checkpoint, artifact, "--precision", precisions, *options)
    return Model(name, artifact, checkpoint)


def without_packing(model: Model) -> Path:
    """The same artifact without its packed graphs, which CUDA would prefer; its files are links."""
    folder = model.artifact.parent / f"{model.artifact.name}-padded"
    folder.mkdir(exist_ok=True)
    for path in model.artifact.iterdir():
        if path.name != FILE_NAME and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path.resolve())
    variants = {name: replace(variant, packed=None) for name, variant in model.manifest.variants.items()}
    (folder / FILE_NAME).write_text(replace(model.manifest, variants=variants).to_json(), encoding="utf-8")
    return folder


def traced(model: Model, work: Path) -> Path:
    """A folder in FastEmbed's form: a traced graph with the same weights, without pooling."""
    folder = work / f"{model.artifact.resolve().name}-traced"
    if not (folder / FILE_NAME).exists():
        embedding = model.manifest.embedding
        export_artifact(model.checkpoint, folder, "--engine", "trace", *(["--pooling-out"] if embedding else []))
    return folder


def with_limit(folder: Path, limit: int | None, checkpoint: Path) -> Path:
    """The same graph with a tokenizer_config.json that cuts texts at `limit`, or at the checkpoint's limit if None."""
    copy = folder.parent / f"{folder.name}-{limit or 'as-it-comes'}"
    copy.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "special_tokens_map.json", "config.json"):
        if (folder / name).exists():
            shutil.copyfile(folder / name, copy / name)
    if not (copy / "onnx").exists():
        (copy / "onnx").symlink_to((folder / "onnx").resolve())
    config = json.loads((checkpoint / "tokenizer_config.json").read_text(encoding="utf-8"))
    if limit is not None:
        config["model_max_length"] = limit
        config.pop("max_length", None)
    (copy / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    return copy


def export_artifact(checkpoint: Path, output: Path, *options: str) -> None:
    """Export a checkpoint with the command line, without verification; RuntimeError with its message if it fails."""
    command = [sys.executable, "-m", "onnxembed", "export", str(checkpoint), "-o", str(output), "--no-verify", *options]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{checkpoint} could not be exported with {' '.join(options)}: {done.stderr.strip()}")


def write_checkpoint(
    folder: Path, config: dict[str, Any], *, limit: int, pooling: str, tokenizer: Path | None = None, std: float = 0.0
) -> None:
    """Write a sentence-transformers checkpoint with random float32 weights; modules.json is written last.

    `config` is of transformers; `std` is the weights' standard deviation, the model's own when 0.
    """
    import torch
    import transformers

    if tokenizer and not (tokenizer / "tokenizer.json").exists():
        raise ValueError(f"{tokenizer} has no tokenizer.json: run scripts/quickstart, or name another with --tokenizer")
    keys = dict(config)
    torch.manual_seed(0)
    auto: Any = transformers.AutoModel  # has no types
    model = auto.from_config(transformers.AutoConfig.for_model(keys.pop("model_type"), **keys))
    if std:
        for name, parameter in model.named_parameters():
            torch.nn.init.normal_(parameter, mean=float(parameter.ndim == 1 and name.endswith("weight")), std=std)
    model.save_pretrained(folder)
    if model.config.model_type == "qwen2":
        _write_byte_pairs(folder, limit)
    elif tokenizer:
        for name in TOKENIZER_FILES:
            if (tokenizer / name).exists():
                shutil.copyfile(tokenizer / name, folder / name)
    else:
        _write_tokenizer(folder, limit)
    hidden = model.config.hidden_size
    kind = "sentence_transformers.models"
    _json(folder / "1_Pooling/config.json", {"embedding_dimension": hidden, "pooling_mode": pooling})
    _json(folder / "sentence_bert_config.json", {"max_seq_length": limit, "do_lower_case": False})
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": f"{kind}.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}.Pooling"},
        {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{kind}.Normalize"},
    ]
    _json(folder / "modules.json", modules)


def _write_tokenizer(folder: Path, limit: int) -> None:
    """Write a tokenizer with one token for each word of made-up texts."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    specials = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
    words = dict.fromkeys(word.lower() for word in (*WORDS, "."))
    vocabulary = specials | {word: number for number, word in enumerate(words, start=len(specials))}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    ends = [(name, specials[name]) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=ends)
    tokenizer.add_special_tokens(list(specials))
    tokenizer.save(str(folder / "tokenizer.json"))
    tokens = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    values = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": limit, **tokens}
    _json(folder / "tokenizer_config.json", values)


def _write_byte_pairs(folder: Path, limit: int) -> None:
    """Write a Qwen2 tokenizer with one token for each word of made-up texts.

    transformers reads the tokenizer of a qwen2 model as this class, whatever class its files name.
    """
    import transformers
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=30000, min_frequency=1, show_progress=False, initial_alphabet=alphabet)
    trained.train_from_iterator([f"{word} {word.capitalize()} {word}" for word in WORDS], trainer)
    model = json.loads(trained.to_str())["model"]
    merges = [tuple(pair) for pair in model["merges"]]
    fast: Any = transformers.Qwen2Tokenizer  # has no types
    fast(vocab=model["vocab"], merges=merges, model_max_length=limit).save_pretrained(folder)


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), encoding="utf-8")
