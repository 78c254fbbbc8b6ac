"""What modules.json and the configs of a model's modules say, read but not yet judged. Standard library only.

Reads both generations of sentence-transformers files: pooling as booleans or as one string, module types of
every release. An unknown key or module is an error: ignoring it could silently change vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.json_file import JsonObject, read_json, read_optional_json
from onnxembed.manifest import POOLING_MODES, PoolingMode

# jina-embeddings-v3's own first module: a Transformer that also takes the task of each text, whose adapter
# `--adapter` merges. Other models have a module of that name that does something else.
JINA_TRANSFORMER = "custom_st.Transformer"

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
    """A Pooling module: its modes in the order they are concatenated, and the key that names them.

    `modes` is empty if its config names none.
    """

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


def read_modules(folder: Path) -> list[dict[str, str]]:
    """The modules of modules.json in order; empty when the folder has none (a plain transformers model)."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        classes = [module_class(module) for module in modules]
        places = [(folder / module["path"]).resolve() for module in modules]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelFilesError(f"{path} is not a list of modules with path and type: {error!r}") from error
    first_modules = {"Transformer", "MLMTransformer", "StaticEmbedding"}
    if places and "lora_adaptations" in read_optional_json(places[0] / "config.json"):
        first_modules.add(JINA_TRANSFORMER)
    if not classes or classes[0] not in first_modules:
        first = modules[0]["type"] if modules else "nothing"
        raise UnsupportedError(
            f"{path} begins with {first}; onnxembed exports models that begin with a Transformer or a StaticEmbedding"
        )
    for module, place in zip(modules, places, strict=True):
        if not place.is_relative_to(folder.resolve()):
            raise ModelFilesError(f"{path} names {module['path']!r}, which is outside the model's folder")
    return modules


def module_class(module: Mapping[str, str]) -> str:
    """The class name of a sentence-transformers module; its dotted path changed between releases, but not the name.

    A class of another package keeps its full path, because it may share the name and do something else.
    """
    package, _, _ = module["type"].partition(".")
    return module["type"].rpartition(".")[2] if package == "sentence_transformers" else module["type"]


def read_post_modules(
    folder: Path, modules: list[dict[str, str]]
) -> tuple[tuple[PoolingFacts, ...], tuple[DenseFacts, ...], bool]:
    """Pooling, then Dense layers, then Normalize: the only order onnxembed builds."""
    order = {"Pooling": 0, "Dense": 1, "Dropout": 1, "Normalize": 2}
    poolings: list[PoolingFacts] = []
    dense: list[DenseFacts] = []
    normalize = False
    stage = 0
    for module in modules:
        class_name = module_class(module)
        if class_name not in order:
            raise UnsupportedError(
                f"{folder / 'modules.json'} has a {module['type']} module; "
                "onnxembed builds Transformer, Pooling, Dense, Dropout and Normalize"
            )
        if order[class_name] < stage:
            raise UnsupportedError(
                f"{folder / 'modules.json'} has a {class_name} module after a later stage; "
                "onnxembed builds Pooling, then Dense, then Normalize"
            )
        stage = order[class_name]
        if class_name == "Pooling":
            poolings.append(_pooling(folder, module["path"]))
        elif class_name == "Dense":
            dense.append(read_dense(folder, module["path"]))
        elif class_name == "Normalize":
            file = folder / module["path"] / "config.json"
            check_places(file, read_optional_json(file))
            normalize = True
    return tuple(poolings), tuple(dense), normalize


def _pooling(folder: Path, path: str) -> PoolingFacts:
    name = f"{path}/config.json"
    config = read_json(folder / name)
    known_keys = {"word_embedding_dimension", "embedding_dimension", "include_prompt", "pooling_mode", "output_key"}
    unknown = config.keys() - known_keys - POOLING_FLAGS.keys()
    if unknown:
        raise UnsupportedError(f"{folder / name} has keys that onnxembed does not know: {', '.join(sorted(unknown))}")
    if config.get("include_prompt", True) is not True:
        raise UnsupportedError(
            f"{folder / name} leaves the prompt out of the pooling (include_prompt: false), "
            "which onnxembed does not support"
        )
    named = config.get("pooling_mode")
    if named is not None:
        names = named if isinstance(named, list) else [named]
        if not all(isinstance(mode, str) and mode in POOLING_NAMES for mode in names):
            raise UnsupportedError(f"{folder / name} has pooling_mode {named!r}; known: {', '.join(POOLING_NAMES)}")
        return PoolingFacts(tuple(POOLING_NAMES[mode] for mode in names), f"{name}: pooling_mode")
    flags = [flag for flag in POOLING_FLAGS if config.get(flag)]
    return PoolingFacts(tuple(POOLING_FLAGS[flag] for flag in flags), f"{name}: {', '.join(flags) or 'no mode'}")


def read_dense(folder: Path, path: str, place: str = "sentence_embedding") -> DenseFacts:
    """The Dense module in the folder `path`, which reads and writes `place`."""
    file = folder / path / "config.json"
    config = read_json(file)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(activation, str) or activation not in DENSE_ACTIVATIONS:
        raise UnsupportedError(f"{file} has activation_function {activation!r}; known: {', '.join(DENSE_ACTIVATIONS)}")
    if config.get("use_residual", False) is not False:
        raise UnsupportedError(f"{file} sets use_residual, which onnxembed does not support")
    known_keys = {"in_features", "out_features", "bias", "activation_function", "use_residual"}
    check_places(file, {key: value for key, value in config.items() if key not in known_keys}, place)
    sizes = [config.get("in_features"), config.get("out_features")]
    bias = config.get("bias", True)
    if not all(type(size) is int and size > 0 for size in sizes) or not isinstance(bias, bool):
        raise ModelFilesError(f"{file} does not say in_features, out_features and bias: it says {dict(config)!r}")
    return DenseFacts(config["in_features"], config["out_features"], bias, DENSE_ACTIVATIONS[activation], folder / path)


def check_places(file: Path, config: JsonObject, place: str = "sentence_embedding") -> None:
    """Raise UnsupportedError for a module that reads or writes anything but `place`."""
    for key, value in config.items():
        default = key == "module_output_name" and value is None
        if key not in ("module_input_name", "module_output_name") or not (default or value == place):
            raise UnsupportedError(f"{file} sets {key} to {value!r}, which onnxembed does not support")
