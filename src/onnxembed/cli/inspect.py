"""`onnxembed inspect`: show how a model's texts become vectors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import click

from onnxembed.cli.options import HubArguments, hub_options, onnx_file_option

if TYPE_CHECKING:
    from onnxembed.manifest import Manifest


@click.command(short_help="Show what a model's folder contains and decides.")
@click.argument("model")
@click.option("--json", "as_json", is_flag=True, help="Print onnxembed.json, or the one that the model would get.")
@onnx_file_option
@hub_options
def inspect(
    *,
    model: str,
    as_json: bool,
    onnx_file: str | None,
    **arguments: Unpack[HubArguments],
) -> None:
    """Show what MODEL contains, a folder that `onnxembed export` wrote, a hub repository with its files, or any model.

    Prints how texts become vectors, where each of these decisions came from (a file, a recipe, an option or the
    architecture), the graphs with their sizes and operators, and what verification measured. Of a model that is not
    exported, it prints what `onnxembed export --dry-run` decides, and needs the extra [export]. Files of another size
    than recorded are an error, at the end.
    """
    from onnxembed.cli.printing import show, show_decisions
    from onnxembed.commands.inspect import inspect_revision
    from onnxembed.hub.source import HubOptions
    from onnxembed.loading.space import with_spaces
    from onnxembed.manifest.describe import describe_graphs, describe_proof, describe_verification

    hub = HubOptions(**arguments)
    manifest, commit = inspect_revision(model, hub, onnx_file)
    if as_json:
        click.echo(manifest.to_json().encode(), nl=False)
        _check_sizes(model, manifest)
        return
    if manifest.spaces is None and manifest.files:
        manifest = with_spaces(manifest, Path())  # an artifact from before: its hashes are recorded, no file is read
    if commit is not None:
        click.echo(f"{model} at {commit}")
    show_decisions(manifest)
    for line in (*describe_graphs(manifest), "", *describe_verification(manifest)):
        show(line)
    if not manifest.variants:
        click.echo(f"not exported; to export: onnxembed export {model}")
    elif not manifest.verification:
        against = f"onnxembed verify {model} --against {manifest.source.model}"
        click.echo(
            f"not verified; to verify: {against if manifest.files else f'adopt it, with onnxembed adopt {model}'}"
        )
    if manifest.variants:
        show(describe_proof(manifest))
    _check_sizes(model, manifest)


def _check_sizes(model: str, manifest: Manifest) -> None:
    """Raise IntegrityError for a file of a local folder that has another size than recorded; some may be left out."""
    from onnxembed.hub.model_files import local_paths
    from onnxembed.loading.agreement import check_files

    for folder in local_paths(model):
        present = {name: record for name, record in manifest.files.items() if (folder / name).is_file()}
        check_files(folder, present, hashes=False)
