"""OnnxReranker: a query and documents -> pairs -> token ids -> runs without padding -> graph -> scores in order."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Unpack, overload

import numpy as np

from onnxembed.arguments import check_text, whole_number
from onnxembed.arrays import Feeds, FloatArray
from onnxembed.errors import UsageError
from onnxembed.execution.providers import Placement, Providers
from onnxembed.hub.source import HubOptions
from onnxembed.loading.choices import AdoptionChoices
from onnxembed.manifest import PAIR_TRUNCATIONS, PairTruncation, Precision, ScoreActivation
from onnxembed.proof.opening import proved
from onnxembed.runtime.asynchronous import twin
from onnxembed.runtime.given import Given, given_pairs, iterate, length, plain
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.options import Options, PromptOptions, take_options
from onnxembed.runtime.outputs.scores import ScoresReadout
from onnxembed.runtime.progress import Blocks, shown
from onnxembed.runtime.public_base import OnnxModel
from onnxembed.runtime.streaming import collected, cut
from onnxembed.runtime.tokenizing import make_pair_tokenizer
from onnxembed.tokenizer.pairs import Pair
from onnxembed.tokenizer.texts import Tokens


@dataclass(frozen=True)
class RankedDocument:
    """A document in a ranking."""

    index: int
    """Its position among the documents that were ranked, from 0."""
    score: float
    text: str | None = None
    """The document itself, if it was asked for."""

    def __getitem__(self, key: Literal["corpus_id", "score", "text"]) -> Any:
        """The parts by the keys that sentence-transformers' CrossEncoder.rank gives them."""
        return {"corpus_id": self.index, "score": self.score, "text": self.text}[key]


