"""`onnxembed doctor`: check this environment."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from onnxembed.cli.options import json_option


@click.command(short_help="Show what this environment has, and what is broken.")
@click.argument("model", required=False, type=click.Path(path_type=Path, exists=True, file_okay=False))
@json_option
def doctor(*, model: Path | None, as_json: bool) -> None:
    """Show what this environment has: versions, the processor's instructions, threads, GPUs, providers and extras.

    \b
    onnxembed doctor
    onnxembed doctor my-model-onnx

    With MODEL, an ONNX folder, also compares its graphs with its proof. Computes something on the provider that
    `auto` would use. If something is broken, its line says what to do and the exit code is 1.
    """
    from onnxembed import commands
    from onnxembed.cli.printing import print_json, show

    result = commands.doctor(model)
    if as_json:
        print_json(result)
    else:
        for finding in result.findings:
            broken = "BROKEN: " if finding.broken else ""
            show(f"{finding.name:<12} {broken}{finding.text}", hang=13, color="red" if finding.broken else None)
    sys.exit(1 if result.broken else 0)
