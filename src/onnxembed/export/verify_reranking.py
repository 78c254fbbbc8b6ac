"""A reranker's logits against sentence-transformers' CrossEncoder. Needs the extra [torch], `self_check` does not.

Compared are token ids and segments; logits and scores of each pair alone and of all together; and the raw graph
on left- and right-padded batches of the same ids, of which the logits must be those of the pairs alone.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxembed.errors import MissingExtraError, VerificationError
from onnxembed.export.artifact import Progress
from onnxembed.export.probes import PROBES, overlong_text
from onnxembed.export.reference import BATCH, contained, set_attention
from onnxembed.export.stock import stock_folder
from onnxembed.manifest import Manifest, Precision, Reranking, Template, Verification
from onnxembed.model_types import MODEL_TYPES
from onnxembed.pairs import Pair
from onnxembed.reranker import OnnxReranker
from onnxembed.session import load_onnxruntime
from onnxembed.tokenizing import Tokens

FloatArray = NDArray[np.float32]
Feeds = dict[str, NDArray[np.int64]]

# Limits for logits of at most 1; rounding is a share of the numbers, so for larger ones the limit grows with them.
REQUIRED: dict[Precision, float] = {"fp32": 1e-5, "fp16": 0.02}

QUERY = "What is the capital of France?"
# A template's placeholder in a text is text; the rest is what a pair can be: empty, alike, long on either side.
PAIRS: tuple[Pair, ...] = (
    *((QUERY, text) for text in PROBES),
    *((text, "Paris is the capital of France.") for text in PROBES[::4]),
    ("", ""),
    (PROBES[-1], PROBES[-1]),
    ("{query} of {document}", "{query} {instruction}"),
)


def probe_pairs(max_length: int) -> list[Pair]:
    """The probes, and pairs longer than a limit of up to 512 tokens: in their document, their query, and both."""
    long = overlong_text(min(max_length, 512))
    return [*PAIRS, (QUERY, long), (long, "Paris"), (long, long)]


class CrossEncoderReference:
    """A checkpoint folder in sentence-transformers, never with remote code; a template is the manifest's."""

    def __init__(self, checkpoint: Path, manifest: Manifest) -> None:
        import torch
        from sentence_transformers import CrossEncoder

        self.name = f"sentence-transformers {version('sentence-transformers')}, float32, eager attention"
        self._torch = torch
        reranking = manifest.require_reranking()
        with contained("be loaded"):
            model: Any = CrossEncoder(
                str(checkpoint),
                device="cpu",
                local_files_only=True,
                model_kwargs={"dtype": torch.float32, "attn_implementation": "eager"},
            )
            self._model = model.eval()
            transformer = model[0]
            if MODEL_TYPES[manifest.model.model_type].decoder:
                set_attention(transformer.model.config, manifest.model.attention.value)
            _set_template(transformer, reranking)
            model.max_seq_length = manifest.tokenization.max_length.value

    @property
    def activation(self) -> str:
        """The class that makes scores of logits."""
        return type(self._model.activation_fn).__name__

    def tokenize(self, pairs: Sequence[Pair]) -> list[Mapping[str, list[int]]]:
        """Token ids, and segments where it feeds them, as `predict` makes them."""
        with contained("tokenize"):
            features = [self._model.preprocess([pair]) for pair in pairs]
            names = ("input_ids", "token_type_ids")
            return [{name: each[name][0].tolist() for name in names if name in each} for each in features]

    def logits(self, pairs: Sequence[Pair]) -> FloatArray:
        """Logits [N, labels]."""
        with contained("be run"):
            found: FloatArray = self._model.predict(
                list(pairs), batch_size=1, activation_fn=self._torch.nn.Identity(), show_progress_bar=False
            )
        return found.reshape(len(pairs), -1)

    def scores(self, pairs: Sequence[Pair]) -> FloatArray:
        """Scores [N, labels] the way a user of sentence-transformers gets them."""
        with contained("be run"):
            found: FloatArray = self._model.predict(list(pairs), batch_size=1, show_progress_bar=False)
        return found.reshape(len(pairs), -1)


