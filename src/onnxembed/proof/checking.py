"""The check of a model that was opened: its proof is found, run, and remembered when it passed."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Sequence
from typing import Any

from onnxembed.errors import ProofError, UsageError, VerificationError
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
    proof = None
    if again or remembered.passed(name) is None:
        proof = find_proof(opened)
        if proof is None:
            _say_unproved(opened)
            return
        check(opened, placement, proof, name, tokens=tokens)
    prove_later(opened, placement, proof, again=again)


def prove_later(opened: OpenModel, placement: Placement, proof: Proof | None = None, *, again: bool = False) -> None:
    """Check a session that the model opens later, too, before it is used: its threads divide the work otherwise.

    It may be given texts alone, or some in one run. The tokenizer was compared before. What passed is remembered on
    this machine; `again` remembers it for this model alone. `proof` is the model's, if it is known already.
    """
    model = weakref.ref(opened)  # it holds its sessions, and they hold this function
    passed: set[str] = set()

    def prove(session: str) -> None:
        later = model()
        if later is None:
            raise UsageError("this model is closed")
        ways = ("alone", *_ways(later))
        name = remembered.key(later, placement, (session, *ways), tokens=False)
        if name in passed or (not again and remembered.passed(name) is not None):
            return
        known = proof or find_proof(later)
        if known is not None and (figures := _measured(later, placement, known, name, ways, tokens=False)):
            _LOG.info("%s: proved the session %s, too", later.folder, session)
            remembered.remember(name, summary(figures))
        passed.add(name)

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
    opened: OpenModel, placement: Placement, proof: Proof, name: str | None = None, *, tokens: bool = True
) -> Sequence[Figure]:
    """Run a model on its proof, as it runs many items, and remember under the name that it passed.

    Raises ProofError if it does not pass. Warns of what its `max_length` leaves nothing of to compare, which is not
    remembered.
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
        figures = _measured(opened, placement, proof, name, _ways(opened), tokens=tokens)
    except ProofError as error:
        more = f"`onnxembed verify DIR` shows all figures; prove=False ({VARIABLE}=never) uses it all the same"
        raise ProofError(f"{opened.folder}: {error} {more}") from error
    seconds = time.perf_counter() - started
    _LOG.info("%s: proved %s on %s in %.0f ms", opened.folder, opened.precision, opened.provider, 1000 * seconds)
    if parts := left_out(proof, opened.max_length):
        warn(
            f"{opened.folder}: its proof has nothing of at most {opened.max_length} tokens for {parts}, so that is not "
            f"checked in {opened.precision} on {opened.provider} (prove=False hides this)"
        )
    elif name is not None:
        remembered.remember(name, summary(figures))
    return figures


def _measured(
    opened: OpenModel, placement: Placement, proof: Proof, name: str | None, ways: Sequence[str], *, tokens: bool
) -> Sequence[Figure]:
    """What a model's results are on its proof; ProofError, and what was remembered is forgotten, if they are wrong."""
    try:
        asked = asked_precision(opened, placement)
        figures = list(compare(opened, proof, ways, as_precision=asked, tokens=tokens))
        wrong = next((f"{figure.part}: {figure.fault}" for figure in figures if figure.fault), "")
    except VerificationError as error:
        figures, wrong = [], f"{error}"
    if wrong:
        if name is not None:
            remembered.forget(name)
        results = "scores" if opened.manifest.reranking else "vectors"
        raise ProofError(
            f"the {opened.precision} graph does not give the model's own {results} on this machine with "
            f"{opened.provider}: {wrong}. {_cure(opened)}"
        )
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


def summary(figures: Sequence[Figure]) -> dict[str, Any]:
    """What is remembered of a proof that was passed."""
    cosines = [figure.min_cosine for figure in figures if figure.min_cosine is not None]
    return {
        "max_abs_diff": max(figure.max_abs_diff for figure in figures),
        "min_cosine": min(cosines) if cosines else None,
    }


def _say_unproved(opened: OpenModel) -> None:
    if opened.manifest.model.engine == "adopted":
        warn(f"{opened.folder} has no proof: another program made its graph, and nobody recorded what it should give")
        return
    warn(
        f"{opened.folder} has no proof, so its {opened.precision} graph is not checked on {opened.provider}. To add "
        f"one: onnxembed verify {opened.folder} --against MODEL, or a new export (prove=False hides this)"
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
