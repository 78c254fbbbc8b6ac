"""Makes proofs: from what a reference gave, or else from the plain fp32 graph on the CPU."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from onnxembed.arrays import FloatArray
from onnxembed.errors import VerificationError
from onnxembed.execution.providers import Placement, load_onnxruntime
from onnxembed.manifest import PROOF_FILE, TASKS, TEXT_KINDS, FileRecord, Manifest, Task, TextKind
from onnxembed.proof.compare import WAYS, alone, compare, computation, rows_of, tokenize
from onnxembed.proof.limits import Limits
from onnxembed.proof.probes import recorded_pairs, recorded_texts
from onnxembed.proof.record import Part, Proof, brief, write_proof
from onnxembed.runtime.open_model import OpenModel
from onnxembed.runtime.outputs.multi_vector import treats_alike
from onnxembed.runtime.tokenizing import make_tokenizer


class Recorder:
    """Collects what a reference gives for the probes."""

    def __init__(self) -> None:
        self._names: list[str] = []
        self._parts: list[Part] = []

    def keep(self, reference: str, part: Part) -> None:
        """Add what a reference gives in one task."""
        if reference not in self._names:
            self._names.append(reference)
        self._parts.append(part)

    def proof(self, manifest: Manifest) -> Proof:
        """The proof of all parts, with the probes that are recorded."""
        return Proof("; ".join(self._names), tuple(shortened(manifest, part) for part in self._parts))


def kinds_of(manifest: Manifest, task: Task) -> tuple[TextKind | None, ...]:
    """The kinds of text that a task treats differently; (None,) if it treats all texts alike."""
    if task == "multi_vector" and not treats_alike(manifest.require_multi_vector()):
        return TEXT_KINDS
    return (None,)


def prompt_of(manifest: Manifest, kind: TextKind | None) -> str:
    """The prompt before the texts of a kind; none where kinds are treated alike."""
    return manifest.prompts.texts.value.get(kind, "") if kind else ""


@contextmanager
def plain(folder: Path, precision: str = "fp32") -> Iterator[OpenModel]:
    """A graph of an artifact on the CPU; its files were checked already."""
    opened = OpenModel(
        folder,
        TASKS,
        Placement("cpu"),
        precision=precision,
        check_files=False,
        make_tokenizer=make_tokenizer,
    )
    try:
        yield opened
    finally:
        opened.close()


def proof_of_graph(folder: Path) -> Proof:
    """The proof that an artifact's fp32 graph gives on the CPU, each item alone.

    Raises VerificationError for outputs that are not finite.
    """
    with plain(folder) as opened:
        name = f"the fp32 graph on the CPU, onnxruntime {load_onnxruntime().__version__}"
        return Proof(
            name,
            tuple(
                _part(opened, task, kind) for task in opened.manifest.tasks for kind in kinds_of(opened.manifest, task)
            ),
        )


def shortened(manifest: Manifest, part: Part) -> Part:
    """The part with the probes that are recorded, and their outputs as far as there is room."""
    limit = manifest.tokenization.max_length.value
    if part.task == "reranking":
        return brief(part, recorded_pairs(limit))
    prompt = prompt_of(manifest, part.kind)
    return brief(part, [prompt + text for text in recorded_texts(limit)])


def with_measures(folder: Path, manifest: Manifest, proof: Proof) -> Proof:
    """The proof with how far the artifact's integer graphs are from it on this CPU, in all ways of running."""
    measured: dict[str, dict[str, Limits]] = {}
    for precision in manifest.on_cpu:
        if manifest.variants[precision].quality is None:
            continue
        farthest: dict[str, Limits] = {}
        with plain(folder, precision) as opened:
            for figure in compare(opened, proof, WAYS):
                before = farthest.get(figure.part, Limits(0.0, 1.0))
                cosine = 1.0 if figure.min_cosine is None else figure.min_cosine
                farthest[figure.part] = Limits(
                    max(before.max_abs_diff, figure.max_abs_diff), min(before.min_cosine or 0.0, cosine)
                )
        measured[precision] = farthest
    return replace(proof, measured=measured)


def check_halves(folder: Path, manifest: Manifest, proof: Proof) -> None:
    """Raise VerificationError for a graph of shorter floats that does not give what the proof says.

    Numbers that overflow are not always seen in the results: the weights of sparse embeddings, max(0, NaN), are 0.
    """
    for precision in manifest.on_cpu:
        if precision == "fp32" or manifest.variants[precision].quality is not None:
            continue
        try:
            with plain(folder, precision) as opened:
                faults = [f"{figure.part}: {figure.fault}" for figure in compare(opened, proof) if figure.fault]
        except VerificationError as error:
            faults = [f"{error}"]
        if faults:
            raise VerificationError(
                f"the {precision} graph does not give what the fp32 graph does: where its numbers overflow, only "
                f"another --precision helps ({'; '.join(faults)})"
            )


def add_proof(folder: Path, manifest: Manifest, proof: Proof) -> Manifest:
    """Write a proof into an artifact; returns the manifest with its record, which is not written."""
    write_proof(folder, with_measures(folder, manifest, proof))
    data = (folder / PROOF_FILE).read_bytes()
    record = FileRecord(hashlib.sha256(data).hexdigest(), len(data))
    return replace(manifest, files=dict(sorted({**manifest.files, PROOF_FILE: record}.items())))


def _part(opened: OpenModel, task: Task, kind: TextKind | None) -> Part:
    manifest, limit = opened.manifest, opened.manifest.tokenization.max_length.value
    prompt = prompt_of(manifest, kind)
    items = recorded_pairs(limit) if task == "reranking" else [prompt + text for text in recorded_texts(limit)]
    empty = Part(task, kind, items, [], [])
    tokens = tokenize(opened, empty)
    results = alone(computation(opened, empty), tokens)
    outputs: list[FloatArray] = [rows_of(manifest, empty, result) for result in results]
    if not all(np.isfinite(output).all() for output in outputs):
        raise VerificationError("the fp32 graph gives numbers that are not finite: the model overflows")
    return shortened(manifest, replace(empty, tokens=tokens, outputs=outputs))
