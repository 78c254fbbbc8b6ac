"""One explanation from a model's name: of vectors or scores, given or asked for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxembed.arrays import Array
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.explain.explain import explain
from onnxembed.explain.live import IN_FIXES, System
from onnxembed.explain.probes import PAIRS, PROBES
from onnxembed.explain.report import Report
from onnxembed.explain.scores import explain_scores
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import read_model_manifest
from onnxembed.reranker import OnnxReranker
from onnxembed.tokenizer.pairs import Pair


@dataclass(frozen=True)
class Theirs:
    """What another program made: vectors [N, D] of texts, or scores [N] of pairs."""

    items: Sequence[str] | Sequence[Pair]
    numbers: Array

    @property
    def of_pairs(self) -> bool:
        """Whether these are scores of pairs."""
        return bool(self.items) and not isinstance(self.items[0], str)


def explain_given(
    model: str | Path | OnnxEmbedder | OnnxReranker,
    theirs: Theirs,
    *,
    prompt: str | None = None,
    prompt_name: str | None = None,
    system: str | None = None,
    **options: Any,
) -> Report:
    """The report about given vectors or scores; `options` are those of OnnxEmbedder and OnnxReranker."""
    if not theirs.of_pairs:
        embedder = model if isinstance(model, OnnxEmbedder) else _open_embedder(_name(model), options)
        with nullcontext(embedder) if embedder is model else embedder as opened:
            texts = [text for text in theirs.items if isinstance(text, str)]
            return explain(opened, texts, theirs.numbers, prompt=prompt, prompt_name=prompt_name, system=system)
    if prompt is not None or prompt_name is not None:
        raise UsageError("pairs have no prompt: leave out --prompt and --prompt-name")
    reranker = model if isinstance(model, OnnxReranker) else OnnxReranker(_name(model), **options)
    with nullcontext(reranker) if reranker is model else reranker as opened_reranker:
        pairs = [pair for pair in theirs.items if not isinstance(pair, str)]
        return explain_scores(opened_reranker, pairs, theirs.numbers, system=system)


def explain_system(
    model: str | Path,
    system: System,
    texts: Sequence[str] | Sequence[Pair] | None = None,
    *,
    prompt: str | None = None,
    prompt_name: str | None = None,
    **options: Any,
) -> Report:
    """The report about a system that runs now, on some texts or pairs; on built-in ones if None.

    `model` and `options` are those of OnnxEmbedder, or of OnnxReranker for a model that scores pairs. Raises
    NetworkError for a system that does not answer, and UsageError for an answer that has no vectors or scores.
    """
    if _scores_pairs(model, options):
        pairs = [pair for pair in (PAIRS if texts is None else texts) if isinstance(pair, tuple)]
        if not pairs:
            raise UsageError("this model scores pairs, and these are texts: leave out --texts")
        theirs = Theirs(pairs, system.scores(pairs))
    else:
        plain = [text for text in (PROBES if texts is None else texts) if isinstance(text, str)]
        theirs = Theirs(plain, system.vectors(plain))
    return explain_given(model, theirs, prompt=prompt, prompt_name=prompt_name, system=IN_FIXES[system.kind], **options)


def _scores_pairs(model: str | Path, options: Mapping[str, Any]) -> bool:
    names = ("revision", "cache_dir", "local_files_only", "token")
    hub = HubOptions(**{name: options[name] for name in names if name in options})
    return read_model_manifest(model, hub, options.get("onnx_file")).manifest.reranking is not None


def _open_embedder(model: str | Path, options: Mapping[str, Any]) -> OnnxEmbedder:
    try:
        return OnnxEmbedder(model, **options)
    except UsageError as error:
        if _scores_pairs(model, options):
            raise UsageError(
                "this model scores pairs, and these are vectors of texts: name a .jsonl file with query, document and "
                "score in each line"
            ) from error
        raise


def _name(model: str | Path | OnnxEmbedder | OnnxReranker) -> str | Path:
    if isinstance(model, OnnxEmbedder | OnnxReranker):
        raise UsageError("vectors are explained with an OnnxEmbedder, and scores with an OnnxReranker")
    return model
