"""What a model's own files say, read but not yet judged. Standard library only.

Reads both generations of sentence-transformers files: pooling as booleans or as one string, module
types of every release, max_seq_length in sentence_bert_config.json or only in tokenizer_config.json.
A key or module that is not known here is an error: dropping it would change vectors in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.manifest import POOLING_MODES, PoolingMode

JsonObject = Mapping[str, Any]

# Older releases named this file after the architecture.
TRANSFORMER_CONFIGS = (
    "sentence_bert_config.json",
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
)

# Loading and speed options of the Transformer module: they do not change vectors.
TRANSFORMER_HARMLESS = {"model_args", "tokenizer_args", "config_args", "unpad_inputs", "backend"}
# Values that say what is assumed anyway.
TRANSFORMER_EXPECTED: dict[str, Any] = {
    "transformer_task": "feature-extraction",
    "module_output_name": "token_embeddings",
    "modality_config": {"text": {"method": "forward", "method_output_name": "last_hidden_state"}},
    "query_length": None,
    "document_length": None,
    "query_expansion": None,
    "processing_kwargs": {},
}

POOLING_FLAGS: dict[str, PoolingMode] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
POOLING_NAMES: dict[str, PoolingMode] = {mode: mode for mode in POOLING_MODES} | {
    "mean_sqrt_len_tokens": "mean_sqrt_len"
}

# torch's class for each activation that a Dense module may name, and the name used in manifests.
DENSE_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
}


@dataclass(frozen=True)
class PoolingFacts:
    """A Pooling module: its modes in the order they are concatenated, and the key that says so."""

    modes: tuple[PoolingMode, ...]
    reason: str


@dataclass(frozen=True)
class DenseFacts:
    """A Dense module: shape (out_features, in_features), and the folder of its weights."""

    in_features: int
    out_features: int
    bias: bool
    activation: str
    folder: Path


@dataclass(frozen=True)
class Facts:
    """What the files of one checkpoint say. None means that they do not say it."""

    folder: Path
    transformer_folder: Path
    config: JsonObject
    tokenizer_config: JsonObject
    transformer_config: JsonObject
    transformer_config_name: str
    has_modules: bool
    poolings: tuple[PoolingFacts, ...]
    dense: tuple[DenseFacts, ...]
    normalize: bool
    prompts: Mapping[str, str]
    default_prompt_name: str | None

    @property
    def model_type(self) -> str:
        """config.json's model_type."""
        return str(self.config["model_type"])


