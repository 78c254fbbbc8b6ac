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

from onnxembed import multi_vector_facts, sparse_facts
from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.manifest import POOLING_MODES, PoolingMode
from onnxembed.multi_vector_facts import MultiVectorFacts
from onnxembed.sparse_facts import SparseFacts

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

# jina-embeddings-v3's own first module: a Transformer that also takes the task of each text, whose adapter
# `--adapter` merges. Other models have one of that name that does other things.
JINA_TRANSFORMER = "custom_st.Transformer"

# PyLate's classes that are sentence-transformers' own.
PYLATE_KINDS = {"pylate.models.Dense.Dense": "Dense"}

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

# The same of a CrossEncoder, by its transformer_task; a plain language model is read with LogitScore.
CROSS_ENCODER_EXPECTED: dict[str, dict[str, Any]] = {
    "sequence-classification": {
        "module_output_name": "scores",
        "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
    },
    "text-generation": {
        "module_output_name": "causal_logits",
        "modality_config": {
            "text": {"method": "forward", "method_output_name": "logits"},
            "message": {"method": "forward", "method_output_name": "logits", "format": "flat"},
        },
    },
}

# The same of a SparseEncoder.
SPARSE_EXPECTED: dict[str, Any] = {
    "transformer_task": "fill-mask",
    "modality_config": {"text": {"method": "forward", "method_output_name": "logits"}},
}
# What a MultiVectorEncoder's Transformer module also has, and `multi_vector_facts` reads.
MULTI_VECTOR_OPTIONS = {"query_length", "document_length", "query_expansion"}

# The kinds of models of sentence-transformers, and of PyLate (ColBERT), whose modules make no sentence embedding.
SPARSE_KINDS = {"SparseEncoder"}
MULTI_VECTOR_KINDS = {"MultiVectorEncoder", "ColBERT"}
# Every file that the Linear of a bge-m3 head may stand in.
LINEAR_FORMATS = (".safetensors", ".pt")

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
    kind: str | None = None
    """sentence-transformers' class for the folder."""
    activation_fn: str | None = None
    """What config_sentence_transformers.json calls the class that makes scores of logits."""
    sparse: SparseFacts | None = None
    multi_vector: MultiVectorFacts | None = None
    answers: tuple[int, ...] | None = None
    """The ids of a LogitScore module: the token whose logit is the score, and the one whose logit is taken off."""

    @property
    def model_type(self) -> str:
        """config.json's model_type, but for a model that goes by another's name.

        jina-embeddings-v3 calls itself xlm-roberta, which has no rotary positions.
        """
        name = str(self.config["model_type"])
        rotary = self.config.get("position_embedding_type") == "rotary"
        return "jina_embeddings_v3" if name == "xlm-roberta" and rotary else name

    @property
    def adapters(self) -> tuple[str, ...]:
        """The tasks that the checkpoint has an adapter for, in the order in which their weights are stacked."""
        tasks = self.config.get("lora_adaptations") or []
        if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
            file = self.transformer_folder / "config.json"
            raise ModelFilesError(f"{file}: lora_adaptations is {tasks!r}, not a list of names")
        return tuple(tasks)


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
    st_file = folder / "config_sentence_transformers.json"
    st_config = _optional_json(st_file)
    kind = st_config.get("model_type", "SentenceTransformer")
    cross_encoder = kind == "CrossEncoder"
    transformer_name, transformer_config = _transformer_config(transformer_folder, cross_encoder, kind)
    answers = _answers(folder, modules[1:]) if cross_encoder else None
    sparse = multi_vector = None
    others: list[dict[str, str]] = [] if cross_encoder else modules[1:]
    if kind in SPARSE_KINDS:
        sparse, others = _splade(folder, others), []
    elif kind in MULTI_VECTOR_KINDS:
        multi_vector, others = _multi_vector(folder, others, transformer_name, transformer_config), []
    elif "HF_ColBERT" in (config.get("architectures") or ()) and not modules:
        multi_vector = multi_vector_facts.read_stanford(read_json(folder / multi_vector_facts.STANFORD_METADATA))
    else:
        sparse, multi_vector = _linear_heads(folder)
    poolings, dense, normalize = _post_modules(folder, others)
    if kind not in {"SentenceTransformer", "CrossEncoder", *SPARSE_KINDS, *MULTI_VECTOR_KINDS}:
        raise UnsupportedError(f"{st_file} says that this is a {kind}; onnxembed exports SentenceTransformer models")
    prompts, default_prompt_name = _prompts(st_config, st_file)
    for name, marker in multi_vector.markers.items() if multi_vector else ():
        prompts = {**prompts, name: marker + prompts.get(name, "").removeprefix(marker)}
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
        kind=st_config.get("model_type"),
        activation_fn=st_config.get("activation_fn"),
        sparse=sparse,
        multi_vector=multi_vector,
        answers=answers,
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
    first_modules = {"Transformer", "MLMTransformer", "StaticEmbedding"}
    if places and "lora_adaptations" in _optional_json(places[0] / "config.json"):
        first_modules.add(JINA_TRANSFORMER)
    if not kinds or kinds[0] not in first_modules:
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


