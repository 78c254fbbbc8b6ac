"""What a model's own files say about its multi-vector embeddings, read but not yet judged. Standard library only.

ColBERT models are published in three forms: as a MultiVectorEncoder of sentence-transformers (6.0 on), as
PyLate saved them, and as the original ColBERT did, with an artifact.metadata. For what
the older two leave out, sentence-transformers 6.2's values are used. bge-m3 has a form of its own.
"""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.known.sentence_transformers import MULTI_VECTOR_MASK, PYLATE
from onnxembed.facts.modules import DenseFacts, check_places, module_class, read_dense, read_module_config
from onnxembed.json_file import JsonObject, read_json, read_optional_json
from onnxembed.manifest import Decision, Origin, TextKind

PYLATE_CLASS = "ColBERT"
"""PyLate's class, which releases that need sentence-transformers 5 name in config_sentence_transformers.json."""

MULTI_VECTOR_CLASSES = {"MultiVectorEncoder", PYLATE_CLASS}
"""The classes of sentence-transformers and of PyLate for models that make a vector for each token."""

# PyLate's names for classes of sentence-transformers.
PYLATE_MODULES = {"pylate.models.Dense.Dense": "Dense"}

LINEAR_HEAD = "colbert_linear"
"""bge-m3's file with the Linear from tokens to their vectors, without its suffix."""
STANFORD_METADATA = "artifact.metadata"
STANFORD_LINEAR = "linear.weight"
"""The projection in an original ColBERT's checkpoint, next to the encoder's tensors."""

PUNCTUATION = tuple(string.punctuation)
QUERY_LENGTH = 32
"""The query length of the original ColBERT, in tokens."""


@dataclass(frozen=True)
class ExpansionFacts:
    """Query expansion; `token` None is the mask token, or the end token where the tokenizer has no mask."""

    token: str | None
    length: int
    attended: bool
    longer: Literal["cut", "kept"]


@dataclass(frozen=True)
class MultiVectorFacts:
    """How token embeddings become a text's vectors.

    The projection is a chain of Dense modules. If there are none, it is the Linear in the file `head`; if `head` is
    None too, it is the checkpoint's own tensor STANFORD_LINEAR. `markers`: in the older forms, the texts that go before
    queries and documents and their prompts; each is a single token if the vocabulary has it.
    """

    dense: tuple[DenseFacts, ...]
    head: Path | None
    normalize: Decision[bool]
    first_token: Decision[bool]
    query_length: Decision[int | None]
    document_length: Decision[int | None]
    query_expansion: Decision[ExpansionFacts | None]
    skipped_words: Decision[tuple[str, ...]]
    skipped_in: tuple[TextKind, ...]
    markers: Mapping[TextKind, str]

    @property
    def of_checkpoint(self) -> bool:
        """Whether the projection is the checkpoint's own tensor."""
        return not self.dense and self.head is None


def saved_by_pylate(file: Path, config: JsonObject, modules: Sequence[Mapping[str, str]]) -> bool:
    """Whether a folder without a class has PyLate's keys in its config_sentence_transformers.json, which is `file`.

    Raises UnsupportedError for a module of PyLate without them: it always writes them, and without them
    sentence-transformers and PyLate disagree about what goes around queries and documents.
    """
    if config.keys() & PYLATE:
        return True
    if strange := [module["type"] for module in modules if module_class(module) in PYLATE_MODULES]:
        raise UnsupportedError(
            f"modules.json has {strange[0]}, but {file} has none of PyLate's keys, such as query_prefix: what goes "
            "around queries and documents is unknown; copy that file from the original model"
        )
    return False


def read_linear_head(file: Path) -> MultiVectorFacts:
    """bge-m3's definition: FlagEmbedding, inference/embedder/encoder_only/m3.py."""
    reason = f"{file.name}, as FlagEmbedding reads it"
    return MultiVectorFacts(
        dense=(),
        head=file,
        normalize=Decision.default(True, reason),
        first_token=Decision.default(False, f"{reason}: all tokens but the first"),
        query_length=Decision.default(None, reason),
        document_length=Decision.default(None, reason),
        query_expansion=Decision.default(None, reason),
        skipped_words=Decision.default((), reason),
        skipped_in=(),
        markers={},
    )


