"""How two implementations are compared: token ids, the largest differences, and the limits on them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from onnxembed.counting import counted
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import VerificationError
from onnxembed.execution.providers import load_onnxruntime
from onnxembed.manifest import PRECISIONS, Manifest, Verification
from onnxembed.progress import Progress, silent
from onnxembed.proof.differences import Differences, quote
from onnxembed.proof.record import Part
from onnxembed.reranker import OnnxReranker
from onnxembed.runtime.open_model import TOO_LONG
from onnxembed.tokenizer.pairs import Pair

Model = TypeVar("Model", OnnxEmbedder, OnnxReranker)


def forget(reference: str, part: Part) -> None:
    """Keep nothing of what the reference gives."""


@dataclass(frozen=True)
class Comparison:
    """An artifact, and what it is compared with."""

    folder: Path
    """The artifact's folder."""
    manifest: Manifest
    """The artifact's manifest."""
    checkpoint: Path
    """The folder of the checkpoint it was made from."""
    texts: Sequence[str] = ()
    """Texts to compare in addition to the built-in ones."""
    progress: Progress = silent
    """Called as the comparison goes on."""
    base: Path | None = None
    """The folder of the base of a LoRA adapter that lies alone, if that came from the hub."""
    keep: Callable[[str, Part], None] = forget
    """Called with the reference, in words, and what it gives for the probes in one task."""


@contextmanager
def open_on_cpu(model_class: type[Model], folder: Path, precision: str) -> Iterator[Model]:
    """One graph of an artifact on the CPU, without warnings about probes that are too long on purpose."""
    # An adopted graph may have a precision of another name; it is the only graph of its artifact.
    chosen: Any = precision if precision in PRECISIONS else "auto"
    with model_class(folder, precision=chosen, providers="cpu", prove=False) as model, warnings.catch_warnings():
        warnings.filterwarnings("ignore", TOO_LONG)
        yield model


def compare_token_ids(what: str, item: str | Pair, ours: Sequence[int], theirs: Sequence[int]) -> None:
    """Raise VerificationError unless an item's token ids are the reference's; `what` names the item in the message."""
    if ours == theirs:
        return
    shorter = min(len(ours), len(theirs))
    start = next((place for place in range(shorter) if ours[place] != theirs[place]), shorter)
    differ = f", not {len(theirs)}," if len(ours) != len(theirs) else ""
    raise VerificationError(
        f"token ids of a {what} are not the reference's: {quote(item)} has {counted(len(ours), 'token')}{differ} "
        f"and from token {start} on they are {ours[start : start + 8]}, not {theirs[start : start + 8]}"
    )


def verification(differences: Differences, reference: str, texts: int) -> Verification:
    """The figures to record for a graph that was compared with the reference; raises as `judge` does."""
    limits = differences.judge("not the reference's")
    versions = {name: version(name) for name in ("torch", "transformers", "sentence-transformers")}
    return Verification(
        reference=reference,
        texts=texts,
        max_abs_diff=float(f"{differences.max_abs_diff:.3g}"),
        min_cosine=float(f"{differences.min_cosine:.9f}"),
        token_ids_equal=True,
        required=limits.recorded() if limits else {},
        # From the module itself: two distributions provide it.
        versions={**versions, "onnxruntime": load_onnxruntime().__version__},
    )