class OnnxReranker(OnnxModel):
    """A reranker (cross-encoder), from a folder or a hub repository with an artifact.

    Needs numpy, tokenizers and onnxruntime; never torch. Safe to use from many threads. `with
    OnnxReranker(...) as model:` frees the graph at the end of the block, as `close()` does.

    Args:
        model: a folder that `onnxembed export` wrote, or the hub id of a repository with its files. A folder or
            repository with a reranker's ONNX graph from elsewhere is adopted in memory: what its logits mean is
            decided from its files as for an export, and nothing has been verified.
        precision: "fp32", "fp16", "bf16", "int16", "int8", "int8w", or "auto": fp32 if the artifact has it, else the
            first one that it has. bf16 is for CUDA, and for CPUs with its instructions, which compute the fp32 graph.
        onnx_file: the path of the graph to adopt, if it is not onnx/model.onnx or model.onnx.
        activation: what turns the logits of a graph to adopt into scores, whatever its files say: "sigmoid",
            "identity" and others. About an artifact, it is decided.
        share_scales: run the pairs of a graph to adopt together although they share a scale; see OnnxEmbedder.
        providers: "auto" (CUDA if it can be used, else the CPU), "cpu", "cuda", "tensorrt", or a list of ONNX
            Runtime's provider names or (name, options) pairs, in order of preference.
        threads: the number of CPU threads; all that the process may use if None.
        spin: whether the threads that compute a single text keep their cores busy until the next one. It then takes a
            little less time, and the cores serve nothing else.
        device_id: the number of the GPU to use; the first one if None.
        device_ids: the numbers of several GPUs to share the work among, instead of `device_id`.
        max_length: pairs are cut to this many tokens; at most the model's own limit, which is the default.
        truncation: how to cut a pair that is too long: "longest_first" takes tokens from the longer of the two
            texts, "only_second" from the document alone; None does what the manifest says. A model with a
            template cuts the body of the template.
        instruction: what a model with a template is told to look for; the model's own instruction if None.
        prompts: prompts by name, which a call names by `prompt_name`; a prompt goes before the query.
        default_prompt_name: the name of the prompt for calls that name none.
        revision: a branch, tag or commit of a hub repository. A branch or tag is asked for each time a model is
            opened; if the hub cannot be reached, the copy in the cache is used, with a warning. A commit in the cache
            asks nothing. The attribute `revision` is the commit that is open.
        cache_dir: where hub files are kept; the hub client's standard cache if None.
        local_files_only: use the files in the cache, and never ask the hub.
        refresh: download every file anew, whatever the cache has.
        token: the hub's access token; the one of HF_TOKEN or `hf auth login` if None, no token if False.
        check_files: compare the sha256 of every file with the manifest while loading.
        prove: whether to compare the graph's scores with the artifact's proof first; see OnnxEmbedder.

    Raises:
        ModelFilesError: the model is not an artifact, or its files are not the ones that its manifest records.
        HubError: the hub could not be reached, or it refused.
        ProviderError: a requested provider cannot be used.
        ProofError: the graph does not give the model's own scores on this machine.
        UsageError: an argument has an impossible value, or the artifact is not a reranker.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        precision: Literal["auto"] | Precision = "auto",
        onnx_file: str | None = None,
        activation: ScoreActivation | None = None,
        share_scales: bool = False,
        providers: Providers = "auto",
        threads: int | None = None,
        spin: bool = False,
        device_id: int | None = None,
        device_ids: Sequence[int] | None = None,
        max_length: int | None = None,
        truncation: PairTruncation | None = None,
        instruction: str | None = None,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        revision: str | None = None,
        cache_dir: str | Path | None = None,
        local_files_only: bool = False,
        refresh: bool = False,
        token: str | bool | None = None,
        check_files: bool = True,
        prove: bool | None = None,
    ) -> None:
        if truncation not in (None, *PAIR_TRUNCATIONS):
            raise UsageError(f"truncation is {truncation!r}, not {' or '.join(PAIR_TRUNCATIONS)}")
        if instruction is not None:
            check_text(instruction, "instruction")
        placement = Placement(providers, threads, device_id, device_ids, spin=spin)
        opened = OpenModel(
            model,
            ("reranking",),
            placement,
            hub=HubOptions(revision, cache_dir, local_files_only, refresh, token),
            precision=precision,
            onnx_file=onnx_file,
            max_length=max_length,
            prompts=prompts,
            default_prompt_name=default_prompt_name,
            check_files=check_files,
            choices=AdoptionChoices(activation=activation, share_scales=share_scales),
            make_tokenizer=partial(make_pair_tokenizer, truncation=truncation, instruction=instruction),
        )
        own = truncation is None and instruction is None
        self._open(proved(opened, placement, prove, tokens=own))

    def _use(self, model: OpenModel) -> None:
        super()._use(model)
        section = model.manifest.require_reranking()
        self.labels = section.labels.value
        """The names of the model's labels: one for a reranker, several for a classifier of pairs."""
        self._scores, self._logits = ScoresReadout(section, raw=False), ScoresReadout(section, raw=True)

    def score(
        self, query: str, documents: Iterable[str], *, raw_scores: bool = False, **options: Unpack[PromptOptions]
    ) -> FloatArray:
        """The score of each document for the query, float32 [N]; [N, labels] for a model with several labels.

        Args:
            query: one text.
            documents: any iterable of texts; none gives an empty array.
            raw_scores: return logits, without the model's activation.
            options: prompt and prompt_name, of a text to put before the query; batch_size, show_progress, read_ahead
                and truncate, as for `OnnxEmbedder.embed`.

        Raises:
            UsageError: the query or a document is not a str (the message names its position), the documents are
                a single str, or the reranker is closed.
        """
        return self._joined(_beside(query, documents), raw_scores, take_options("score", options, PromptOptions))

    def score_pairs(
        self, pairs: Pair | Iterable[Pair], *, raw_scores: bool = False, **options: Unpack[PromptOptions]
    ) -> FloatArray:
        """The score of each (query, document) pair; of one pair, a float32 scalar, or [labels].

        Otherwise as `score`.
        """
        return self._scored("score_pairs", pairs, raw_scores, options)

    def predict(
        self, pairs: Pair | Iterable[Pair], *, raw_scores: bool = False, **options: Unpack[PromptOptions]
    ) -> FloatArray:
        """`score_pairs`, by the name that sentence-transformers' CrossEncoder gives it."""
        return self._scored("predict", pairs, raw_scores, options)

    def score_stream(
        self, pairs: Pair | Iterable[Pair], *, raw_scores: bool = False, **options: Unpack[PromptOptions]
    ) -> Generator[FloatArray, None, None]:
        """Stream the score of each pair, in order: float32 scalars, or [labels] for a model with several labels.

        Takes any iterable, even an endless one: about two thousand pairs are read ahead, and memory stays bounded.
        """
        blocks = self._blocks(given_pairs(pairs), raw_scores, take_options("score_stream", options, PromptOptions))
        return (score for _, scores in blocks for score in scores)

    def rerank(
        self, query: str, documents: Iterable[str], **options: Unpack[PromptOptions]
    ) -> Generator[float, None, None]:
        """Stream the logit of each document, in order, as FastEmbed's TextCrossEncoder.rerank does.

        For models with one label; memory stays bounded. Errors as for `score`.
        """
        self._check_one_label("rerank")
        taken = take_options("rerank", options, PromptOptions)
        blocks = self._blocks(_beside(query, documents), True, taken)
        return (float(score) for _, scores in blocks for score in scores)

    def rank(
        self,
        query: str,
        documents: Iterable[str],
        *,
        top_k: int | None = None,
        return_documents: bool = False,
        raw_scores: bool = False,
        **options: Unpack[PromptOptions],
    ) -> list[RankedDocument]:
        """The documents sorted by their score for the query, best first; equal scores in the documents' order.

        Args:
            query: one text.
            documents: any iterable of texts.
            top_k: keep only the best `top_k` documents.
            return_documents: put the text of each document into its result.
            raw_scores: sort by logits, and return them.
            options: as for `score`.

        Raises:
            UsageError: as for `score`, and for a model with several labels, whose scores have no order.
        """
        self._check_one_label("rank")
        if top_k is not None:
            whole_number("top_k", top_k)
        best: list[RankedDocument] = []
        index = 0
        taken = take_options("rank", options, PromptOptions)
        for window, scores in self._blocks(_beside(query, documents), raw_scores, taken):
            for (_, document), score in zip(window, scores, strict=True):
                best.append(RankedDocument(index, float(score), document if return_documents else None))
                index += 1
            if top_k is not None:
                best = _sorted(best)[:top_k]  # so that memory stays bounded
        return _sorted(best)

    ascore = twin(score)
    apredict = twin(predict)
    arank = twin(rank)

    @overload
    def tokenize(self, pairs: Pair) -> Tokens: ...
    @overload
    def tokenize(self, pairs: Iterable[Pair]) -> list[Tokens]: ...
    def tokenize(self, pairs: Pair | Iterable[Pair]) -> Tokens | list[Tokens]:
        """The ids and tokens of each pair, cut to length, with special tokens or template; of one pair, its own."""
        given = given_pairs(pairs)
        tokens = [tokens for window in _windows(given.items) for tokens in self.model.tokenize_named(window)]
        return tokens[0] if given.single else tokens

    def forward(self, feeds: Feeds) -> FloatArray:
        """Logits [B, labels] of a padded batch: int64 [B, T] each for input_ids, attention_mask and token_type_ids.

        For callers that tokenize themselves. Inputs that the graph does not take may be left out. Raises
        UsageError if another one is missing.
        """
        logits = self.model.compute(self._logits, feeds)
        return logits[:, None] if len(self.labels) == 1 else logits

    def __repr__(self) -> str:
        return f"OnnxReranker({str(self.folder)!r}, labels={len(self.labels)}, max_length={self.max_length})"

    def _scored(
        self, method: str, pairs: Pair | Iterable[Pair], raw_scores: bool, options: PromptOptions
    ) -> FloatArray:
        """The scores of pairs, or of one pair; `method` is what the caller called."""
        given = given_pairs(pairs)
        scores = self._joined(given, raw_scores, take_options(method, options, PromptOptions))
        return scores[0] if given.single else scores

    def _check_one_label(self, method: str) -> None:
        if len(self.labels) > 1:
            names = ", ".join(self.labels)
            raise UsageError(
                f"{method} is for models with one label, and this one has {len(self.labels)} ({names}); see score"
            )

    def _blocks(self, pairs: Given[Pair], raw_scores: bool, options: Options) -> Blocks[Pair, FloatArray]:
        """One window of pairs after another, with their scores [N] or [N, labels]."""
        readout = self._logits if raw_scores else self._scores
        windows = partial(_windows, self._prompted(pairs.items, options))
        blocks = self.model.stream(windows, readout, items="pairs", reading=options.reading)
        return shown(blocks, pairs.total, "pair") if options.show_progress else blocks

    def _prompted(self, pairs: Iterator[Pair], options: Options) -> Iterator[Pair]:
        """The pairs with a prompt before the first text, as in sentence-transformers' CrossEncoder."""
        prompt = self.model.prompting.choose(options.prompt, options.prompt_name)
        if not prompt:
            return pairs
        if self.manifest.require_reranking().template is not None:
            raise UsageError("this model puts pairs into a template of its own; instruction=... says what to look for")
        return ((prompt + query, document) for query, document in pairs)

    def _joined(self, pairs: Given[Pair], raw_scores: bool, options: Options) -> FloatArray:
        """The scores of all pairs."""
        shape = (0,) if len(self.labels) == 1 else (0, len(self.labels))
        blocks = collected(self._blocks(pairs, raw_scores, options))
        return np.concatenate([np.empty(shape, np.float32), *blocks])


def _beside(query: str, documents: Iterable[str]) -> Given[Pair]:
    """The query with each document. The query is checked at once, and that `documents` is an iterable of texts."""
    checked = check_text(plain(query), "query")
    texts = iterate(documents, "documents", "a list or another iterable of texts")
    pairs = ((checked, check_text(plain(text), f"documents[{position}]")) for position, text in enumerate(texts))
    return Given(pairs, single=False, total=length(documents))


def _sorted(results: list[RankedDocument]) -> list[RankedDocument]:
    """Best first; equal scores stay in the documents' order."""
    return sorted(results, key=lambda result: -result.score)


def _windows(pairs: Iterator[Pair], limit: int | None = None) -> Iterator[list[Pair]]:
    return cut(pairs, lambda pair: len(pair[0]) + len(pair[1]), limit)
