"""Other systems that run now, asked for their vectors or scores of some texts."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal, get_args

import numpy as np

from onnxembed.arrays import Array
from onnxembed.counting import counted
from onnxembed.errors import MissingExtraError, NetworkError, UsageError
from onnxembed.foreign_errors import foreign_errors
from onnxembed.tokenizer.pairs import Pair

Kind = Literal["tei", "openai", "fastembed", "sentence-transformers", "transformers"]
"""The systems that can be asked, as in `--tei URL` and `verify --against tei:URL`."""

KINDS: tuple[Kind, ...] = get_args(Kind)

IN_FIXES: dict[Kind, str] = {
    "tei": "text-embeddings-inference",
    "openai": "vLLM",
    "fastembed": "FastEmbed",
    "sentence-transformers": "sentence-transformers",
    "transformers": "transformers",
}
"""The system whose words the fixes are in."""

# Texts of one request: the most that text-embeddings-inference takes unless it is told otherwise.
_BATCH = 32

# Seconds that a server may take for one request.
_PATIENCE = 120

_SHOWN = 200


@dataclass(frozen=True)
class System:
    """Another system: its kind, and the URL or the model that it is asked for.

    `model` of fastembed may be NAME=FOLDER, for a model whose files are in a folder. `pooling` and `normalize` are for
    transformers, which has neither.
    """

    kind: Kind
    model: str
    pooling: str = "mean"
    normalize: bool = True

    @classmethod
    def parse(cls, text: str) -> System | None:
        """The system that "tei:http://localhost:8080" or the like names; None for what names none."""
        kind, colon, model = text.partition(":")
        found = next((each for each in KINDS if each == kind), None)
        return cls(found, model) if colon and model and found else None

    @property
    def words(self) -> str:
        """The system in words."""
        return f"{IN_FIXES[self.kind] if self.kind != 'openai' else 'the server'} ({self.model})"

    def vectors(self, texts: Sequence[str]) -> Array:
        """Its vectors [N, D]. Raises NetworkError if it does not answer, UsageError for an answer that is none."""
        return _array(_VECTORS[self.kind](self, list(texts)), len(texts), self, "vectors")

    def scores(self, pairs: Sequence[Pair]) -> Array:
        """Its scores [N] of pairs of query and document; errors as for `vectors`."""
        if self.kind not in _SCORES:
            raise UsageError(f"--{self.kind} gives no scores of pairs; {', '.join(_SCORES)} do")
        return _array(_SCORES[self.kind](self, list(pairs)), len(pairs), self, "scores")


def _array(answer: Any, count: int, system: System, things: str) -> Array:
    if not isinstance(answer, list | np.ndarray) or len(answer) != count:
        given = len(answer) if isinstance(answer, list | np.ndarray) else "no list of"
        raise UsageError(f"{system.words} answered with {given} {things} for {counted(count, 'text')}")
    try:
        return np.asarray(answer, np.float32)
    except (ValueError, TypeError):
        raise UsageError(f"{system.words} answered with something else than {things} of one length") from None


def _batches(texts: Sequence[Any]) -> Iterator[Sequence[Any]]:
    return (texts[start : start + _BATCH] for start in range(0, len(texts), _BATCH))


# ---- servers


def _ask(system: System, url: str, body: Any = None) -> Any:
    """The JSON that a server answers with."""
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data, {"content-type": "application/json"})
        with urllib.request.urlopen(request, timeout=_PATIENCE) as response:
            answer = response.read()
    except urllib.error.HTTPError as error:
        said = error.read(_SHOWN).decode(errors="replace").strip()
        raise UsageError(f"{url} answered {error.code} {error.reason}: {said}") from None
    except ValueError as error:
        raise UsageError(f"{url} is no URL of a server: {error}") from None
    except OSError as error:
        why = getattr(error, "reason", error)
        raise NetworkError(f"{url} does not answer: {why}; is {system.kind} running there?") from None
    try:
        return json.loads(answer)
    except ValueError:
        start = answer[:60].decode(errors="replace")
        raise UsageError(f"{url} did not answer with JSON but with {start!r}: is it {system.kind}?") from None


def _base(system: System, *ends: str) -> str:
    url = system.model.rstrip("/")
    for end in ends:
        url = url.removesuffix(end)
    if not url.startswith(("http://", "https://")):
        raise UsageError(f"--{system.kind} is {system.model!r}, not a URL such as http://localhost:8080")
    return url


def _tei(system: System, texts: list[str]) -> list[Any]:
    url = f"{_base(system, '/embed')}/embed"
    return [row for batch in _batches(texts) for row in _list(system, _ask(system, url, _tei_body(batch)), len(batch))]


def _tei_body(batch: Sequence[str]) -> dict[str, Any]:
    return {"inputs": list(batch), "truncate": True}


def _list(system: System, answer: Any, count: int) -> list[Any]:
    """An answer that must be a list with an entry for each text of a request."""
    if not isinstance(answer, list) or len(answer) != count:
        what = f"{len(answer)} entries" if isinstance(answer, list) else type(answer).__name__
        raise UsageError(f"{system.words} answered with {what} for {counted(count, 'text')}")
    return answer


def _openai(system: System, texts: list[str]) -> list[Any]:
    base = _base(system, "/v1/embeddings", "/v1")
    listed = _ask(system, f"{base}/v1/models")
    try:
        model = listed["data"][0]["id"]
    except (KeyError, IndexError, TypeError):
        raise UsageError(f"{base}/v1/models lists no model") from None
    rows: list[Any] = []
    for batch in _batches(texts):
        body = {"model": model, "input": list(batch), "encoding_format": "float"}
        answer = _ask(system, f"{base}/v1/embeddings", body)
        data = answer.get("data") if isinstance(answer, dict) else None
        try:
            ordered = sorted(_list(system, data, len(batch)), key=lambda entry: entry["index"])
            rows += [entry["embedding"] for entry in ordered]
        except (KeyError, TypeError):
            raise UsageError(f"{system.words} answered with entries that have no index and embedding") from None
    return rows


def _tei_scores(system: System, pairs: list[Pair]) -> list[float]:
    url = f"{_base(system, '/rerank')}/rerank"
    scores: list[float] = []
    for query, group in groupby(pairs, key=lambda pair: pair[0]):
        for batch in _batches([document for _, document in group]):
            body = {"query": query, "texts": list(batch), "truncate": True}
            ranked = _list(system, _ask(system, url, body), len(batch))
            try:
                scores += [entry["score"] for entry in sorted(ranked, key=lambda entry: entry["index"])]
            except (KeyError, TypeError):
                raise UsageError(f"{system.words} answered with entries that have no index and score") from None
    return scores


# ---- libraries


def _needs(module: str, package: str) -> Any:
    from importlib import import_module

    try:
        return import_module(module)
    except ImportError as error:
        raise MissingExtraError(f"{package} is not installed here: pip install {package} ({error})") from None


def _fastembed(system: System, texts: list[str]) -> list[Any]:
    library = _needs("fastembed", "fastembed")
    return list(_fastembed_model(system, library.TextEmbedding).embed(texts))


def _fastembed_model(system: System, kind: Any) -> Any:
    name, _, folder = system.model.partition("=")
    with foreign_errors(f"FastEmbed cannot open {system.model}"):
        return kind(name, specific_model_path=folder) if folder else kind(name)


def _fastembed_scores(system: System, pairs: list[Pair]) -> list[Any]:
    library = _needs("fastembed.rerank.cross_encoder", "fastembed")
    return list(_fastembed_model(system, library.TextCrossEncoder).rerank_pairs(pairs))


def _sentence_transformers(system: System, texts: list[str]) -> Array:
    library = _needs("sentence_transformers", "sentence-transformers")
    with foreign_errors(f"sentence-transformers cannot open {system.model}"):
        model = library.SentenceTransformer(system.model, device="cpu")
    vectors: Array = model.encode(texts, show_progress_bar=False)
    return vectors


def _sentence_transformers_scores(system: System, pairs: list[Pair]) -> Array:
    library = _needs("sentence_transformers", "sentence-transformers")
    with foreign_errors(f"sentence-transformers cannot open {system.model}"):
        model = library.CrossEncoder(system.model, device="cpu")
    scores: Array = model.predict(pairs, show_progress_bar=False)
    return scores


def _opened(system: System, kind: str) -> tuple[Any, Any, Any]:
    """torch, the tokenizer and the model of plain transformers."""
    torch, library = _needs("torch", "torch"), _needs("transformers", "transformers")
    with foreign_errors(f"transformers cannot open {system.model}"):
        tokenizer = library.AutoTokenizer.from_pretrained(system.model)
        model = getattr(library, kind).from_pretrained(system.model, dtype=torch.float32).eval()
    return torch, tokenizer, model


def _transformers(system: System, texts: list[str]) -> Array:
    """What the snippets of model cards do: AutoModel, then a pooling over the attention mask."""
    from onnxembed.manifest import POOLING_MODES
    from onnxembed.runtime.outputs import pooling

    mode = next((mode for mode in POOLING_MODES if mode == system.pooling), None)
    if mode is None:
        raise UsageError(f"--pooling is {system.pooling!r}, not one of {', '.join(POOLING_MODES)}")
    torch, tokenizer, model = _opened(system, "AutoModel")
    made = []
    for batch in _batches(texts):
        fed = tokenizer(list(batch), padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            tokens = model(**fed).last_hidden_state.float().numpy()
        made.append(pooling.pool(tokens, fed["attention_mask"].numpy(), (mode,)))
    vectors = np.concatenate(made)
    return pooling.normalize(vectors) if system.normalize else vectors


def _transformers_scores(system: System, pairs: list[Pair]) -> Array:
    torch, tokenizer, model = _opened(system, "AutoModelForSequenceClassification")
    scores = []
    for batch in _batches(pairs):
        queries, documents = [query for query, _ in batch], [document for _, document in batch]
        fed = tokenizer(queries, documents, padding=True, truncation=True, return_tensors="pt")
        with torch.no_grad():
            scores.append(model(**fed).logits[:, 0].float().numpy())
    return np.concatenate(scores)


_VECTORS: dict[Kind, Callable[[System, list[str]], Any]] = {
    "tei": _tei,
    "openai": _openai,
    "fastembed": _fastembed,
    "sentence-transformers": _sentence_transformers,
    "transformers": _transformers,
}
_SCORES: dict[Kind, Callable[[System, list[Pair]], Any]] = {
    "tei": _tei_scores,
    "fastembed": _fastembed_scores,
    "sentence-transformers": _sentence_transformers_scores,
    "transformers": _transformers_scores,
}
