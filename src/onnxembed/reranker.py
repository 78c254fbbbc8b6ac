"""OnnxReranker: a query and documents -> pairs -> token ids -> runs without padding -> session -> scores in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from onnxembed.arguments import check_text, whole_number
from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import UsageError
from onnxembed.execution.backend import Placement
from onnxembed.execution.providers import Providers
from onnxembed.hub.source import HubOptions
from onnxembed.loading.located import Located
from onnxembed.manifest import PAIR_TRUNCATIONS, PairTruncation, Precision
from onnxembed.runtime.model import OpenModel
from onnxembed.runtime.onnx_model import OnnxModel, named_devices
from onnxembed.runtime.outputs.scores import ScoresReadout
from onnxembed.runtime.streaming import cut
from onnxembed.tokenizer.pairs import Pair, PairTokenizer, TemplateTokenizer
from onnxembed.tokenizer.texts import TextTokenizer, Tokens


@dataclass(frozen=True)
class RankedDocument:
    """A document's place in a ranking: `index` is its place among the documents that were given."""

    index: int
    score: float
    text: str | None = None


class OnnxReranker(OnnxModel):
    """A reranker (cross-encoder) from an artifact folder or a hub repository that holds one.

    Needs numpy, tokenizers and onnxruntime; never torch. Safe to use from many threads. `with
    OnnxReranker(...) as model:` frees the session at the end of the block, as `close()` does.

    Args:
        model: a folder that `onnxembed export` wrote, or the hub id of a repository with its files.
        precision: "fp32", "fp16", "bf16" (CUDA only), or "auto": fp32 where the artifact has it, else what it has.
        providers: "auto" (CUDA where it can be used, else the CPU), "cpu", "cuda", "tensorrt", or a list of ONNX
            Runtime's provider names or (name, options) pairs; see `Session`.
        threads: pairs are run on this many CPU threads; on all that the process may use when None.
        device_id: the GPU to use, by its number; the first when None.
        device_ids: several GPUs to share the work among, instead.
        max_length: cut pairs to this many tokens, at most the model's own limit, which is the default.
        truncation: how a pair that is too long is cut: "longest_first", of the longer of its two texts;
            "only_second", of the document alone; None as the manifest says. A model with a template has its
            whole body cut.
        instruction: what a model with a template is told to look for; its own when None.
        revision: branch, tag or commit of a hub repository.
        cache_dir: where hub files are kept; the hub client's standard cache when None.
        local_files_only: never ask the hub; use what is in the cache.
        check_files: compare the sha256 of every file with the manifest's while loading.

    Raises:
        ModelFilesError: not an artifact, or its files are not those its manifest records.
        HubError: the hub could not be asked, or said no.
        ProviderError: a requested provider cannot be used.
        UsageError: an argument that cannot be, or an artifact that is no reranker.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        precision: Literal["auto"] | Precision = "auto",
        providers: Providers = "auto",
        threads: int | None = None,
        device_id: int | None = None,
        device_ids: Sequence[int] | None = None,
        max_length: int | None = None,
        truncation: PairTruncation | None = None,
        instruction: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        check_files: bool = True,
    ) -> None:
        if truncation not in (None, *PAIR_TRUNCATIONS):
            raise UsageError(f"truncation is {truncation!r}, not {' or '.join(PAIR_TRUNCATIONS)}")
        if instruction is not None:
            check_text(instruction, "instruction")
        opened = OpenModel(
            model,
            ("reranking",),
            HubOptions(revision, cache_dir, local_files_only),
            Placement(providers, threads, named_devices(device_id, device_ids)),
            precision=precision,
            max_length=max_length,
            check_files=check_files,
            make_tokenizer=partial(_make_tokenizer, truncation=truncation, instruction=instruction),
        )
        self._use(opened)

    def _use(self, model: OpenModel) -> None:
        super()._use(model)
        section = model.manifest.require_reranking()
        self.labels = section.labels.value
        """The names of the model's labels: one for a reranker, several for a classifier of pairs."""
        self._scores, self._logits = ScoresReadout(section, raw=False), ScoresReadout(section, raw=True)

    def score(self, query: str, documents: Iterable[str], *, raw_scores: bool = False) -> FloatArray:
        """The score of each document for the query, float32 [N]; [N, labels] for a model of several labels.

        Args:
            query: one text.
            documents: any iterable of texts; none gives an empty array.
            raw_scores: the logits, instead of what the model's activation makes of them.

        Raises:
            UsageError: a query or document that is no str (its position is named), a single str for the
                documents, or a closed reranker.
        """
        return self._joined(_beside(query, documents), raw_scores)

    def score_pairs(self, pairs: Iterable[Pair], *, raw_scores: bool = False) -> FloatArray:
        """The score of each (query, document) pair; arguments, result and errors as of `score`."""
        return self._joined(_pairs(pairs), raw_scores)

    def score_stream(self, pairs: Iterable[Pair], *, raw_scores: bool = False) -> Generator[FloatArray, None, None]:
        """Stream the score of each pair, in order: float32 scalars, or [labels] for a model of several labels.

        Takes any iterable, also an endless one: about two thousand pairs are read ahead, and memory stays bounded.
        """
        blocks = self._blocks(_pairs(pairs), raw_scores)
        return (score for _, scores in blocks for score in scores)

    def rerank(self, query: str, documents: Iterable[str]) -> Generator[float, None, None]:
        """Stream the logit of each document, in their order: what FastEmbed's TextCrossEncoder.rerank gives.

        For models of one label; memory stays bounded. Errors as of `score`.
        """
        self._check_one_label("rerank")
        blocks = self._blocks(_beside(query, documents), raw_scores=True)
        return (float(score) for _, scores in blocks for score in scores)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        raw_scores: bool = False,
    ) -> list[RankedDocument]:
        """The documents sorted by their score for the query, best first; equal scores in the documents' order.

        Args:
            query: one text.
            documents: any iterable of texts.
            top_k: only the best so many.
            return_documents: put the text of each document into its result.
            raw_scores: sort and return logits.

        Raises:
            UsageError: as of `score`, and for a model of several labels, whose scores have no order.
        """
        self._check_one_label("rank")
        if top_k is not None:
            whole_number("top_k", top_k)
        best: list[RankedDocument] = []
        index = 0
        for window, scores in self._blocks(_beside(query, documents), raw_scores):
            for (_, document), score in zip(window, scores, strict=True):
                best.append(RankedDocument(index, float(score), document if return_documents else None))
                index += 1
            if top_k is not None:
                best = _sorted(best)[:top_k]  # so that memory stays bounded
        return _sorted(best)

    def tokenize(self, pairs: Iterable[Pair]) -> list[Tokens]:
        """Token ids of each pair as the model gets them: special tokens or template included, cut to length."""
        return [tokens for window in _windows(_pairs(pairs)) for tokens in self.model.tokenize(window)]

    def forward(self, feeds: Feeds) -> FloatArray:
        """Logits [B, labels] of a padded batch: int64 [B, T] each for input_ids, attention_mask and token_type_ids.

        For callers with ids of their own. Inputs that the graph does not take may be left out. Raises UsageError
        for one that is missing.
        """
        logits = self.model.compute(self._logits, feeds)
        return logits[:, None] if len(self.labels) == 1 else logits

    def __repr__(self) -> str:
        return f"OnnxReranker({str(self.folder)!r}, labels={len(self.labels)}, max_length={self.max_length})"

    def _check_one_label(self, method: str) -> None:
        if len(self.labels) > 1:
            names = ", ".join(self.labels)
            raise UsageError(
                f"{method} is for models of one label, and this one has {len(self.labels)} ({names}); see score"
            )

    def _blocks(self, pairs: Iterator[Pair], raw_scores: bool) -> Generator[tuple[list[Pair], FloatArray], None, None]:
        """One window of pairs after another, with their scores [N] or [N, labels]."""
        readout = self._logits if raw_scores else self._scores
        return self.model.stream(_windows(pairs), readout, items="pairs")

    def _joined(self, pairs: Iterator[Pair], raw_scores: bool) -> FloatArray:
        """The scores of all pairs."""
        shape = (0,) if len(self.labels) == 1 else (0, len(self.labels))
        blocks = [scores for _, scores in self._blocks(pairs, raw_scores)]
        return np.concatenate([np.empty(shape, np.float32), *blocks])


