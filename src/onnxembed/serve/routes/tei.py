"""The routes of text-embeddings-inference, and three of our own beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import msgspec
import numpy as np

from onnxembed.manifest import Task, TextKind
from onnxembed.runtime.outputs.pooling import ACTIVATIONS
from onnxembed.runtime.outputs.sparse import SparseEmbedding
from onnxembed.serve import errors
from onnxembed.serve.endpoint import Call, Endpoint, check_characters
from onnxembed.serve.errors import Refusal
from onnxembed.serve.model import Cut, ServedModel
from onnxembed.serve.routes.inputs import cut_of, prompted, prompted_texts, unicode_text
from onnxembed.serve.types import tei

KINDS: dict[str, Task] = {"dense": "embedding", "sparse": "sparse", "multi_vector": "multi_vector"}
"""The task that makes each kind of embedding."""


async def embed(call: Call, asked: tei.EmbedAsked) -> Any:
    """Vectors."""
    model = call.service.models.find(asked.model, "embedding")
    # False means "no more than the model does": Haystack's embedders send it unless they are told otherwise.
    computation = model.dense(dimensions=asked.dimensions, normalize=asked.normalize or None)
    prefix = model.prefix(asked.prompt_name, asked.input_type)
    return await call.compute(model, computation, prompted_texts(model, asked), cut_of(call, asked), prefix)


async def embed_all(call: Call, asked: tei.TextsAsked) -> Any:
    """The embedding of each token, before pooling."""
    model = call.service.models.find(asked.model, "embedding")
    return await call.compute(model, model.token_embeddings(), prompted_texts(model, asked), cut_of(call, asked))


async def embed_sparse(call: Call, asked: tei.TextsAsked) -> Any:
    """Sparse embeddings."""
    model = call.service.models.find(asked.model, "sparse")
    made = await call.compute(model, model.sparse(), prompted_texts(model, asked), cut_of(call, asked))
    return [sparse_values(each) for each in made]


async def embed_multi_vector(call: Call, asked: tei.TextsAsked) -> Any:
    """A vector for each token, for late interaction."""
    model = call.service.models.find(asked.model, "multi_vector")
    computation = model.multi_vector(asked.input_type)
    cut = cut_of(call, asked, multi_vector_length(model, asked.input_type))
    return await call.compute(model, computation, prompted_texts(model, asked), cut)


async def embed_kinds(call: Call, asked: tei.KindsAsked) -> Any:
    """Several kinds of embeddings, from one run of the model."""
    model = call.service.models.find(asked.model, "embedding", "sparse", "multi_vector")
    if asked.kinds is not None and not asked.kinds:
        raise Refusal("empty", "`kinds` cannot be empty", param="$.kinds")
    names: Sequence[str] = asked.kinds or [name for name, task in KINDS.items() if task in model.manifest.tasks]
    names = list(dict.fromkeys(names))
    computation = model.joint([KINDS[name] for name in names], asked.input_type)
    cut = cut_of(call, asked)
    if "multi_vector" in names:
        cut = replace(cut, max_length=multi_vector_length(model, asked.input_type))
    prefix = model.prefix(asked.prompt_name, asked.input_type)
    rows = await call.compute(model, computation, prompted_texts(model, asked), cut, prefix)
    answer = {name: [row[place] for row in rows] for place, name in enumerate(names)}
    if "sparse" in answer:
        answer["sparse"] = [sparse_values(each) for each in answer["sparse"]]
    return answer


async def rerank(call: Call, asked: tei.RerankAsked) -> Any:
    """Texts sorted by how well they answer a query."""
    model = call.service.models.find(asked.model, "reranking")
    scores = await relevance(call, model, asked.query, asked.texts, cut_of(call, asked), raw=asked.raw_scores)
    order = np.argsort(-scores, kind="stable").tolist()
    texts = asked.texts if asked.return_text else None
    return [{"index": at, **({"text": texts[at]} if texts else {}), "score": float(scores[at])} for at in order]


async def predict(call: Call, asked: tei.PredictAsked) -> Any:
    """The labels of pairs of texts, with their scores."""
    model = call.service.models.find(asked.model, "reranking")
    single, pairs = _pairs(asked.inputs)
    computation = model.logits() if asked.raw_scores else model.scores()
    rows = await call.compute(model, computation, pairs, cut_of(call, asked))
    labels = model.manifest.require_reranking().labels.value
    made = [_predictions(labels, np.atleast_1d(row)) for row in rows]
    return made[0] if single else made


async def similarity(call: Call, asked: tei.SimilarityAsked) -> Any:
    """The cosine of a sentence with each of several."""
    model = call.service.models.find(asked.model, "embedding")
    options = asked.parameters or tei.SimilarityParameters()
    if not asked.inputs.sentences:
        raise Refusal("empty", "`inputs.sentences` cannot be empty", param="$.inputs.sentences")
    items = prompted(model, [asked.inputs.source_sentence, *asked.inputs.sentences], options.prompt_name, None)
    wanted = tei.Asked(truncate=options.truncate, truncation_direction=options.truncation_direction)
    dense, prefix = model.dense(normalize=True), model.prefix(options.prompt_name, None)
    source, *others = await call.compute(model, dense, items, cut_of(call, wanted), prefix)
    return (np.stack(others) @ source).tolist()


async def tokenize(call: Call, asked: tei.TokenizeAsked) -> Any:
    """The tokens of each text, not cut."""
    model = call.service.models.find(asked.model)
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    if not texts:
        raise Refusal("empty", "`inputs` cannot be empty", param="$.inputs")
    full = prompted(model, texts, asked.prompt_name, None)
    check_characters(sum(map(len, full)))
    encode = partial(model.whole_tokenizer.encode_batch, full, add_special_tokens=asked.add_special_tokens)
    encoded = await asyncio.to_thread(encode)
    return [_tokens(text, encoding) for text, encoding in zip(full, encoded, strict=True)]


async def decode(call: Call, asked: tei.DecodeAsked) -> Any:
    """The text of each list of token ids."""
    model = call.service.models.find(asked.model)
    if not asked.ids:
        raise Refusal("empty", "`ids` cannot be empty", param="$.ids")
    single = all(isinstance(item, int) for item in asked.ids)
    several: Sequence[Any] = [asked.ids] if single else asked.ids
    if not all(isinstance(ids, list) for ids in several):
        raise Refusal("validation", "`ids` mixes numbers and lists", param="$.ids")
    for ids in several:
        model.check_ids(ids)
    write = partial(model.whole_tokenizer.decode_batch, several, skip_special_tokens=asked.skip_special_tokens)
    return await asyncio.to_thread(write)


async def whatever(call: Call, asked: Any) -> Any:
    """What the default model does: rerank, compare, embed, or embed sparsely."""
    model = call.service.models.find(asked.get("model"))
    tasks = model.manifest.tasks
    if "reranking" in tasks:
        wanted: tuple[Any, Any] = (tei.RerankAsked, rerank) if "query" in asked else (tei.PredictAsked, predict)
    elif isinstance(asked.get("inputs"), dict):
        wanted = tei.SimilarityAsked, similarity
    elif "embedding" in tasks:
        wanted = tei.EmbedAsked, embed
    else:
        wanted = (tei.TextsAsked, embed_sparse) if "sparse" in tasks else (tei.TextsAsked, embed_multi_vector)
    kind, handle = wanted
    try:
        request = msgspec.convert(asked, kind)
    except msgspec.ValidationError as error:
        message, _, path = str(error).partition(" - at `")
        path = path.rstrip("`") or "$"
        raise Refusal("validation", f"{message} at {path}", param=path) from None
    return await handle(call, request)


async def relevance(call: Call, model: ServedModel, query: str, texts: Sequence[str], cut: Cut, *, raw: bool) -> Any:
    """The score of each text for the query, float32 [N]: from 0 to 1, or the logits."""
    model.require("reranking")
    labels = model.manifest.require_reranking().labels.value
    if len(labels) > 1:
        raise Refusal(
            "model_type", f"{model.name} has several labels ({', '.join(labels)}), and no order: see /predict"
        )
    if not texts:
        raise Refusal("empty", "`texts` cannot be empty")
    pairs = [(unicode_text(query), unicode_text(text)) for text in texts]
    logits = np.array(await call.compute(model, model.logits(), pairs, cut), np.float32)
    return logits if raw else ACTIVATIONS["sigmoid"](logits).astype(np.float32)


def multi_vector_length(model: ServedModel, kind: TextKind | None) -> int | None:
    """The most tokens of a query or a document."""
    section = model.manifest.require_multi_vector()
    return (section.query_length if kind == "query" else section.document_length).value


def sparse_values(embedding: SparseEmbedding) -> list[dict[str, Any]]:
    """The weights of a sparse embedding, one object each."""
    return [
        {"index": index, "value": value}
        for index, value in zip(embedding.indices.tolist(), embedding.values.tolist(), strict=True)
    ]


def _pairs(inputs: str | list[str | list[str]]) -> tuple[bool, list[tuple[str, str]]]:
    """Whether one pair was asked about, and all pairs."""
    single = isinstance(inputs, list) and len(inputs) == 2 and all(isinstance(part, str) for part in inputs)
    several: Any = [inputs] if single else inputs
    if not isinstance(several, list) or any(not isinstance(pair, list) or len(pair) != 2 for pair in several):
        raise Refusal("validation", "this model scores pairs: `inputs` is [a, b] or [[a, b], ...]", param="$.inputs")
    if not several:
        raise Refusal("empty", "`inputs` cannot be empty", param="$.inputs")
    return single, [(unicode_text(first), unicode_text(second)) for first, second in several]


def _predictions(labels: Sequence[str], scores: Any) -> list[dict[str, Any]]:
    made = [{"score": score, "label": label} for score, label in zip(scores.tolist(), labels, strict=True)]
    return sorted(made, key=lambda each: -each["score"])


def _tokens(text: str, encoding: Any) -> list[dict[str, Any]]:
    tokens = []
    for number, token, special, (start, stop) in zip(
        encoding.ids, encoding.tokens, encoding.special_tokens_mask, encoding.offsets, strict=True
    ):
        place = {"start": None, "stop": None} if special else {"start": start, "stop": stop}
        shown = token if special else text[start:stop]
        tokens.append({"id": number, "text": shown, "special": bool(special), **place})
    return tokens


def _endpoint(path: str, asked: Any, answered: Any, handle: Any) -> Endpoint:
    return Endpoint(path, asked, answered, handle, errors.tei, handle.__doc__ or "")


VECTORS = list[tei.Vector]
ENDPOINTS = [
    _endpoint("/embed", tei.EmbedAsked, VECTORS, embed),
    _endpoint("/embed_all", tei.TextsAsked, list[VECTORS], embed_all),
    _endpoint("/embed_sparse", tei.TextsAsked, list[list[tei.SparseValue]], embed_sparse),
    _endpoint("/embed_multi_vector", tei.TextsAsked, list[VECTORS], embed_multi_vector),
    _endpoint("/embed_kinds", tei.KindsAsked, tei.Kinds, embed_kinds),
    _endpoint("/rerank", tei.RerankAsked, list[tei.Rank], rerank),
    _endpoint("/predict", tei.PredictAsked, list[tei.Prediction | list[tei.Prediction]], predict),
    _endpoint("/similarity", tei.SimilarityAsked, list[float], similarity),
    _endpoint("/tokenize", tei.TokenizeAsked, list[list[tei.Token]], tokenize),
    _endpoint("/decode", tei.DecodeAsked, list[str], decode),
    _endpoint("/", dict[str, Any], Any, whatever),
    _endpoint("/invocations", dict[str, Any], Any, whatever),
]