def verify_reranking(
    folder: Path,
    manifest: Manifest,
    checkpoint: Path,
    *,
    texts: Sequence[str] = (),
    progress: Progress = lambda stage, done, total: None,
) -> Manifest:
    """Compare every graph of a reranker's artefact with its checkpoint; returns the manifest with the figures.

    `texts` are compared as documents, beside the built-in pairs. Raises VerificationError when token ids, logits
    or scores differ by more than the limits, or the reference cannot be run.
    """
    progress("loading the reference", 0, 1)
    with stock_folder(checkpoint) as stock:
        reference = CrossEncoderReference(stock, manifest)
    pairs = [*probe_pairs(manifest.tokenization.max_length.value), *((QUERY, text) for text in texts)]
    with _opened(folder, manifest.on_cpu[0]) as model:
        tokens = model.tokenize(pairs)
    _compare_tokens(manifest, pairs, tokens, reference.tokenize(pairs))
    progress("running the reference", 0, 1)
    expected, scores = reference.logits(pairs), reference.scores(pairs)
    versions = {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}
    versions["onnxruntime"] = load_onnxruntime().__version__  # from whichever of its two wheels
    results = {}
    for name in manifest.on_cpu:
        precision: Precision = name  # type: ignore[assignment]  # a manifest's variants are precisions
        progress(f"verifying {precision}", 0, 1)
        worst, required = _differences(folder, precision, pairs, tokens, expected)
        with _opened(folder, precision) as model:
            ours = model.score_pairs(pairs).reshape(scores.shape)
        # No activation stretches differences of logits by much: others are those of another activation.
        decided = manifest.require_reranking().activation.origin in ("flag", "recipe")
        if not decided and np.abs(ours - scores).max() > 2 * required:
            raise VerificationError(
                f"{precision} scores are not the reference's, which makes them with {reference.activation}"
            )
        results[str(precision)] = Verification(
            reference=reference.name,
            texts=len(pairs),
            max_abs_diff=float(f"{worst:.3g}"),
            min_cosine=None,
            token_ids_equal=True,
            required={"max_abs_diff": required},
            versions=versions,
        )
    return replace(manifest, verification=results)


def self_check(folder: Path, manifest: Manifest) -> str:
    """Run a reranker where there is no reference; returns what was done, in words.

    Raises VerificationError for logits that are not finite, or not the same alone, in runs and in a padded batch.
    """
    try:
        for precision in manifest.on_cpu:
            with _opened(folder, precision) as model:
                tokens = model.tokenize(PAIRS)
                alone = np.concatenate([_logits(model, [pair]) for pair in PAIRS])
            _differences(folder, precision, PAIRS, tokens, alone)  # type: ignore[arg-type]
    except MissingExtraError as error:
        return f"not even run: {error}"
    return f"run on {len(PAIRS)} pairs: scores are finite, and the same for a pair alone and among others"


def _differences(
    folder: Path, precision: Precision, pairs: Sequence[Pair], tokens: Sequence[Tokens], expected: FloatArray
) -> tuple[float, float]:
    """The largest difference of logits in any way of running the pairs, and its limit."""
    required = REQUIRED[precision] * max(1.0, float(np.abs(expected).max()))
    required = float(f"{required:.3g}")
    worst: dict[str, float] = {}
    with _opened(folder, precision) as model:
        for way, at, logits in _ways(model, pairs, tokens):
            if logits.shape != expected[at].shape:
                raise VerificationError(f"{precision} logits have shape {logits.shape}, not {expected[at].shape}")
            if not np.isfinite(logits).all():
                raise VerificationError(f"{precision} logits are not finite (run {way})")
            worst[way] = max(worst.get(way, 0.0), float(np.abs(logits - expected[at]).max()))
    if max(worst.values()) > required:
        ways = ", ".join(f"{way} {diff:.1e}" for way, diff in worst.items())
        raise VerificationError(
            f"{precision} logits are off: max abs difference {max(worst.values()):.1e} (at most {required:g}); "
            f"by way of running: {ways}"
        )
    return max(worst.values()), required


