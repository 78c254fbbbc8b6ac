"""What a model's own files say, read but not yet judged. Standard library only.

Reads both generations of sentence-transformers files, and folders that have none of them. A key or module that
is not known is an error: dropping it would change vectors in silence.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts import multi_vector as multi_vector_facts
from onnxembed.facts import sparse as sparse_facts
from onnxembed.facts.json_file import JsonObject, read_json, read_optional_json
from onnxembed.facts.modules import DenseFacts, PoolingFacts, module_kind, read_modules, read_post_modules
from onnxembed.facts.multi_vector import MULTI_VECTOR_KINDS, MultiVectorFacts
from onnxembed.facts.reranking import read_answers
from onnxembed.facts.sparse import SPARSE_KINDS, SparseFacts
from onnxembed.facts.transformer import read_transformer_config

# Every file that the Linear of a bge-m3 head may stand in.
LINEAR_FORMATS = (".safetensors", ".pt")


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
    def config_file(self) -> Path:
        """Where config.json lies."""
        return self.transformer_folder / "config.json"

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
            file = self.config_file
            raise ModelFilesError(f"{file}: lora_adaptations is {tasks!r}, not a list of names")
        return tuple(tasks)


def read_facts(folder: Path) -> Facts:
    """Read what a checkpoint folder's files say.

    Raises ModelFilesError for files that are missing or not JSON objects, UnsupportedError for modules
    and options that onnxembed does not do; both name the file and the key.
    """
    if not folder.is_dir():
        raise ModelFilesError(f"no folder at {folder}")
    modules = read_modules(folder)
    transformer_folder = folder / (modules[0]["path"] if modules else "")
    static = bool(modules) and module_kind(modules[0]) == "StaticEmbedding"
    config_file = transformer_folder / "config.json"
    config = _static_config(config_file) if static else read_json(config_file)
    if not isinstance(config.get("model_type"), str):
        raise ModelFilesError(f"{transformer_folder / 'config.json'} has no model_type: what model is it?")
    st_file = folder / "config_sentence_transformers.json"
    st_config = read_optional_json(st_file)
    kind = st_config.get("model_type", "SentenceTransformer")
    cross_encoder = kind == "CrossEncoder"
    transformer_name, transformer_config = read_transformer_config(transformer_folder, kind)
    answers = read_answers(folder, modules[1:]) if cross_encoder else None
    sparse = multi_vector = None
    others: list[dict[str, str]] = [] if cross_encoder else modules[1:]
    if kind in SPARSE_KINDS:
        sparse, others = sparse_facts.read_splade(folder, others), []
    elif kind in MULTI_VECTOR_KINDS:
        multi_vector = multi_vector_facts.read_multi_vector(folder, others, transformer_name, transformer_config)
        others = []
    elif "HF_ColBERT" in (config.get("architectures") or ()) and not modules:
        multi_vector = multi_vector_facts.read_stanford(read_json(folder / multi_vector_facts.STANFORD_METADATA))
    else:
        sparse, multi_vector = _linear_heads(folder)
    poolings, dense, normalize = read_post_modules(folder, others)
    if kind not in {"SentenceTransformer", "CrossEncoder", *SPARSE_KINDS, *MULTI_VECTOR_KINDS}:
        raise UnsupportedError(f"{st_file} says that this is a {kind}; onnxembed exports SentenceTransformer models")
    prompts, default_prompt_name = _prompts(st_config, st_file)
    for name, marker in multi_vector.markers.items() if multi_vector else ():
        prompts = {**prompts, name: marker + prompts.get(name, "").removeprefix(marker)}
    return Facts(
        folder=folder,
        transformer_folder=transformer_folder,
        config=config,
        tokenizer_config=read_optional_json(transformer_folder / "tokenizer_config.json"),
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


def _prompts(config: JsonObject, path: Path) -> tuple[Mapping[str, str], str | None]:
    prompts = config.get("prompts") or {}
    if not isinstance(prompts, dict) or not all(isinstance(text, str) for text in prompts.values()):
        raise ModelFilesError(f"{path}: prompts must map names to texts")
    default = config.get("default_prompt_name")
    if default is not None and not (isinstance(default, str) and default in prompts):
        raise ModelFilesError(f"{path}: default_prompt_name {default!r} is not among its prompts")
    return prompts, default
