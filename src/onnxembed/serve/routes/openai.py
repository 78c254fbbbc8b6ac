"""OpenAI's route for embeddings."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import numpy as np

from onnxembed.serve import errors
from onnxembed.serve.endpoint import Call, Endpoint
from onnxembed.serve.errors import Refusal
from onnxembed.serve.model import Cut, ServedModel
from onnxembed.serve.routes.inputs import prompted, texts_of
from onnxembed.serve.types import openai


async def embeddings(call: Call, asked: openai.EmbeddingsAsked) -> Any:
    """Vectors of length 1, as numbers or as base64 of little-endian float32."""
    model = call.service.models.find(asked.model, "embedding")
    computation = model.dense(dimensions=asked.dimensions, normalize=True)
    items = texts_of(asked.input, "input")
    for item in items:
        if isinstance(item, tuple):
            check_origin(model, item)
    items = prompted(model, items, None, asked.input_type)
    most = asked.truncate_prompt_tokens
    cut = Cut(call.service.settings.auto_truncate or most is not None, max_length=None if most == -1 else most)
    vectors = await call.compute(model, computation, items, cut, model.prefix(None, asked.input_type))
    if asked.encoding_format == "base64":
        vectors = [b64encode(np.asarray(vector, "<f4").tobytes()).decode() for vector in vectors]
    return {
        "object": "list",
        "data": [{"object": "embedding", "embedding": vector, "index": index} for index, vector in enumerate(vectors)],
        "model": asked.model or model.name,
        "usage": {"prompt_tokens": call.tokens, "total_tokens": call.tokens},
    }


def check_origin(model: ServedModel, ids: Sequence[int]) -> None:
    """Raise Refusal for ids of another tokenizer: clients of OpenAI send those of its own models.

    The model's own ids have its special tokens where its tokenizer puts them; a model without special tokens gives
    the same ids when their text is tokenized again.
    """
    tokenizer = model.whole_tokenizer
    frame = tokenizer.encode("a")
    specials = [number for number, special in zip(frame.ids, frame.special_tokens_mask, strict=True) if special]
    try:
        model.check_ids(ids)
    except Refusal:
        own = False
    else:
        leading = frame.special_tokens_mask.index(0) if 0 in frame.special_tokens_mask else 0
        if specials:
            trailing = len(specials) - leading
            own = [*ids[:leading], *ids[len(ids) - trailing :]] == specials
        else:
            own = tokenizer.encode(tokenizer.decode(ids, skip_special_tokens=False)).ids == list(ids)
    if not own:
        raise Refusal(
            "validation",
            f"these token ids were not made by the tokenizer of {model.name}; send texts. LangChain's OpenAIEmbeddings "
            "sends texts with check_embedding_ctx_length=False",
            param="$.input",
        )


ENDPOINTS = [
    Endpoint(path, openai.EmbeddingsAsked, openai.Embeddings, embeddings, errors.openai, embeddings.__doc__ or "")
    for path in ("/v1/embeddings", "/embeddings")
]