def _ways(
    model: OnnxReranker, pairs: Sequence[Pair], tokens: Sequence[Tokens]
) -> Iterator[tuple[str, slice, FloatArray]]:
    """Every way of running the pairs, which of them, and their logits."""
    for index, pair in enumerate(pairs):
        yield "alone", slice(index, index + 1), _logits(model, [pair])
    yield "together", slice(None), _logits(model, pairs)
    known = MODEL_TYPES[model.manifest.model.model_type]
    # Padding on the left moves the positions of a table that counts slots: no such logit means anything.
    moved = known.has_position_table({}) and not known.positions_after_pad
    for side in ("right", "left")[: 1 if moved else 2]:
        for start in range(0, len(pairs), BATCH):
            rows = slice(start, start + BATCH)
            yield f"padded {side}", rows, model.forward(padded(tokens[rows], model.manifest, side))


def padded(tokens: Sequence[Tokens], manifest: Manifest, side: str) -> Feeds:
    """A batch with every row padded to the longest on one side, segments included."""
    shape = (len(tokens), max(1, *map(len, tokens)))
    feeds = {
        "input_ids": np.full(shape, manifest.tokenization.pad_token_id.value, np.int64),
        "attention_mask": np.zeros(shape, np.int64),
        "token_type_ids": np.zeros(shape, np.int64),
    }
    for row, each in enumerate(tokens):
        place = slice(0, len(each)) if side == "right" else slice(shape[1] - len(each), shape[1])
        feeds["input_ids"][row, place] = each.ids
        feeds["attention_mask"][row, place] = 1
        feeds["token_type_ids"][row, place] = each.type_ids
    return feeds


def _logits(model: OnnxReranker, pairs: Sequence[Pair]) -> FloatArray:
    return model.score_pairs(pairs, raw_scores=True).reshape(len(pairs), -1)


def _compare_tokens(
    manifest: Manifest, pairs: Sequence[Pair], tokens: Sequence[Tokens], theirs: Sequence[Mapping[str, list[int]]]
) -> None:
    segments = "token_type_ids" in manifest.model.inputs
    for (query, document), each, reference in zip(pairs, tokens, theirs, strict=True):
        where = f"of ({query[:30]!r}, {document[:30]!r})"
        ours = each.ids.tolist()
        if ours != reference["input_ids"]:
            shorter = min(len(ours), len(reference["input_ids"]))
            at = next((i for i in range(shorter) if ours[i] != reference["input_ids"][i]), shorter)
            raise VerificationError(
                f"token ids {where} are not the reference's: {len(ours)} tokens, not {len(reference['input_ids'])}, "
                f"and from token {at} on {ours[at : at + 8]}, not {reference['input_ids'][at : at + 8]}"
            )
        if segments and each.type_ids.tolist() != reference.get("token_type_ids", [0] * len(ours)):
            raise VerificationError(f"the segments {where} are not the reference's")


def _set_template(transformer: Any, reranking: Reranking) -> None:
    """Give the reference the manifest's template, as the program that it takes."""
    if reranking.template is None:
        transformer.processor.chat_template = None
        transformer.modality_config.pop("message", None)
        return
    transformer.processor.chat_template = _program(reranking.template.value)
    message = {**transformer.modality_config["text"], "format": "flat"}
    transformer.modality_config = {**transformer.modality_config, "message": message}


def _program(template: Template) -> str:
    """A chat template that makes of a query message and a document message what `template` makes of a pair."""
    text = template.prefix + template.body + template.suffix
    text = text.replace("{instruction}", template.instruction or "")
    first, _, rest = text.partition("{query}")
    middle, _, last = rest.partition("{document}")
    if "{document}" in first:
        raise VerificationError("a template with the document before its query cannot be compared")
    pick = 'messages | selectattr("role", "eq", "{}") | map(attribute="content") | first'
    parts = [json.dumps(first), pick.format("query"), json.dumps(middle), pick.format("document"), json.dumps(last)]
    return "".join("{{ " + part + " }}" for part in parts)


@contextmanager
def _opened(folder: Path, precision: str) -> Iterator[OnnxReranker]:
    """One graph on the CPU, which does not warn of the pairs that are too long on purpose."""
    with (
        OnnxReranker(folder, precision=precision, providers="cpu") as model,  # type: ignore[arg-type]
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings("ignore", r"\d+ of \d+ pairs were longer than max_length")
        yield model