def _transformer_config(folder: Path, cross_encoder: bool, kind: str) -> tuple[str, JsonObject]:
    for name in TRANSFORMER_CONFIGS:
        if (folder / name).is_file():
            config = read_json(folder / name)
            expected = TRANSFORMER_EXPECTED
            if cross_encoder and (task := config.get("transformer_task")) in CROSS_ENCODER_EXPECTED:
                expected = {**expected, **CROSS_ENCODER_EXPECTED[task], "transformer_task": task}
            if kind in SPARSE_KINDS:
                expected = {**expected, **SPARSE_EXPECTED}
            if kind in MULTI_VECTOR_KINDS:
                expected = {**expected, **{key: config.get(key) for key in MULTI_VECTOR_OPTIONS}}
            for key, value in config.items():
                if not _harmless_option(key, value, expected):
                    raise UnsupportedError(f"{folder / name} sets {key} to {value!r}, which onnxembed does not do")
            return name, config
    return TRANSFORMER_CONFIGS[0], {}


def _harmless_option(key: str, value: Any, expected: Mapping[str, Any]) -> bool:
    """Whether an option of the Transformer module is read elsewhere, or changes nothing."""
    if key in TRANSFORMER_ARGUMENTS:
        return isinstance(value, dict) and value.keys() <= HARMLESS_ARGUMENTS
    if key in expected:
        return bool(value == expected[key])
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


def _answers(folder: Path, modules: list[dict[str, str]]) -> tuple[int, ...] | None:
    """What a CrossEncoder does after its Transformer: nothing, or LogitScore, whose token ids are returned."""
    if not modules:
        return None
    if [_kind(module) for module in modules] != ["LogitScore"]:
        kinds = ", ".join(module["type"] for module in modules)
        file = folder / "modules.json"
        raise UnsupportedError(f"{file} has {kinds} after a CrossEncoder's Transformer; onnxembed builds LogitScore")
    file = folder / modules[0]["path"] / "config.json"
    config = read_json(file)
    ids = tuple(config[key] for key in ("true_token_id", "false_token_id") if config.get(key) is not None)
    known = {"true_token_id", "false_token_id", "module_input_name"}
    if not ids or not all(type(each) is int for each in ids) or config.keys() - known:
        raise UnsupportedError(f"{file} says {dict(config)!r}, not the ids true_token_id and false_token_id alone")
    return ids


def _splade(folder: Path, modules: list[dict[str, str]]) -> SparseFacts:
    """What a SparseEncoder does after its Transformer, which gives the logits of a masked language model."""
    if [_kind(module) for module in modules] != ["SpladePooling"]:
        found = ", ".join(module["type"] for module in modules) or "nothing"
        raise UnsupportedError(
            f"{folder / 'modules.json'} has {found} after a SparseEncoder's first module; "
            "onnxembed builds SpladePooling"
        )
    name = f"{modules[0]['path']}/config.json"
    return sparse_facts.read_splade_pooling(name, read_json(folder / name))


