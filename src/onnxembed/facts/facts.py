"""What a model's own files state, read but not yet judged. Standard library only.

Reads both generations of sentence-transformers files, and folders that have none of them. An unknown key or module
is an error: ignoring it could silently change vectors.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts import multi_vector as multi_vector_facts
from onnxembed.facts import sparse as sparse_facts
from onnxembed.facts.adapter import ADAPTER_CONFIG, LoraFacts, read_adapter
from onnxembed.facts.known.sentence_transformers import MODEL
from onnxembed.facts.known.tokenizer import TOKENIZER
from onnxembed.facts.modules import PostModules, module_class, read_modules, read_post_modules
from onnxembed.facts.multi_vector import MULTI_VECTOR_CLASSES, MultiVectorFacts
from onnxembed.facts.reranking import read_answers
from onnxembed.facts.sparse import SPARSE_CLASSES, SparseFacts
from onnxembed.facts.transformer import read_transformer_config
from onnxembed.foreign_errors import foreign_errors
from onnxembed.json_file import JsonObject, read_json, read_optional_json

TABLE_FILE = "model.safetensors"
"""The file of a static embedding's table."""

# The suffixes of the files that may hold the Linear of a bge-m3 head.
LINEAR_FORMATS = (".safetensors", ".pt")


@dataclass(frozen=True)
class Facts:
    """What the files of one checkpoint say. None means that they do not say."""

    folder: Path
    transformer_folder: Path
    weights_folder: Path
    """Where config.json and the weights lie: the transformer's folder, or that of the base of an adapter alone."""
    config_file: Path
    config: JsonObject
    model_type: str
    """config.json's model_type, corrected for a model that uses another's name."""
    adapters: tuple[str, ...]
    """The tasks that the checkpoint has an adapter for, in the order in which their weights are stacked."""
    tokenizer_config: JsonObject
    transformer_config: JsonObject
    transformer_config_name: str
    has_modules: bool
    post: PostModules
    prompts: Mapping[str, str]
    default_prompt_name: str | None
    similarity: str | None
    sentence_transformers_class: str | None = None
    """The class that config_sentence_transformers.json names for the folder."""
    activation_fn: str | None = None
    """The activation that config_sentence_transformers.json names for turning logits into scores."""
    sparse: SparseFacts | None = None
    multi_vector: MultiVectorFacts | None = None
    lora: LoraFacts | None = None
    """The LoRA adapter that transformers applies to the weights."""
    answers: tuple[int, ...] | None = None
    """The ids of a LogitScore module: the token whose logit is the score, and the one whose logit is subtracted."""


def read_facts(folder: Path, base: Path | None = None) -> Facts:
    """Read what a checkpoint folder's files say.

    `base` is the folder of the base of a LoRA adapter that lies alone, if that was fetched from the hub: it is named
    by its commit.

    Raises ModelFilesError for files that are missing or not JSON objects, UnsupportedError for modules
    and options that onnxembed does not support; both name the file and the key.
    """
    if not folder.is_dir():
        raise ModelFilesError(f"no folder at {folder}")
    st_file = folder / "config_sentence_transformers.json"
    st_config = read_optional_json(st_file)
    modules = read_modules(folder)
    named_class = _sentence_transformers_class(st_file, st_config, modules)
    st_class = named_class or "SentenceTransformer"
    _check_class(st_file, st_class, modules)
    if st_class not in HEAD_READERS:
        raise UnsupportedError(f"{st_file} says that this is a {st_class}; known: {', '.join(HEAD_READERS)}")
    transformer_folder = folder / (modules[0]["path"] if modules else "")
    first_module = module_class(modules[0]) if modules else None
    static = first_module == "StaticEmbedding"
    MODEL.check(st_file, st_config)
    weights_folder, lora, config = _read_config(transformer_folder, base, static=static)
    config_file = weights_folder / "config.json"
    # Of a static embedding, the references (model2vec, StaticEmbedding) read tokenizer.json alone.
    alone = static or config["model_type"] == "model2vec"
    tokenizer_config = {} if alone else read_optional_json(transformer_folder / "tokenizer_config.json")
    TOKENIZER.check_off(transformer_folder / "tokenizer_config.json", tokenizer_config)
    transformer_name, transformer_config = read_transformer_config(transformer_folder, st_class, first_module)
    checkpoint = _Checkpoint(folder, modules, config, transformer_name, transformer_config)
    heads = HEAD_READERS[st_class](checkpoint)
    multi_vector = heads.multi_vector
    prompts, default_prompt_name = _prompts(st_config, st_file)
    for name, marker in multi_vector.markers.items() if multi_vector else ():
        prompts = {**prompts, name: marker + prompts.get(name, "").removeprefix(marker)}
    return Facts(
        folder=folder,
        transformer_folder=transformer_folder,
        config_file=config_file,
        config=config,
        model_type=_model_type(config),
        adapters=_adapters(config, config_file),
        tokenizer_config=tokenizer_config,
        transformer_config=transformer_config,
        transformer_config_name=transformer_name,
        weights_folder=weights_folder,
        lora=lora,
        has_modules=bool(modules),
        post=read_post_modules(folder, heads.modules, config),
        prompts=prompts,
        default_prompt_name=default_prompt_name,
        similarity=st_config.get("similarity_fn_name"),
        sentence_transformers_class=named_class,
        activation_fn=st_config.get("activation_fn"),
        sparse=heads.sparse,
        multi_vector=multi_vector,
        answers=heads.answers,
    )


