"""`doctor`: examine this environment."""

from __future__ import annotations

from dataclasses import dataclass

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


def doctor() -> Examination:
    """What this environment has: versions, processor, threads, GPUs, providers and extras.

    Computes something on the provider that `providers="auto"` would use. If something is broken, the finding's text
    says what to do.
    """
    from onnxembed.commands.environment import examine

    findings = tuple(examine())
    return Examination(any(finding.broken for finding in findings), findings)