def _make_tokenizer(
    located: Located, max_length: int, *, truncation: PairTruncation | None, instruction: str | None
) -> TextTokenizer:
    reranking = located.manifest.require_reranking()
    template = reranking.template.value if reranking.template else None
    if instruction is not None and (template is None or template.instruction is None):
        raise UsageError("this model takes no instruction")
    if template is None:
        return PairTokenizer(located, max_length, truncation or reranking.truncation.value)
    if truncation == "only_second":
        raise UsageError("this model puts pairs into a template and cuts the whole of its body, never only_second")
    return TemplateTokenizer(located, max_length, template, instruction)


def _beside(query: str, documents: Iterable[str]) -> Iterator[Pair]:
    """The query beside each document; what is wrong with the query or with `documents` itself is said now."""
    check_text(query, "query")
    texts = _iterate(documents, "documents", "texts")
    return ((query, check_text(text, f"documents[{position}]")) for position, text in enumerate(texts))


def _pairs(pairs: Iterable[Pair]) -> Iterator[Pair]:
    return (_pair(pair, f"pairs[{position}]") for position, pair in enumerate(_iterate(pairs, "pairs", "pairs")))


def _pair(pair: object, where: str) -> Pair:
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        found = f"{type(pair).__name__} of {len(pair)}" if isinstance(pair, tuple | list) else type(pair).__name__
        raise UsageError(f"{where} is {found}, not a pair of a query and a document")
    query, document = pair
    return check_text(query, f"{where}[0]"), check_text(document, f"{where}[1]")


def _iterate(values: Iterable[object], name: str, what: str) -> Iterator[object]:
    """Iterating over a str gives letters, over bytes numbers, over a mapping its keys: none of them is meant."""
    if not isinstance(values, str | bytes | bytearray | Mapping):
        with suppress(TypeError):
            return iter(values)
    raise UsageError(f"{name} is {type(values).__name__}, not a list or another iterable of {what}")


def _sorted(results: list[RankedDocument]) -> list[RankedDocument]:
    """Best first; equal scores stay in the documents' order."""
    return sorted(results, key=lambda result: -result.score)


def _windows(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    return cut(pairs, lambda pair: len(pair[0]) + len(pair[1]))