def read_multi_vector(
    folder: Path, modules: list[dict[str, str]], name: str, transformer: JsonObject
) -> MultiVectorFacts:
    """What a multi-vector model does after its Transformer, whose config is `transformer`, from the file `name`."""
    classes = [PYLATE_MODULES.get(module_class(module), module_class(module)) for module in modules]
    layers = [module for module, class_name in zip(modules, classes, strict=True) if class_name == "Dense"]
    rest = classes[len(layers) :]
    st_name = "config_sentence_transformers.json"
    st_config = read_json(folder / st_name)
    pylate = st_config.get("model_type") in (None, PYLATE_CLASS)
    # In any order.
    endings: list[list[str]] = [[]] if pylate else [["MultiVectorMask"], ["MultiVectorMask", "Normalize"]]
    if not layers or classes[: len(layers)] != ["Dense"] * len(layers) or sorted(rest) not in endings:
        module_types = ", ".join(module["type"] for module in modules) or "nothing"
        raise UnsupportedError(
            f"{folder / 'modules.json'} has {module_types} after the first module of a multi-vector model, as "
            f"{st_name} makes it (model_type); onnxembed builds Dense and, for a MultiVectorEncoder, MultiVectorMask "
            "and Normalize"
        )
    dense = tuple(read_dense(folder, module["path"], place="token_embeddings") for module in layers)
    if pylate:
        return _read_pylate(dense, st_name, st_config)
    if taken := sorted(key for key in PYLATE if st_config.get(key) is not None):
        raise UnsupportedError(
            f"{folder / st_name} has PyLate's {', '.join(taken)}, but model_type {st_config['model_type']!r}: set it "
            f"to {PYLATE_CLASS!r} for a model of PyLate, or take the keys out of a copy"
        )
    paths = dict(zip(classes, (module["path"] for module in modules), strict=True))
    if "Normalize" in rest:
        file, config = folder / paths["Normalize"] / "config.json", read_module_config(folder, paths["Normalize"])
        if config.get("module_input_name") != "token_embeddings":
            raise UnsupportedError(f"{file} does not normalize token_embeddings, as a multi-vector model does")
        check_places(file, config, place="token_embeddings")
    mask = f"{paths['MultiVectorMask']}/config.json"
    return _read_sentence_transformers(
        dense, (name, transformer), (mask, read_optional_json(folder / mask)), normalize="Normalize" in rest
    )


def _read_sentence_transformers(
    dense: tuple[DenseFacts, ...],
    transformer: tuple[str, JsonObject],
    mask: tuple[str, JsonObject],
    *,
    normalize: bool,
) -> MultiVectorFacts:
    """A MultiVectorEncoder of sentence-transformers: the configs of its Transformer and its MultiVectorMask.

    Each config comes with the name of its file.
    """
    name, config = transformer
    mask_name, mask_config = mask
    MULTI_VECTOR_MASK.check(Path(mask_name), mask_config)
    tasks = mask_config.get("skiplist_tasks")
    tasks = ["document"] if tasks is None else [tasks] if isinstance(tasks, str) else tasks
    kinds: list[TextKind] = [kind for kind in ("query", "document") if isinstance(tasks, list) and kind in tasks]
    if not isinstance(tasks, list) or any(task not in kinds for task in tasks):
        raise ModelFilesError(f"{mask_name}: skiplist_tasks is {tasks!r}, not a list of query and document")
    has = "has a" if normalize else "has no"
    expansion = _expansion(name, config)
    return MultiVectorFacts(
        dense=dense,
        head=None,
        normalize=Decision(normalize, "file", f"modules.json {has} Normalize module"),
        first_token=_every_token("MultiVectorMask"),
        query_length=_query_length(_length(name, config, "query_length"), expansion),
        document_length=_length(name, config, "document_length"),
        query_expansion=expansion,
        skipped_words=Decision.from_file(_words(mask_name, mask_config), mask_name, "skiplist_words"),
        skipped_in=tuple(kinds),
        markers={},
    )


def _read_pylate(dense: tuple[DenseFacts, ...], name: str, config: JsonObject) -> MultiVectorFacts:
    """PyLate's form: everything but the projection stands in config_sentence_transformers.json."""
    default = "PyLate's default, as sentence-transformers reads its models"
    words: Decision[tuple[str, ...]] = Decision.default(PUNCTUATION, default)
    if config.get("skiplist_words") is not None:
        words = Decision.from_file(_words(name, config), name, "skiplist_words")
    expanded = config.get("do_query_expansion", True)
    attended = config.get("attend_to_expansion_tokens", config.get("attend_to_mask_tokens", False))
    if config.get("query_expansion") is not None:
        raise UnsupportedError(f"{name} sets query_expansion, which belongs into the Transformer's own config")
    for key, value in (("do_query_expansion", expanded), ("attend_to_expansion_tokens", attended)):
        if not isinstance(value, bool):
            raise ModelFilesError(f"{name}: {key} is {value!r}, not true or false")
    length = _length(name, config, "query_length")
    expansion: Decision[ExpansionFacts | None] = Decision(
        ExpansionFacts(None, length.value or QUERY_LENGTH, attended, "cut") if expanded else None,
        "file"
        if config.keys() & {"query_length", "do_query_expansion", "attend_to_expansion_tokens"}
        else "architecture",
        f"{name}: query_length, do_query_expansion, attend_to_expansion_tokens, or PyLate's defaults for them",
    )
    markers: dict[TextKind, str] = {
        "query": config.get("query_prefix") or "",
        "document": config.get("document_prefix") or "",
    }
    return MultiVectorFacts(
        dense=dense,
        head=None,
        normalize=Decision.default(True, default),
        first_token=_every_token("PyLate"),
        query_length=_query_length(length, expansion),
        document_length=_length(name, config, "document_length"),
        query_expansion=expansion,
        skipped_words=words,
        skipped_in=("document",),
        markers=markers,
    )


