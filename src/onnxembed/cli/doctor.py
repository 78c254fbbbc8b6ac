"""`onnxembed doctor`: say what this environment has and what is broken."""

from __future__ import annotations

import sys

import click


@click.command(short_help="Say what this environment has, and what is broken.")
def doctor() -> None:
    """Say what this environment has: versions, threads, GPUs, providers and extras.

    Tries what `auto` would use by computing something there. The exit code is 1 when something is broken; the
    line says what to do.
    """
    from onnxembed.cli.environment import examine

    broken = False
    for finding in examine():
        mark = "BROKEN: " if finding.broken else ""
        click.echo(f"{finding.name:<12} {mark}{finding.text}")
        broken = broken or finding.broken
    sys.exit(1 if broken else 0)
