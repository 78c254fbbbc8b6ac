"""What modules.json and the configs of a model's modules say, read but not yet judged. Standard library only.

Reads both generations of sentence-transformers files: pooling as booleans or as one string, module types of
every release. An unknown key or module is an error: ignoring it could silently change vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.known.sentence_transformers import (
    DENSE,
    DROPOUT,
    LAYER_NORM,
    MODULES,
    NORMALIZE,
    POOLING,
    WEIGHTED_LAYER_POOLING,
)
from onnxembed.foreign_errors import foreign_errors
from onnxembed.json_file import JsonObject, read_any_json, read_json, read_optional_json
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

# torch's class for each activation that a Dense module may name, made without arguments, and the name in manifests.
DENSE_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.ELU": "elu",
    "torch.nn.modules.activation.GELU": "gelu",
    "torch.nn.modules.activation.Hardsigmoid": "hardsigmoid",
    "torch.nn.modules.activation.Hardswish": "hardswish",
    "torch.nn.modules.activation.Hardtanh": "hardtanh",
    "torch.nn.modules.activation.LeakyReLU": "leaky_relu",
    "torch.nn.modules.activation.Mish": "mish",
    "torch.nn.modules.activation.ReLU": "relu",
    "torch.nn.modules.activation.ReLU6": "relu6",
    "torch.nn.modules.activation.SELU": "selu",
    "torch.nn.modules.activation.SiLU": "silu",
    "torch.nn.modules.activation.Sigmoid": "sigmoid",
    "torch.nn.modules.activation.Softmax": "softmax",
    "torch.nn.modules.activation.Softplus": "softplus",
    "torch.nn.modules.activation.Softsign": "softsign",
    "torch.nn.modules.activation.Tanh": "tanh",
}
# torch's shorter names of these classes.
SHORT_ACTIVATIONS = {f"torch.nn.{name.rpartition('.')[2]}": value for name, value in DENSE_ACTIVATIONS.items()}
ACTIVATION_NAMES: Mapping[str, str] = {**DENSE_ACTIVATIONS, **SHORT_ACTIVATIONS}


@dataclass(frozen=True)
class PoolingFacts:
    """A Pooling module: its modes in the order they are concatenated, and the key that names them.

    `modes` is empty if its config names none. `include_prompt`: whether the tokens of a prompt are pooled, too.
    """

    modes: tuple[PoolingMode, ...]
    reason: str
    include_prompt: bool = True


@dataclass(frozen=True)
class DenseFacts:
    """A Dense module: shape (out_features, in_features), and the folder of its weights.

    `residual`: its input is added to its output, through a Linear of its own where the two have other widths.
    """

    in_features: int
    out_features: int
    bias: bool
    activation: str
    folder: Path
    residual: bool = False


@dataclass(frozen=True)
class LayerNormFacts:
    """A LayerNorm module: its width, and the folder of its weights."""

    width: int
    folder: Path


@dataclass(frozen=True)
class NormalizeFacts:
    """A Normalize module, which scales every vector to length 1."""


@dataclass(frozen=True)
class WeightedLayerPoolingFacts:
    """A WeightedLayerPooling module: the folder of the weights by which it averages the outputs of layers.

    `layer_start`: the first of them, 0 for the embeddings of the tokens; `count`: how many there are, to the last one.
    """

    layer_start: int
    count: int
    folder: Path


Layer = DenseFacts | LayerNormFacts | NormalizeFacts | WeightedLayerPoolingFacts
"""A module that changes vectors one by one, or puts others in their place."""


@dataclass(frozen=True)
class PostModules:
    """What stands after the first module, in order: layers of token embeddings, Pooling, layers of what it gives."""

    token_layers: tuple[Layer, ...]
    poolings: tuple[PoolingFacts, ...]
    layers: tuple[Layer, ...]
    normalize: bool
    """Whether the vectors are scaled to length 1 at the end; this Normalize is not among the `layers`."""
    dense: tuple[DenseFacts, ...]
    """The Dense modules among the `layers`."""
    only_dense: bool
    """Whether nothing but plain Dense modules follows the pooling, which the runtime can apply, too."""


def width_after(layers: Sequence[Layer], width: int) -> int:
    """The width of vectors of this width that went through the layers; ModelFilesError for layers of another width."""
    for layer in layers:
        taken = layer.in_features if isinstance(layer, DenseFacts) else getattr(layer, "width", width)
        if taken != width:
            folder = getattr(layer, "folder", None)
            raise ModelFilesError(f"{folder}/config.json takes {taken} features, but gets {width}")
        width = layer.out_features if isinstance(layer, DenseFacts) else width
    return width


def read_modules(folder: Path) -> list[dict[str, str]]:
    """The modules of modules.json in order; empty when the folder has none (a plain transformers model)."""
    path = folder / "modules.json"
    if not path.is_file() and not path.is_symlink():
        return []
    with foreign_errors(f"{path} is not a list of modules with path and type"):
        modules: list[dict[str, str]] = read_any_json(path)
        classes = [module_class(module) for module in modules]
        places = [(folder / module["path"]).resolve() for module in modules]
        for place in places:
            place.exists()  # raises for a name that no file system takes
    first_modules = {"Transformer", "MLMTransformer", "StaticEmbedding"}
    if places and "lora_adaptations" in read_optional_json(places[0] / "config.json"):
        first_modules.add(JINA_TRANSFORMER)
    if not classes or classes[0] not in first_modules:
        first = modules[0]["type"] if modules else "nothing"
        raise UnsupportedError(
            f"{path} begins with {first}; onnxembed exports models that begin with a Transformer or a StaticEmbedding"
        )
    for module, place in zip(modules, places, strict=True):
        MODULES.check(path, module)
        if not place.is_relative_to(folder.resolve()):
            raise ModelFilesError(f"{path} names {module['path']!r}, which is outside the model's folder")
    _check_apart(path, modules, places)
    return modules


def _check_apart(path: Path, modules: list[dict[str, str]], places: Sequence[Path]) -> None:
    """Refuse modules that share a name, of which sentence-transformers keeps one, or a folder with a config.json."""
    names = [module["name"] for module in modules if "name" in module]
    for name in names:
        if names.count(name) > 1:
            raise ModelFilesError(f"{path} names several modules {name!r}, of which the reference keeps the last")
    for module, place in zip(modules, places, strict=True):
        if places.count(place) > 1 and (place / "config.json").is_file():
            raise ModelFilesError(f"{path} has several modules in the folder {module['path']!r}, with one config.json")


def module_class(module: Mapping[str, str]) -> str:
    """The class name of a sentence-transformers module; its dotted path changed between releases, but not the name.

    A class of another package keeps its full path, because it may share the name and do something else.
    """
    package, _, _ = module["type"].partition(".")
    return module["type"].rpartition(".")[2] if package == "sentence_transformers" else module["type"]


def read_post_modules(folder: Path, modules: list[dict[str, str]], config: JsonObject) -> PostModules:
    """The modules after the first one, whose config.json is `config`.

    Raises UnsupportedError for a module, or an order, that onnxembed does not build.
    """
    classes = [module_class(module) for module in modules]
    first_pooling = classes.index("Pooling") if "Pooling" in classes else 0
    token_layers: list[Layer] = []
    poolings: list[PoolingFacts] = []
    layers: list[Layer] = []
    for index, (module, class_name) in enumerate(zip(modules, classes, strict=True)):
        of_tokens = index < first_pooling
        if class_name == "Pooling" and layers:
            raise UnsupportedError(f"{folder / 'modules.json'} pools what is pooled already, after other modules")
        if class_name == "WeightedLayerPooling" and of_tokens and config.get("output_hidden_states"):
            if token_layers:
                raise UnsupportedError(f"{folder / 'modules.json'} averages layers after modules that change the last")
            token_layers.append(_weighted_layers(folder, module["path"]))
        elif class_name == "Pooling":
            poolings.append(_pooling(folder, module["path"]))
        elif class_name in LAYER_READERS:
            place = "token_embeddings" if of_tokens else "sentence_embedding"
            layer = LAYER_READERS[class_name](folder, module["path"], place)
            (token_layers if of_tokens else layers).append(layer)
        elif class_name in UNCHANGING:
            UNCHANGING[class_name](folder, module["path"])
        else:
            raise UnsupportedError(
                f"{folder / 'modules.json'} has a {module['type']} module; "
                f"onnxembed builds Transformer, Pooling, {', '.join((*LAYER_READERS, *UNCHANGING))}"
            )
    normalize = bool(layers) and isinstance(layers[-1], NormalizeFacts)
    while layers and isinstance(layers[-1], NormalizeFacts):
        layers.pop()
    dense = tuple(layer for layer in layers if isinstance(layer, DenseFacts))
    only_dense = len(dense) == len(layers) and not any(layer.residual for layer in dense)
    return PostModules(tuple(token_layers), tuple(poolings), tuple(layers), normalize, dense, only_dense)


def read_module_config(folder: Path, path: str) -> JsonObject:
    """The config.json of a module in the folder `path`; ModelFilesError, also for a folder that is not there."""
    if not (folder / path).is_dir():
        raise ModelFilesError(f"{folder / 'modules.json'} names the folder {path!r}, which is not there")
    return read_json(folder / path / "config.json")


def _pooling(folder: Path, path: str) -> PoolingFacts:
    name = f"{path}/config.json"
    config = read_module_config(folder, path)
    POOLING.check(folder / name, config)
    include_prompt = config.get("include_prompt", True)
    if not isinstance(include_prompt, bool):
        raise ModelFilesError(f"{folder / name}: include_prompt is {include_prompt!r}, not true or false")
    named = config.get("pooling_mode")
    if named is not None:
        names = named if isinstance(named, list) else [named]
        if not all(isinstance(mode, str) and mode in POOLING_NAMES for mode in names):
            raise UnsupportedError(f"{folder / name} has pooling_mode {named!r}; known: {', '.join(POOLING_NAMES)}")
        return PoolingFacts(tuple(POOLING_NAMES[mode] for mode in names), f"{name}: pooling_mode", include_prompt)
    flags = [flag for flag in POOLING_FLAGS if config.get(flag)]
    reason = f"{name}: {', '.join(flags) or 'no mode'}"
    return PoolingFacts(tuple(POOLING_FLAGS[flag] for flag in flags), reason, include_prompt)


def read_dense(folder: Path, path: str, place: str = "sentence_embedding") -> DenseFacts:
    """The Dense module in the folder `path`, which reads and writes `place`."""
    file = folder / path / "config.json"
    config = read_module_config(folder, path)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(activation, str) or activation not in ACTIVATION_NAMES:
        raise UnsupportedError(f"{file} has activation_function {activation!r}; known: {', '.join(DENSE_ACTIVATIONS)}")
    if ACTIVATION_NAMES[activation] == "softmax" and place == "token_embeddings":
        raise UnsupportedError(
            f"{file}: a Softmax of token embeddings is taken over the texts of a batch, so that a text's vector "
            "depends on the others; onnxembed does not build it"
        )
    DENSE.check(file, config)
    check_places(file, config, place)
    sizes = (config.get("in_features"), config.get("out_features"))
    bias, residual = config.get("bias", True), config.get("use_residual", False)
    if not all(type(size) is int and size > 0 for size in sizes) or {type(bias), type(residual)} != {bool}:
        raise ModelFilesError(f"{file} does not say in_features, out_features and bias: it says {dict(config)!r}")
    return DenseFacts(
        config["in_features"], config["out_features"], bias, ACTIVATION_NAMES[activation], folder / path, residual
    )


def _dense_layer(folder: Path, path: str, place: str) -> DenseFacts:
    file = folder / path / "config.json"
    if place == "token_embeddings" and read_module_config(folder, path).get("module_input_name") != place:
        raise UnsupportedError(f"{file} takes sentence_embedding before the pooling, where there is none")
    return read_dense(folder, path, place)


def _layer_norm(folder: Path, path: str, place: str) -> LayerNormFacts:
    file = folder / path / "config.json"
    config = read_module_config(folder, path)
    width = config.get("dimension")
    LAYER_NORM.check(file, config)
    if type(width) is not int or width < 1:
        raise ModelFilesError(f"{file}: dimension is {width!r}, not the width of a LayerNorm")
    if place != "sentence_embedding":
        raise UnsupportedError(f"{file} is of a LayerNorm before the pooling, where there is no sentence_embedding")
    return LayerNormFacts(width, folder / path)


def _normalize(folder: Path, path: str, place: str) -> NormalizeFacts:
    file = folder / path / "config.json"
    config = read_optional_json(file)
    NORMALIZE.check(file, config)
    if place == "token_embeddings" and config.get("module_input_name") != place:
        raise UnsupportedError(f"{file} normalizes sentence_embedding before the pooling, where there is none")
    check_places(file, config, place)
    return NormalizeFacts()


# By sentence-transformers' class: folder, path of the module, and what it reads and writes.
LAYER_READERS: dict[str, Callable[[Path, str, str], Layer]] = {
    "Dense": _dense_layer,
    "LayerNorm": _layer_norm,
    "Normalize": _normalize,
}


def _dropout(folder: Path, path: str) -> None:
    file = folder / path / "config.json"
    DROPOUT.check(file, read_optional_json(file))


def _weighted_layers(folder: Path, path: str) -> WeightedLayerPoolingFacts:
    file = folder / path / "config.json"
    config = read_module_config(folder, path)
    WEIGHTED_LAYER_POOLING.check(file, config)
    layers, start = config.get("num_hidden_layers", 12), config.get("layer_start", 4)
    if type(layers) is not int or type(start) is not int or not 0 <= start <= layers:
        raise ModelFilesError(f"{file}: layer_start is {start!r} of num_hidden_layers {layers!r}")
    return WeightedLayerPoolingFacts(start, layers + 1 - start, folder / path)


# Modules that give what they get, by their folder. sentence-transformers gives WeightedLayerPooling the layers only
# where config.json has output_hidden_states.
UNCHANGING: dict[str, Callable[[Path, str], object]] = {
    "Dropout": _dropout,
    "WeightedLayerPooling": _weighted_layers,
}


def check_places(file: Path, config: JsonObject, place: str = "sentence_embedding") -> None:
    """Raise UnsupportedError for a module that reads or writes anything but `place`."""
    for key in ("module_input_name", "module_output_name"):
        value = config.get(key)
        if key in config and not (value == place or (key == "module_output_name" and value is None)):
            raise UnsupportedError(f"{file} sets {key} to {value!r}, which onnxembed does not support")