def read_stanford(metadata: JsonObject) -> MultiVectorFacts:
    """The original ColBERT's form: an artifact.metadata, and the projection among the checkpoint's tensors."""
    name, default = STANFORD_METADATA, "ColBERT's own definition"
    punctuation = metadata.get("mask_punctuation", True)
    attended = metadata.get("attend_to_mask_tokens", False)
    for key, value in (("mask_punctuation", punctuation), ("attend_to_mask_tokens", attended)):
        if not isinstance(value, bool):
            raise ModelFilesError(f"{name}: {key} is {value!r}, not true or false")
    length = _length(name, metadata, "query_maxlen")
    expansion: Decision[ExpansionFacts | None] = Decision(
        ExpansionFacts(None, length.value or QUERY_LENGTH, attended, "cut"),
        "file",
        f"{name}: query_maxlen, attend_to_mask_tokens",
    )
    return MultiVectorFacts(
        dense=(),
        head=None,
        normalize=Decision.default(True, default),
        first_token=_every_token("ColBERT"),
        query_length=_query_length(length, expansion),
        document_length=_length(name, metadata, "doc_maxlen"),
        query_expansion=expansion,
        skipped_words=Decision.from_file(PUNCTUATION if punctuation else (), name, "mask_punctuation"),
        skipped_in=("document",),
        markers={
            "query": f"{metadata.get('query_token_id') or '[unused0]'} ",
            "document": f"{metadata.get('doc_token_id') or '[unused1]'} ",
        },
    )


def _query_length(length: Decision[int | None], expansion: Decision[ExpansionFacts | None]) -> Decision[int | None]:
    """The length that queries are cut to: that of their expansion, if it cuts."""
    if expansion.value is None or expansion.value.longer == "kept":
        return length
    return Decision(expansion.value.length, expansion.origin, expansion.reason)


def _expansion(name: str, config: JsonObject) -> Decision[ExpansionFacts | None]:
    """sentence-transformers' `query_expansion`, whose keys its QueryExpansionConfig defines."""
    expansion_config = config.get("query_expansion")
    if expansion_config is None:
        origin: Origin = "file" if "query_expansion" in config else "architecture"
        return Decision(None, origin, f"{name} has no query_expansion")
    strategies: dict[Any, Literal["cut", "kept"]] = {"fixed": "cut", "min": "kept"}
    problem = "has keys other than strategy, attend, token and length"
    if isinstance(expansion_config, dict) and expansion_config.keys() <= {"strategy", "attend", "token", "length"}:
        token, length, attended = (
            expansion_config.get("token"),
            expansion_config.get("length"),
            expansion_config.get("attend", False),
        )
        if expansion_config.get("strategy") not in strategies:
            problem = "has a strategy other than fixed and min"
        elif type(length) is not int or length < 1 or not isinstance(attended, bool):
            problem = "has no length in tokens, or an attend that is not true or false"
        elif not isinstance(token, str | None):
            problem = "has a token that is not a string"
        else:
            expansion = ExpansionFacts(token, length, attended, strategies[expansion_config["strategy"]])
            return Decision.from_file(expansion, name, "query_expansion")
    raise ModelFilesError(f"{name}: query_expansion {problem}: {expansion_config!r}")


def _length(name: str, config: JsonObject, key: str) -> Decision[int | None]:
    value = config.get(key)
    if value is None:
        return Decision.default(None, f"{name} has no {key}")
    if type(value) is not int or value < 1:
        raise ModelFilesError(f"{name}: {key} is {value!r}, not a number of tokens")
    return Decision.from_file(value, name, f"{key}")


def _words(name: str, config: JsonObject) -> tuple[str, ...]:
    words = config.get("skiplist_words") or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ModelFilesError(f"{name}: skiplist_words is {words!r}, not a list of words")
    return tuple(words)


def _every_token(whose: str) -> Decision[bool]:
    return Decision.default(True, f"{whose} keeps the first token's vector")