def read_facts(folder: Path) -> Facts:
    """Read what a checkpoint folder's files say.

    Raises ModelFilesError for files that are missing or not JSON objects, UnsupportedError for modules
    and options that onnxembed does not do; both name the file and the key.
    """
    if not folder.is_dir():
        raise ModelFilesError(f"no folder at {folder}")
    modules = _modules(folder)
    transformer_folder = folder / (modules[0]["path"] if modules else "")
    config = read_json(transformer_folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelFilesError(f"{transformer_folder / 'config.json'} has no model_type: what model is it?")
    transformer_name, transformer_config = _transformer_config(transformer_folder)
    poolings, dense, normalize = _post_modules(folder, modules[1:])
    prompts_config = _optional_json(folder / "config_sentence_transformers.json")
    prompts = _prompts(prompts_config, folder / "config_sentence_transformers.json")
    return Facts(
        folder=folder,
        transformer_folder=transformer_folder,
        config=config,
        tokenizer_config=_optional_json(transformer_folder / "tokenizer_config.json"),
        transformer_config=transformer_config,
        transformer_config_name=transformer_name,
        has_modules=bool(modules),
        poolings=poolings,
        dense=dense,
        normalize=normalize,
        prompts=prompts,
        default_prompt_name=prompts_config.get("default_prompt_name"),
    )


def read_json(path: Path) -> JsonObject:
    """Read a JSON object from a file; ModelFilesError when it is absent or something else."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelFilesError(f"{path.parent} has no {path.name}") from None
    except (OSError, ValueError) as error:
        raise ModelFilesError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ModelFilesError(f"{path} is not a JSON object")
    return value


def _optional_json(path: Path) -> JsonObject:
    return read_json(path) if path.is_file() else {}


def _modules(folder: Path) -> list[dict[str, str]]:
    """The modules of modules.json in order; empty when the folder has none (a plain transformers model)."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules = json.loads(path.read_text(encoding="utf-8"))
        modules = sorted(modules, key=lambda module: module["idx"])
        kinds = [_kind(module) for module in modules]
        paths = [module["path"] for module in modules]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFilesError(f"{path} is not a list of modules with idx, path and type: {error!r}") from error
    if not kinds or kinds[0] != "Transformer":
        first = kinds[0] if kinds else "nothing"
        raise UnsupportedError(f"{path} begins with {first}; onnxembed exports models that begin with a Transformer")
    for module_path in paths:
        if not (folder / module_path).resolve().is_relative_to(folder.resolve()):
            raise ModelFilesError(f"{path} names {module_path!r}, which is outside the model's folder")
    return modules


def _kind(module: Mapping[str, str]) -> str:
    """The class name of a module; its dotted path changed between releases, the name did not."""
    return module["type"].rsplit(".", 1)[-1]


def _transformer_config(folder: Path) -> tuple[str, JsonObject]:
    for name in TRANSFORMER_CONFIGS:
        if (folder / name).is_file():
            config = read_json(folder / name)
            known = {"max_seq_length", "do_lower_case"} | TRANSFORMER_HARMLESS | TRANSFORMER_EXPECTED.keys()
            for key, value in config.items():
                if key not in known or (key in TRANSFORMER_EXPECTED and value != TRANSFORMER_EXPECTED[key]):
                    raise UnsupportedError(f"{folder / name} sets {key} to {value!r}, which onnxembed does not do")
            return name, config
    return TRANSFORMER_CONFIGS[0], {}


def _post_modules(
    folder: Path, modules: list[dict[str, str]]
) -> tuple[tuple[PoolingFacts, ...], tuple[DenseFacts, ...], bool]:
    """Pooling, then Dense layers, then Normalize: the only order onnxembed builds."""
    order = {"Pooling": 0, "Dense": 1, "Dropout": 1, "Normalize": 2}
    poolings: list[PoolingFacts] = []
    dense: list[DenseFacts] = []
    normalize = False
    stage = 0
    for module in modules:
        kind = _kind(module)
        if kind not in order:
            raise UnsupportedError(
                f"{folder / 'modules.json'} has a {module['type']} module; "
                "onnxembed builds Transformer, Pooling, Dense, Dropout and Normalize"
            )
        if order[kind] < stage:
            raise UnsupportedError(
                f"{folder / 'modules.json'} has a {kind} module after a later stage; "
                "onnxembed builds Pooling, then Dense, then Normalize"
            )
        stage = order[kind]
        if kind == "Pooling":
            poolings.append(_pooling(folder, module["path"]))
        elif kind == "Dense":
            dense.append(_dense(folder, module["path"]))
        elif kind == "Normalize":
            normalize = True
    return tuple(poolings), tuple(dense), normalize


def _pooling(folder: Path, path: str) -> PoolingFacts:
    name = f"{path}/config.json"
    config = read_json(folder / name)
    known = {"word_embedding_dimension", "embedding_dimension", "include_prompt", "pooling_mode", "output_key"}
    unknown = config.keys() - known - POOLING_FLAGS.keys()
    if unknown:
        raise UnsupportedError(f"{folder / name} has keys that onnxembed does not know: {', '.join(sorted(unknown))}")
    if config.get("include_prompt", True) is not True:
        raise UnsupportedError(
            f"{folder / name} leaves the prompt out of the pooling (include_prompt: false), which onnxembed does not do"
        )
    named = config.get("pooling_mode")
    if named is not None:
        names = [named] if isinstance(named, str) else list(named)
        unknown = {str(mode) for mode in names} - POOLING_NAMES.keys()
        if unknown or not names:
            raise UnsupportedError(f"{folder / name} has pooling_mode {named!r}; known: {', '.join(POOLING_NAMES)}")
        return PoolingFacts(tuple(POOLING_NAMES[mode] for mode in names), f"{name}: pooling_mode")
    flags = [flag for flag in POOLING_FLAGS if config.get(flag)]
    if not flags:
        raise ModelFilesError(f"{folder / name} names no pooling mode; pass --pooling")
    return PoolingFacts(tuple(POOLING_FLAGS[flag] for flag in flags), f"{name}: {', '.join(flags)}")


def _dense(folder: Path, path: str) -> DenseFacts:
    file = folder / path / "config.json"
    config = dict(read_json(file))
    activation = config.pop("activation_function", "torch.nn.modules.activation.Tanh")
    if activation not in DENSE_ACTIVATIONS:
        raise UnsupportedError(f"{file} has activation_function {activation!r}; known: {', '.join(DENSE_ACTIVATIONS)}")
    try:
        in_features, out_features = int(config.pop("in_features")), int(config.pop("out_features"))
    except KeyError as missing:
        raise ModelFilesError(f"{file} has no {missing.args[0]}") from None
    bias = bool(config.pop("bias", True))
    expected = {"module_input_name": "sentence_embedding", "module_output_name": None, "use_residual": False}
    for key, value in config.items():
        same_place = key == "module_output_name" and value == "sentence_embedding"
        if not same_place and (key not in expected or value != expected[key]):
            raise UnsupportedError(f"{file} sets {key} to {value!r}, which onnxembed does not do")
    return DenseFacts(in_features, out_features, bias, DENSE_ACTIVATIONS[activation], folder / path)


def _prompts(config: JsonObject, path: Path) -> Mapping[str, str]:
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelFilesError(f"{path}: prompts must map names to texts")
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise ModelFilesError(f"{path}: default_prompt_name {default!r} is not among its prompts")
    return prompts