def _multi_vector(folder: Path, modules: list[dict[str, str]], name: str, transformer: JsonObject) -> MultiVectorFacts:
    """What a multi-vector model does after its Transformer, whose config comes with the name of its file."""
    kinds = [PYLATE_KINDS.get(_kind(module), _kind(module)) for module in modules]
    layers = [module for module, kind in zip(modules, kinds, strict=True) if kind == "Dense"]
    rest = kinds[len(layers) :]
    st_name = "config_sentence_transformers.json"
    st_config = read_json(folder / st_name)
    pylate = st_config.get("model_type") == "ColBERT"
    known: list[list[str]] = [["MultiVectorMask"], ["MultiVectorMask", "Normalize"]]  # whatever their order
    if not layers or kinds[: len(layers)] != ["Dense"] * len(layers) or sorted(rest) not in ([[]] if pylate else known):
        found = ", ".join(module["type"] for module in modules) or "nothing"
        raise UnsupportedError(
            f"{folder / 'modules.json'} has {found} after its first module; onnxembed builds Dense, and then, "
            "of a MultiVectorEncoder, MultiVectorMask and Normalize"
        )
    dense = tuple(_dense(folder, module["path"], place="token_embeddings") for module in layers)
    if pylate:
        return multi_vector_facts.read_pylate(dense, st_name, st_config)
    paths = dict(zip(kinds, (module["path"] for module in modules), strict=True))
    if "Normalize" in rest:
        file = folder / paths["Normalize"] / "config.json"
        if read_json(file).get("module_input_name") != "token_embeddings":
            raise UnsupportedError(f"{file} does not normalise token_embeddings, as a multi-vector model does")
        _check_places(file, read_json(file), place="token_embeddings")
    mask = f"{paths['MultiVectorMask']}/config.json"
    return multi_vector_facts.read_modules(
        dense, (name, transformer), (mask, _optional_json(folder / mask)), normalize="Normalize" in rest
    )


def _linear_heads(folder: Path) -> tuple[SparseFacts | None, MultiVectorFacts | None]:
    """bge-m3's two heads; a folder with one of them lacks the other."""
    stems = (sparse_facts.LINEAR_HEAD, multi_vector_facts.LINEAR_HEAD)
    files = [
        next((folder / f"{stem}{end}" for end in LINEAR_FORMATS if (folder / f"{stem}{end}").is_file()), None)
        for stem in stems
    ]
    sparse, colbert = files
    if sparse is None and colbert is None:
        return None, None
    if sparse is None or colbert is None:
        missing = stems[files.index(None)]
        raise ModelFilesError(f"{folder} has {sparse or colbert}, but no {missing}.pt, which goes with it")
    return sparse_facts.read_linear_head(sparse), multi_vector_facts.read_linear_head(colbert)


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


def _dense(folder: Path, path: str, place: str = "sentence_embedding") -> DenseFacts:
    file = folder / path / "config.json"
    config = read_json(file)
    activation = config.get("activation_function", "torch.nn.modules.activation.Tanh")
    if not isinstance(activation, str) or activation not in DENSE_ACTIVATIONS:
        raise UnsupportedError(f"{file} has activation_function {activation!r}; known: {', '.join(DENSE_ACTIVATIONS)}")
    if config.get("use_residual", False) is not False:
        raise UnsupportedError(f"{file} sets use_residual, which onnxembed does not do")
    known = {"in_features", "out_features", "bias", "activation_function", "use_residual"}
    _check_places(file, {key: value for key, value in config.items() if key not in known}, place)
    sizes = [config.get("in_features"), config.get("out_features")]
    bias = config.get("bias", True)
    if not all(type(size) is int and size > 0 for size in sizes) or not isinstance(bias, bool):
        raise ModelFilesError(f"{file} does not say in_features, out_features and bias: it says {dict(config)!r}")
    return DenseFacts(config["in_features"], config["out_features"], bias, DENSE_ACTIVATIONS[activation], folder / path)


def _check_places(file: Path, config: JsonObject, place: str = "sentence_embedding") -> None:
    """Refuse a module that reads or writes anything but the sentence embedding, or another place."""
    for key, value in config.items():
        default = key == "module_output_name" and value is None
        if key not in ("module_input_name", "module_output_name") or not (default or value == place):
            raise UnsupportedError(f"{file} sets {key} to {value!r}, which onnxembed does not do")


def _prompts(config: JsonObject, path: Path) -> tuple[Mapping[str, str], str | None]:
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelFilesError(f"{path}: prompts must map names to texts")
    default = config.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise ModelFilesError(f"{path}: default_prompt_name {default!r} is not among its prompts")
    return prompts, default
