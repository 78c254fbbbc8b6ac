"""`onnxembed inspect`: say what an ONNX folder holds."""

from __future__ import annotations

from pathlib import Path

import click

from onnxembed.cli.options import REVISION, cache_options
from onnxembed.errors import ModelFilesError
from onnxembed.manifest import FILE_NAME


@click.command(short_help="Say what an ONNX folder holds.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print the folder's onnxembed.json instead.")
@REVISION
@cache_options
def inspect(*, model: str, as_json: bool, revision: str | None, cache_dir: Path | None, offline: bool) -> None:
    """Say what MODEL holds, a folder that `onnxembed export` wrote or a hub repository with its files.

    Prints how texts become vectors and where each of these decisions came from (a file, a recipe, an option,
    the architecture), the graphs with their sizes and operators, and what verification measured.
    """
    from onnxembed.describe import describe, describe_verification
    from onnxembed.hub import fetch
    from onnxembed.manifest import read_manifest

    try:
        found = fetch(model, wanted=[FILE_NAME], revision=revision, cache_dir=cache_dir, local_files_only=offline)
    except ModelFilesError as error:
        raise ModelFilesError(f"{error}; make one with: onnxembed export {model} -o DIR") from None
    manifest = read_manifest(found.folder)
    if as_json:
        click.echo(manifest.to_json().encode(), nl=False)
        return
    for line in describe(manifest):
        click.echo(line)
    click.echo()
    for line in describe_verification(manifest):
        click.echo(line)
    if not manifest.verification:
        click.echo(f"not verified; to verify: onnxembed verify {model}")
