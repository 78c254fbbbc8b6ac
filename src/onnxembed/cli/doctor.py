"""`onnxembed doctor`: check this environment."""

from __future__ import annotations

import sys

import click

from onnxembed.cli.options import json_option


@click.command(short_help="Show what this environment has, and what is broken.")
@json_option
def doctor(*, as_json: bool) -> None:
    """Show what this environment has: versions, the processor's instructions, threads, GPUs, providers and extras.

    Computes something on the provider that `auto` would use. If something is broken, its line says what to do and
    the exit code is 1.
    """
    from onnxembed import commands
    from onnxembed.cli.printing import print_json, show

    result = commands.doctor()
    if as_json:
        print_json(result)
    else:
        for finding in result.findings:
            broken = "BROKEN: " if finding.broken else ""
            show(f"{finding.name:<12} {broken}{finding.text}", hang=13, color="red" if finding.broken else None)
    sys.exit(1 if result.broken else 0)
