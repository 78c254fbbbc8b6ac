"""What a model's own files say about its sparse embeddings, read but not yet judged. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.known.sentence_transformers import SPLADE_POOLING
from onnxembed.facts.modules import module_class, read_module_config
from onnxembed.manifest import Decision, SparseActivation

SPARSE_CLASSES = {"SparseEncoder"}
"""sentence-transformers' classes for models that make sparse embeddings."""

LINEAR_HEAD = "sparse_linear"
"""bge-m3's file with the Linear that gives each token a weight, without its suffix."""

# By sentence-transformers' names; its pooling applies log(1 + x) to the activation's output.
ACTIVATIONS: dict[str, SparseActivation] = {"relu": "log1p_relu", "log1p_relu": "log1p_log1p_relu"}


@dataclass(frozen=True)
class SparseFacts:
    """How logits become weights.

    `head`: the file of a Linear that gives each token a logit; None for the head of a masked language model,
    which gives one for each id of the vocabulary. `dropped_tokens`: special tokens that have no weight, by their
    keys in tokenizer_config.json.
    """

    head: Path | None
    activation: Decision[SparseActivation]
    aggregation: Decision[Literal["max", "sum"]]
    dropped_tokens: Decision[tuple[str, ...]]


def splade(reason: str) -> SparseFacts:
    """SPLADE's definition (https://arxiv.org/abs/2109.10086), which `reason` says to follow."""
    return SparseFacts(
        head=None,
        activation=Decision.default("log1p_relu", reason),
        aggregation=Decision.default("max", reason),
        dropped_tokens=Decision.default((), "SPLADE gives every token a weight"),
    )


def read_linear_head(file: Path) -> SparseFacts:
    """bge-m3's definition: FlagEmbedding, inference/embedder/encoder_only/m3.py."""
    reason = f"{file.name}, as FlagEmbedding reads it"
    return SparseFacts(
        head=file,
        activation=Decision.default("relu", reason),
        aggregation=Decision.default("max", reason),
        dropped_tokens=Decision.default(("cls_token", "eos_token", "pad_token", "unk_token"), reason),
    )


def read_splade(folder: Path, modules: list[dict[str, str]]) -> SparseFacts:
    """What a SparseEncoder does after its Transformer, which gives the logits of a masked language model."""
    if [module_class(module) for module in modules] != ["SpladePooling"]:
        module_types = ", ".join(module["type"] for module in modules) or "nothing"
        raise UnsupportedError(
            f"{folder / 'modules.json'} has {module_types} after the first module of a SparseEncoder, as "
            "config_sentence_transformers.json makes it (model_type); onnxembed builds SpladePooling"
        )
    path = modules[0]["path"]
    return _read_splade_pooling(f"{path}/config.json", read_module_config(folder, path))


def _read_splade_pooling(name: str, config: Mapping[str, Any]) -> SparseFacts:
    """The config of sentence-transformers' SpladePooling module, from the file `name`."""
    SPLADE_POOLING.check(Path(name), config)
    strategy, function = config.get("pooling_strategy", "max"), config.get("activation_function", "relu")
    if strategy not in ("max", "sum"):
        raise ModelFilesError(f"{name}: pooling_strategy is {strategy!r}, not max or sum")
    if function not in ACTIVATIONS:
        raise ModelFilesError(f"{name}: activation_function is {function!r}, not {' or '.join(ACTIVATIONS)}")
    return SparseFacts(
        head=None,
        activation=_stated(config, name, "activation_function", ACTIVATIONS[function]),
        aggregation=_stated(config, name, "pooling_strategy", strategy),
        dropped_tokens=Decision.default((), "SpladePooling gives every token a weight"),
    )


def _stated(config: Mapping[str, Any], name: str, key: str, value: Any) -> Decision[Any]:
    if key in config:
        return Decision.from_file(value, name, f"{key}")
    return Decision.default(value, f"SpladePooling's default ({name} has no {key})")
