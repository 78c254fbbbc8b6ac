"""The options of the public methods, with the names that other packages give them and what stands in for the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, TypedDict

from onnxembed.arguments import whole_number
from onnxembed.arrays import Array
from onnxembed.errors import UsageError
from onnxembed.quantization import OutputDtype
from onnxembed.runtime.streaming import DEFAULT_READING, Reading

TRUNCATE = ("cut", "error")


class PromptOptions(TypedDict, total=False):
    """The options of every method that embeds or scores; `OnnxEmbedder.embed` describes them.

    Those after `truncate` are taken because sentence-transformers and FastEmbed have them; none changes a result.
    """

    prompt: str | None
    prompt_name: str | None
    batch_size: int | None
    show_progress: bool
    read_ahead: int | None
    truncate: Literal["cut", "error"]
    show_progress_bar: bool | None
    convert_to_numpy: Literal[True]
    convert_to_tensor: Literal[False]
    parallel: int | None
    num_workers: int


class EmbedOptions(PromptOptions, total=False):
    """The options of the methods for dense vectors, with the names that sentence-transformers gives to some of them."""

    dimensions: int | None
    normalize: bool | None
    dtype: OutputDtype | None
    ranges: Array | None
    truncate_dim: int | None
    normalize_embeddings: bool | None
    output_value: Literal["sentence_embedding"]
    precision: OutputDtype | None


class KindOptions(PromptOptions, total=False):
    """The options of `OnnxEmbedder.encode_all`: the kinds of embeddings that are asked for."""

    dense: bool
    sparse: bool
    multi_vector: bool


class Options(NamedTuple):
    """The options of one call, by the package's own names; None does what the model does."""

    prompt: str | None = None
    prompt_name: str | None = None
    dimensions: int | None = None
    normalize: bool | None = None
    dtype: OutputDtype | None = None
    ranges: Array | None = None
    show_progress: bool = False
    reading: Reading = DEFAULT_READING


ALIASES = {
    "show_progress_bar": "show_progress",
    "normalize_embeddings": "normalize",
    "truncate_dim": "dimensions",
    "precision": "dtype",
}
"""Other names of the package's own options."""

HARMLESS: Mapping[str, tuple[Any, ...]] = {
    "convert_to_numpy": (True,),
    "convert_to_tensor": (False, None),
    "output_value": ("sentence_embedding",),
    "precision": ("float32",),
    "device": (None,),
    "pool": (None,),
    "chunk_size": (None,),
    "activation_fn": (None,),
    "activation_fct": (None,),
    "apply_softmax": (False, None),
}
"""The values with which arguments of other packages ask for what is done anyway."""

IGNORED = {"parallel", "num_workers"}
"""Arguments that share work among processes: here the threads of one process share it, and no result depends on it."""

SUBSTITUTES: Mapping[str, str] = {
    "convert_to_numpy": "results are numpy arrays; list(...) makes a list of them",
    "convert_to_tensor": "torch.from_numpy(...) makes a tensor of the result",
    "output_value": "embed_tokens gives the vectors of tokens",
    "precision": "dtype is for dense vectors; quantize_embeddings makes smaller ones of the vectors of tokens",
    "device": "providers='cuda' or 'cpu' chooses it when the model is opened",
    "pool": "threads, and device_ids for GPUs, share the work; they are chosen when the model is opened",
    "chunk_size": "read_ahead says how many texts are read before the first result",
    "activation_fn": "raw_scores=True gives logits, to which any function can be applied",
    "activation_fct": "raw_scores=True gives logits, to which any function can be applied",
    "apply_softmax": "raw_scores=True gives logits, to which any function can be applied",
    "task": "encode_query and encode_document say what the texts are",
    "max_length": "max_length is chosen when the model is opened",
    "prompts": "prompt or prompt_name chooses one",
}
"""What to use instead of an argument of another package."""


def take_options(method: str, given: Mapping[str, Any], own: type) -> Options:
    """The options of one call; `own`, the TypedDict of the method, has the names that it takes.

    Raises UsageError for an argument that has a substitute or an impossible value, TypeError for an unknown one.
    """
    values: dict[str, Any] = {}
    for name, value in given.items():
        if name in IGNORED:
            continue
        if name in SUBSTITUTES and ALIASES.get(name) not in own.__annotations__:
            if not any(value is harmless or value == harmless for harmless in HARMLESS.get(name, ())):
                raise UsageError(f"{method} does not take {name}={value!r}: {SUBSTITUTES[name]}")
            continue
        if name not in own.__annotations__:
            raise TypeError(f"{method}() got an unexpected keyword argument {name!r}")
        _put(values, method, ALIASES.get(name, name), value)
    truncate = values.pop("truncate", "cut")
    if truncate not in TRUNCATE:
        raise UsageError(f"truncate is {truncate!r}, not {' or '.join(TRUNCATE)}")
    bounds = {name: _bound(name, values.pop(name, None)) for name in ("read_ahead", "batch_size")}
    values["show_progress"] = bool(values.get("show_progress"))
    return Options(**values, reading=Reading(**bounds, refuse_long=truncate == "error"))


DEFAULTS = Options()
"""What holds for a call without options."""


def _put(values: dict[str, Any], method: str, name: str, value: Any) -> None:
    if value is not None and values.get(name) not in (None, value):
        raise UsageError(f"{method} was given {name} twice, as {values[name]!r} and as {value!r}")
    if value is not None or name not in values:
        values[name] = value


def _bound(name: str, value: int | None) -> int | None:
    return None if value is None else whole_number(name, value)