def _sentence_transformers_class(file: Path, config: JsonObject, modules: list[dict[str, str]]) -> str | None:
    """The class that the folder is of, by `file`; PyLate did not name its own below sentence-transformers 5."""
    named = config.get("model_type")
    if named is None and multi_vector_facts.saved_by_pylate(file, config, modules):
        return multi_vector_facts.PYLATE_CLASS
    return None if named is None else str(named)


def _check_class(file: Path, st_class: str, modules: list[dict[str, str]]) -> None:
    """Refuse a folder of one class with a module that only another class has."""
    for module in modules:
        owner = CLASS_OF_MODULE.get(module_class(module), st_class)
        if owner != st_class:
            raise UnsupportedError(
                f"{file} makes this a {st_class} (model_type), but modules.json has {module['type']}, which belongs to "
                f"a {owner}"
            )


@dataclass(frozen=True)
class _Checkpoint:
    """What is known about a folder before its heads are read."""

    folder: Path
    modules: list[dict[str, str]]
    config: JsonObject
    transformer_name: str
    transformer_config: JsonObject


@dataclass(frozen=True)
class _Heads:
    """The heads of a model; `modules` are those that make a sentence embedding."""

    modules: list[dict[str, str]]
    sparse: SparseFacts | None = None
    multi_vector: MultiVectorFacts | None = None
    answers: tuple[int, ...] | None = None


def _read_cross_encoder(checkpoint: _Checkpoint) -> _Heads:
    return _Heads([], answers=read_answers(checkpoint.folder, checkpoint.modules[1:]))


def _read_sparse_encoder(checkpoint: _Checkpoint) -> _Heads:
    return _Heads([], sparse=sparse_facts.read_splade(checkpoint.folder, checkpoint.modules[1:]))


def _read_multi_vector_encoder(checkpoint: _Checkpoint) -> _Heads:
    name, config = checkpoint.transformer_name, checkpoint.transformer_config
    facts = multi_vector_facts.read_multi_vector(checkpoint.folder, checkpoint.modules[1:], name, config)
    return _Heads([], multi_vector=facts)


def _read_sentence_transformer(checkpoint: _Checkpoint) -> _Heads:
    """An embedding model, with bge-m3's heads where it has them; or an original ColBERT, which has no modules."""
    folder, modules = checkpoint.folder, checkpoint.modules
    architectures = checkpoint.config.get("architectures")
    if isinstance(architectures, list) and "HF_ColBERT" in architectures and not modules:
        metadata = read_json(folder / multi_vector_facts.STANFORD_METADATA)
        return _Heads([], multi_vector=multi_vector_facts.read_stanford(metadata))
    sparse, multi_vector = _linear_heads(folder)
    return _Heads(modules[1:], sparse, multi_vector)


# The class of models that alone has a module.
CLASS_OF_MODULE = {
    "LogitScore": "CrossEncoder",
    "MultiVectorMask": "MultiVectorEncoder",
    "SpladePooling": "SparseEncoder",
}

