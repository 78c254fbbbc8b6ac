"""`onnxembed doctor`: check this environment."""

from __future__ import annotations

import sys

import click


@click.command(short_help="Show what this environment has, and what is broken.")
def doctor() -> None:
    """Show what this environment has: versions, threads, GPUs, providers and extras.

    Computes something on the provider that `auto` would use. If something is broken, its line says what to do and
    the exit code is 1.
    """
    from onnxembed.cli.environment import examine

    broken = False
    for finding in examine():
        mark = "BROKEN: " if finding.broken else ""
        click.echo(f"{finding.name:<12} {mark}{finding.text}")
        broken = broken or finding.broken
    sys.exit(1 if broken else 0)
