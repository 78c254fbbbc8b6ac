"""The check of a model that was opened: its proof is found, run, and remembered when it passed."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Sequence
from typing import Any

from onnxembed.errors import ProofError, VerificationError
from onnxembed.execution.openvino import load_openvino
from onnxembed.execution.providers import (
    CPU,
    CUDA,
    GPU_PROVIDERS,
    OPENVINO,
    TENSORRT,
    Placement,
    load_onnxruntime,
    wanted_providers,
)
from onnxembed.proof import remembered
from onnxembed.proof.compare import Figure, compare, left_out
from onnxembed.proof.opening import VARIABLE
from onnxembed.proof.record import Proof, read_proof
from onnxembed.proof.recording import proof_of_graph
from onnxembed.runtime.open_model import OpenModel
from onnxembed.warning import warn

LARGE = 2**30
"""Graphs of more bytes than this take seconds to check; a message says so before."""

_LOG = logging.getLogger("onnxembed.proof")


def check_once(opened: OpenModel, placement: Placement, *, tokens: bool = True, again: bool = False) -> None:
    """Run a model on its proof, unless it passed on this machine already; `again` runs it all the same.

    Raises ProofError with what was measured and what to do. Warns of an artifact that has no proof.
    """
    name = remembered.key(opened, placement, _ways(opened), tokens=tokens)
    if again or remembered.passed(name) is None:
        proof = find_proof(opened)
        if proof is None:
            _say_unproved(opened)
            return
        check(opened, placement, proof, name, tokens=tokens)
    prove_later(opened, placement, again=again)


def prove_later(opened: OpenModel, placement: Placement, *, again: bool = False) -> None:
    """Check a session that the model opens later, too, before it is used: its threads divide the work otherwise.

    It computes single texts alone, or a few in one run. The tokenizer was compared before. What passed is remembered,
    unless `again`.
    """
    model = weakref.ref(opened)  # it holds its sessions, and they hold this function

    def prove() -> None:
        later = model()
        if later is None:
            return
        ways = ("alone", *_ways(later))
        name = remembered.key(later, placement, ways, tokens=False)
        if (again or remembered.passed(name) is None) and (proof := find_proof(later)) is not None:
            check(later, placement, proof, name, ways, tokens=False)

    opened.backend.prove_later(prove)


def find_proof(opened: OpenModel) -> Proof | None:
    """The artifact's proof; without one, what its fp32 graph gives on the CPU; None if it has neither.

    Adopted graphs have none: nobody knows what their model gives.
    """
    if (proof := read_proof(opened.folder)) is not None:
        return proof
    fp32 = opened.manifest.variants.get("fp32")
    if fp32 is None or opened.manifest.model.engine == "adopted":
        return None
    if not all((opened.folder / file).is_file() for file in (fp32.file, fp32.data) if file):
        return None  # of a hub repository, only what is run was fetched
    return proof_of_graph(opened.folder)


def check(
    opened: OpenModel,
    placement: Placement,
    proof: Proof,
    name: str | None = None,
    ways: Sequence[str] = (),
    *,
    tokens: bool = True,
) -> Sequence[Figure]:
    """Run a model on its proof, and remember under the name that it passed; ProofError if it does not.

    Without `ways`, it runs as many items do.
    """
    variant = opened.manifest.variants[opened.variant]
    size = sum((opened.folder / file).stat().st_size for file in (variant.file, variant.data) if file)
    if size > LARGE:
        _LOG.warning(
            "comparing %s (%s on %s) with its proof, once on this machine ...",
            opened.folder,
            opened.precision,
            opened.provider,
        )
    started = time.perf_counter()
    try:
        asked = asked_precision(opened, placement)
        figures = list(compare(opened, proof, ways or _ways(opened), as_precision=asked, tokens=tokens))
    except VerificationError as error:
        raise _refusal(opened, name, f"{error}") from error
    if broken := next((figure for figure in figures if figure.fault), None):
        raise _refusal(opened, name, f"{broken.part}: {broken.fault}")
    seconds = time.perf_counter() - started
    _LOG.info("%s: proved %s on %s in %.0f ms", opened.folder, opened.precision, opened.provider, 1000 * seconds)
    if parts := left_out(proof, opened.max_length):
        warn(
            f"{opened.folder}: nothing in its proof has at most {opened.max_length} tokens ({parts}), so its "
            f"{opened.precision} graph is not checked on {opened.provider} (prove=False hides this)"
        )
    elif name is not None:
        remembered.remember(name, summary(figures, seconds))
    return figures


def _ways(opened: OpenModel) -> Sequence[str]:
    """The ways of running to compare; two texts of one length, too, for what has been wrong for those alone."""
    return ("as scheduled", "in pairs") if opened.provider == OPENVINO else ("as scheduled",)


def asked_precision(opened: OpenModel, placement: Placement) -> str:
    """The precision whose limits hold: TF32, where the caller asks for it, rounds fp32's factors as fp16 does."""
    if opened.precision == "fp32" and opened.provider in GPU_PROVIDERS and placement.providers != "auto":
        options = dict(wanted_providers(placement.providers).providers).get(CUDA, {})
        if str(options.get("use_tf32", 0)) == "1":
            return "fp16"
    return opened.precision


def summary(figures: Sequence[Figure], seconds: float) -> dict[str, Any]:
    """What is remembered of a proof that was passed."""
    cosines = [figure.min_cosine for figure in figures if figure.min_cosine is not None]
    return {
        "max_abs_diff": max(figure.max_abs_diff for figure in figures),
        "min_cosine": min(cosines) if cosines else None,
        "seconds": round(seconds, 3),
    }


def _say_unproved(opened: OpenModel) -> None:
    if opened.manifest.model.engine == "adopted":
        warn(f"{opened.folder} has no proof: another program made its graph, and nobody recorded what it should give")
        return
    warn(
        f"{opened.folder} has no proof, so its {opened.precision} graph is not checked on {opened.provider}. To add "
        f"one: onnxembed verify {opened.folder} --against MODEL, or a new export (prove=False hides this)"
    )


def _refusal(opened: OpenModel, name: str | None, measured: str) -> ProofError:
    """The error that says what was measured and what to do; what was remembered of the graph is forgotten."""
    if name is not None:
        remembered.forget(name)
    results = "scores" if opened.manifest.reranking else "vectors"
    return ProofError(
        f"{opened.folder}: the {opened.precision} graph does not give the model's own {results} on this machine with "
        f"{opened.provider}: {measured}. {_cure(opened)} `onnxembed verify DIR` shows all figures; prove=False "
        f"({VARIABLE}=never) uses it all the same"
    )


def _cure(opened: OpenModel) -> str:
    quantized = opened.manifest.variants[opened.variant].quality is not None
    if opened.provider == CPU and quantized:
        return (
            "Processors without VNNI add products of bytes in 16 bits, where large ones are cut off: use precision "
            "fp32 or fp16."
        )
    if opened.provider == OPENVINO:
        return f"Use precision fp32, or another version of openvino than {load_openvino().__version__}."
    if opened.provider == CPU:
        return "Export the model again, or use precision fp32."
    version = load_onnxruntime().__version__
    first = " and without TensorRT" if opened.provider == TENSORRT else ""
    tf32 = "; NVIDIA_TF32_OVERRIDE=1 rounds products" if opened.precision == "fp32" else ""
    return f"Use providers='cpu'{first}, or another version of onnxruntime than {version}, or of the driver{tf32}."