# By sentence-transformers' class for the folder.
HEAD_READERS: dict[str, Callable[[_Checkpoint], _Heads]] = {
    "SentenceTransformer": _read_sentence_transformer,
    "CrossEncoder": _read_cross_encoder,
    **dict.fromkeys(sorted(SPARSE_CLASSES), _read_sparse_encoder),
    **dict.fromkeys(sorted(MULTI_VECTOR_CLASSES), _read_multi_vector_encoder),
}


def _read_config(folder: Path, base: Path | None, *, static: bool) -> tuple[Path, LoraFacts | None, JsonObject]:
    """The folder of the weights, which for an adapter is its base's; the adapter; and the config.json beside them."""
    lora = None if static else read_adapter(folder)
    if lora is not None and base is not None:
        lora = replace(lora, base=f"{lora.base} at {base.name}")
    weights_folder = folder if lora is None else base or _base_of(folder, lora)
    file = weights_folder / "config.json"
    config = read_json(file) if file.is_file() or not static else _table_config(file.with_name(TABLE_FILE))
    if not isinstance(config.get("model_type"), str):
        raise ModelFilesError(f"{file} does not say its model_type")
    if config["model_type"] == "model2vec":
        config = _with_table_width(config, file.with_name(TABLE_FILE))
    return weights_folder, lora, config


def _model_type(config: JsonObject) -> str:
    """config.json's model_type; jina-embeddings-v3 calls itself xlm-roberta, which has no rotary positions."""
    name = str(config["model_type"])
    rotary = config.get("position_embedding_type") == "rotary"
    return "jina_embeddings_v3" if name == "xlm-roberta" and rotary else name


def _adapters(config: JsonObject, file: Path) -> tuple[str, ...]:
    tasks = config.get("lora_adaptations") or []
    if not isinstance(tasks, list) or not all(isinstance(task, str) for task in tasks):
        raise ModelFilesError(f"{file}: lora_adaptations is {tasks!r}, not a list of names")
    return tuple(tasks)


def _base_of(folder: Path, lora: LoraFacts) -> Path:
    """The folder of an adapter's base weights: its own, if they lie beside it, else the one that it names."""
    if (folder / "config.json").is_file():
        return folder
    base = Path(lora.base).expanduser()
    if not (base / "config.json").is_file():
        raise ModelFilesError(
            f"{folder} is a LoRA adapter without its base, {lora.base}, which is no folder here, nor a model that was "
            f"fetched from the hub: name its folder in {ADAPTER_CONFIG} (base_model_name_or_path)"
        )
    if (base / ADAPTER_CONFIG).is_file():
        raise UnsupportedError(f"{folder} is an adapter of {base}, which is an adapter too: merge that one first")
    return base


def _table_config(file: Path) -> JsonObject:
    """The config of sentence-transformers' StaticEmbedding, which writes none: its values are the table's shape."""
    with foreign_errors(f"{file} is not the table of a StaticEmbedding"):
        rows, width = _tensors(file)["embedding.weight"]["shape"]
    return {"model_type": "static_embedding", "vocab_size": rows, "hidden_dim": width}


def _with_table_width(config: JsonObject, file: Path) -> JsonObject:
    """model2vec's config with the width that its table has, as soon as the table is there.

    model2vec goes by the table alone. Its hidden_dim is that of the vectors before it kept fewer dimensions of them.
    """
    try:
        _rows, width = _tensors(file)["embeddings"]["shape"]
    except (OSError, ValueError, TypeError, KeyError):  # whoever reads the weights says what is wrong with them
        return config
    return {**config, "hidden_dim": width}


def _tensors(file: Path) -> JsonObject:
    """The header of a safetensors file: the type and the shape of each tensor, by name."""
    with file.open("rb") as opened:
        length = min(int.from_bytes(opened.read(8), "little"), file.stat().st_size)
        header: JsonObject = json.loads(opened.read(length))
    return header


def _linear_heads(folder: Path) -> tuple[SparseFacts | None, MultiVectorFacts | None]:
    """bge-m3's two heads, if the folder has them; ModelFilesError if it has only one."""
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


def _prompts(config: JsonObject, path: Path) -> tuple[Mapping[str, str], str | None]:
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelFilesError(f"{path}: prompts must map names to texts")
    default = config.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise ModelFilesError(f"{path}: default_prompt_name {default!r} is not among its prompts")
    return prompts, default
