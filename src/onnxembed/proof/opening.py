"""Whether a graph gives the model's own results on this machine, before anybody gets them.

The plain fp32 graph on the CPU was compared with the reference when it was made, and is what everything else is
compared with. Any other provider and any other precision is checked once for each machine, provider, version and
artifact: fast kernels have been wrong, and nothing but the numbers shows it.
"""

from __future__ import annotations

import os

from onnxembed.errors import UsageError
from onnxembed.execution.providers import CPU, Placement
from onnxembed.runtime.open_model import OpenModel

VARIABLE = "ONNXEMBED_PROVE"
"""The environment variable that decides where `prove=` does not: "once", "always" or "never"."""

CHOICES: dict[str, bool | None] = {"": None, "once": None, "always": True, "never": False}


def proved(opened: OpenModel, placement: Placement, prove: bool | None, *, tokens: bool = True) -> OpenModel:
    """The open model, once it is known to give its own results here; it is closed if it does not.

    Args:
        opened: a model that was just opened.
        placement: where it was asked to run.
        prove: True checks in any case, False never; None, as the variable ONNXEMBED_PROVE says: by default once,
            and never the plain fp32 graph on the CPU.
        tokens: False where the caller changed how items become tokens.

    Raises ProofError with what was measured and what to do, and UsageError for another value.
    """
    try:
        asked = wanted(prove)
        if asked or (asked is None and needs_proof(opened)):
            from onnxembed.proof.checking import check_once  # the plain graph on the CPU needs nothing of it

            check_once(opened, placement, tokens=tokens, again=asked is True)
    except BaseException:
        opened.close()
        raise
    return opened


def needs_proof(opened: OpenModel) -> bool:
    """Whether a model runs as anything but the plain fp32 graph on the CPU.

    A graph that another program made has no proof: nobody knows what its model gives.
    """
    return opened.manifest.model.engine != "adopted" and (opened.provider != CPU or opened.precision != "fp32")


def wanted(prove: bool | None) -> bool | None:
    """Whether to check, as the caller says, or else the variable; None: once, where it is needed. Or UsageError."""
    if prove not in (True, False, None):
        raise UsageError(f"prove is {prove!r}, not True, False or None")
    if prove is not None:
        return prove
    value = os.environ.get(VARIABLE, "")
    if value not in CHOICES:
        raise UsageError(f"{VARIABLE} is {value!r}, not once, always or never")
    return CHOICES[value]
