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

# Speed options of the Transformer module: they do not change vectors.
TRANSFORMER_HARMLESS = {"unpad_inputs", "backend"}
# Arguments for loading the model, its tokenizer and its config, under their old and new names; of these
# only the ones below leave vectors as they are.
TRANSFORMER_ARGUMENTS = {
    "model_args",
    "model_kwargs",
    "tokenizer_args",
    "processor_kwargs",
    "config_args",
    "config_kwargs",
}
HARMLESS_ARGUMENTS = {
    "add_pooling_layer",
    "attn_implementation",
    "dtype",
    "padding_side",
    "torch_dtype",
    "trust_remote_code",
    "use_safetensors",
}
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
    """A Pooling module: its modes in the order they are concatenated, and the key that says so.

    No modes when its config names none.
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
    similarity: str | None

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
    static = bool(modules) and _kind(modules[0]) == "StaticEmbedding"
    config = (_static_config if static else read_json)(transformer_folder / "config.json")
    if not isinstance(config.get("model_type"), str):
        raise ModelFilesError(f"{transformer_folder / 'config.json'} has no model_type: what model is it?")
    transformer_name, transformer_config = _transformer_config(transformer_folder)
    poolings, dense, normalize = _post_modules(folder, modules[1:])
    st_file = folder / "config_sentence_transformers.json"
    st_config = _optional_json(st_file)
    kind = st_config.get("model_type", "SentenceTransformer")
    if kind != "SentenceTransformer":
        raise UnsupportedError(f"{st_file} says that this is a {kind}; onnxembed exports SentenceTransformer models")
    prompts, default_prompt_name = _prompts(st_config, st_file)
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
        default_prompt_name=default_prompt_name,
        similarity=st_config.get("similarity_fn_name"),
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


def _static_config(path: Path) -> JsonObject:
    """model2vec's config.json. sentence-transformers writes none: there the table's shape says all there is."""
    if path.is_file():
        return read_json(path)
    table = path.with_name("model.safetensors")
    try:
        with table.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        rows, width = header["embedding.weight"]["shape"]
    except (OSError, ValueError, LookupError, TypeError, OverflowError, MemoryError) as error:
        raise ModelFilesError(f"{table} is not the table of a StaticEmbedding: {error!r}") from error
    return {"model_type": "static_embedding", "vocab_size": rows, "hidden_dim": width}


def _modules(folder: Path) -> list[dict[str, str]]:
    """The modules of modules.json in order; empty when the folder has none (a plain transformers model)."""
    path = folder / "modules.json"
    if not path.is_file():
        return []
    try:
        modules: list[dict[str, str]] = json.loads(path.read_text(encoding="utf-8"))
        kinds = [_kind(module) for module in modules]
        places = [(folder / module["path"]).resolve() for module in modules]
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise ModelFilesError(f"{path} is not a list of modules with path and type: {error!r}") from error
    if not kinds or kinds[0] not in ("Transformer", "StaticEmbedding"):
        first = modules[0]["type"] if modules else "nothing"
        raise UnsupportedError(
            f"{path} begins with {first}; onnxembed exports models that begin with a Transformer or a StaticEmbedding"
        )
    for module, place in zip(modules, places, strict=True):
        if not place.is_relative_to(folder.resolve()):
            raise ModelFilesError(f"{path} names {module['path']!r}, which is outside the model's folder")
    return modules


def _kind(module: Mapping[str, str]) -> str:
    """The class name of a sentence-transformers module; its dotted path changed between releases, the name did not.

    A class of another package may share the name and do something else: its full path is returned.
    """
    package, _, _ = module["type"].partition(".")
    return module["type"].rpartition(".")[2] if package == "sentence_transformers" else module["type"]


def _transformer_config(folder: Path) -> tuple[str, JsonObject]:
    for name in TRANSFORMER_CONFIGS:
        if (folder / name).is_file():
            config = read_json(folder / name)
            for key, value in config.items():
                if not _harmless_option(key, value):
                    raise UnsupportedError(f"{folder / name} sets {key} to {value!r}, which onnxembed does not do")
            return name, config
    return TRANSFORMER_CONFIGS[0], {}


def _harmless_option(key: str, value: Any) -> bool:
    """Whether an option of the Transformer module is read elsewhere, or changes nothing."""
    if key in TRANSFORMER_ARGUMENTS:
        return isinstance(value, dict) and value.keys() <= HARMLESS_ARGUMENTS
    if key in TRANSFORMER_EXPECTED:
        return bool(value == TRANSFORMER_EXPECTED[key])
    return key in TRANSFORMER_HARMLESS | {"max_seq_length", "do_lower_case"}


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
            file = folder / module["path"] / "config.json"
            _check_places(file, _optional_json(file))
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
        names = named if isinstance(named, list) else [named]
        if not all(isinstance(mode, str) and mode in POOLING_NAMES for mode in names):
            raise UnsupportedError(f"{folder / name} has pooling_mode {named!r}; known: {', '.join(POOLING_NAMES)}")
        return PoolingFacts(tuple(POOLING_NAMES[mode] for mode in names), f"{name}: pooling_mode")
    flags = [flag for flag in POOLING_FLAGS if config.get(flag)]
    return PoolingFacts(tuple(POOLING_FLAGS[flag] for flag in flags), f"{name}: {', '.join(flags) or 'no mode'}")


def _dense(folder: Path, path: str) -> DenseFacts:
    file = folder / path / "config.json"
    config = read_json(file)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(activation, str) or activation not in DENSE_ACTIVATIONS:
        raise UnsupportedError(f"{file} has activation_function {activation!r}; known: {', '.join(DENSE_ACTIVATIONS)}")
    if config.get("use_residual", False) is not False:
        raise UnsupportedError(f"{file} sets use_residual, which onnxembed does not do")
    known = {"in_features", "out_features", "bias", "activation_function", "use_residual"}
    _check_places(file, {key: value for key, value in config.items() if key not in known})
    sizes = [config.get("in_features"), config.get("out_features")]
    bias = config.get("bias", True)
    if not all(type(size) is int and size > 0 for size in sizes) or not isinstance(bias, bool):
        raise ModelFilesError(f"{file} does not say in_features, out_features and bias: it says {dict(config)!r}")
    return DenseFacts(config["in_features"], config["out_features"], bias, DENSE_ACTIVATIONS[activation], folder / path)


def _check_places(file: Path, config: JsonObject) -> None:
    """Refuse a module that reads or writes anything but the sentence embedding."""
    for key, value in config.items():
        default = key == "module_output_name" and value is None
        if key not in ("module_input_name", "module_output_name") or not (default or value == "sentence_embedding"):
            raise UnsupportedError(f"{file} sets {key} to {value!r}, which onnxembed does not do")


def _prompts(config: JsonObject, path: Path) -> tuple[Mapping[str, str], str | None]:
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelFilesError(f"{path}: prompts must map names to texts")
    default = config.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise ModelFilesError(f"{path}: default_prompt_name {default!r} is not among its prompts")
    return prompts, default
