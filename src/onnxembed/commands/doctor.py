"""`doctor`: examine this environment."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxembed.commands.result import Result


@dataclass(frozen=True)
class Finding:
    """A fact about this environment."""

    name: str
    text: str
    broken: bool = False
    """Whether it keeps onnxembed from working as the user meant it to; the text then says what to do."""


@dataclass(frozen=True)
class Examination(Result):
    """What this environment has, and what is broken."""

    broken: bool
    """Whether any finding is."""
    findings: tuple[Finding, ...]


def doctor(model: str | Path | None = None) -> Examination:
    """What this environment has: versions, processor, threads, GPUs, providers and extras.

    Computes something on the provider that `providers="auto"` would use. If something is broken, the finding's text
    says what to do.

    Args:
        model: an ONNX folder, whose graphs are then compared with its proof on that provider.
    """
    from onnxembed.commands.environment import examine
    from onnxembed.commands.graphs import examine_graphs

    findings = (*examine(), *(examine_graphs(Path(model)) if model is not None else ()))
    return Examination(any(finding.broken for finding in findings), findings)
