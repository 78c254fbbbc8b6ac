"""What the fields of several routes mean: inputs, prompts, truncation."""

from __future__ import annotations

from collections.abc import Sequence

from onnxembed.arguments import check_text
from onnxembed.errors import UsageError
from onnxembed.manifest import TextKind
from onnxembed.serve.endpoint import Call
from onnxembed.serve.errors import Refusal
from onnxembed.serve.model import Cut, Item, ServedModel
from onnxembed.serve.types.tei import Asked, Inputs, TextsAsked


def texts_of(inputs: Inputs, field: str = "inputs") -> list[Item]:
    """The texts and lists of token ids of a request: a str or a tuple of int each."""
    if isinstance(inputs, str):
        return [inputs]
    if not inputs:
        raise Refusal("empty", f"`{field}` cannot be empty", param=f"$.{field}")
    if all(isinstance(item, int) for item in inputs):
        return [tuple(inputs)]
    if any(isinstance(item, int) for item in inputs):
        raise Refusal("validation", f"`{field}` mixes texts and token ids in one list", param=f"$.{field}")
    return [tuple(item) if isinstance(item, list) else item for item in inputs]


def prompted(model: ServedModel, items: Sequence[Item], prompt_name: str | None, kind: TextKind | None) -> list[Item]:
    """The items with the prompt before each text; Refusal for ids with a prompt, or of another vocabulary."""
    prefix = model.prefix(prompt_name, kind)
    if any(isinstance(item, tuple) for item in items):
        for item in items:
            if isinstance(item, tuple):
                if prompt_name is not None:
                    raise Refusal("validation", "`prompt_name` cannot be used with token ids", param="$.prompt_name")
                model.check_ids(item)
    return [prefix + unicode_text(item) if isinstance(item, str) else item for item in items]


def unicode_text(text: str) -> str:
    """The text; Refusal for half a surrogate pair, which no tokenizer takes."""
    try:
        return check_text(text, "a text")
    except UsageError as error:
        raise Refusal("validation", str(error)) from None


def cut_of(call: Call, asked: Asked, max_length: int | None = None) -> Cut:
    """What becomes of texts that are too long."""
    allowed = call.service.settings.auto_truncate if asked.truncate is None else asked.truncate
    return Cut(allowed, asked.side, max_length)


def prompted_texts(model: ServedModel, asked: TextsAsked) -> list[Item]:
    """The texts of a request with their prompt."""
    return prompted(model, texts_of(asked.inputs), asked.prompt_name, asked.input_type)
