"""`onnxembed inspect`: show what an ONNX folder contains."""

from __future__ import annotations

from pathlib import Path

import click

from onnxembed.cli.options import hub_options, onnx_file_option


@click.command(short_help="Show what an ONNX folder contains.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the folder's onnxembed.json.")
@onnx_file_option
@hub_options
def inspect(
    *,
    model: str,
    as_json: bool,
    onnx_file: str | None,
    revision: str | None,
    cache_dir: Path | None,
    local_files_only: bool,
) -> None:
    """Show what MODEL contains, a folder that `onnxembed export` wrote or a hub repository with its files.

    Prints how texts become vectors, where each of these decisions came from (a file, a recipe, an option or the
    architecture), the graphs with their sizes and operators, and what verification measured.
    """
    from onnxembed.cli.describe import describe, describe_verification
    from onnxembed.hub.source import HubOptions
    from onnxembed.loading.locate import read_model_manifest

    manifest = read_model_manifest(model, HubOptions(revision, cache_dir, local_files_only), onnx_file)
    if as_json:
        click.echo(manifest.to_json().encode(), nl=False)
        return
    for line in describe(manifest):
        click.echo(line)
    click.echo()
    for line in describe_verification(manifest):
        click.echo(line)
    if not manifest.verification:
        command = "onnxembed verify" if manifest.files else "adopt it, with onnxembed adopt"
        click.echo(f"not verified; to verify: {command} {model}")
