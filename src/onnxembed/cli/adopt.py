"""`onnxembed adopt`: make an ONNX folder from a model that already has an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import click

from onnxembed.cli.new_folder import (
    default_output,
    head_options,
    new_folder_options,
    report,
    require_export,
    write_and_verify,
)
from onnxembed.cli.options import hub_options, onnx_file_option
from onnxembed.manifest import PoolingMode, ScoreActivation, Task


@click.command(short_help="Make an ONNX folder from a model that has an ONNX graph.")
@click.argument("model")
@onnx_file_option
@new_folder_options
@head_options
@click.option(
    "--share-scales",
    is_flag=True,
    help="Run texts together although the graph's dynamic quantization gives all texts of a run one scale, by which "
    "each changes the others' vectors [default: each text runs by itself].",
)
@hub_options
def adopt(
    *,
    model: str,
    onnx_file: str | None,
    output: Path | None,
    pooling: tuple[PoolingMode, ...] | None,
    normalize: bool | None,
    max_length: int | None,
    recipe: str | None,
    task: Task | None,
    activation: ScoreActivation | None,
    plain_pairs: bool,
    share_scales: bool,
    no_verify: bool,
    force: bool,
    as_json: bool,
    revision: str | None,
    cache_dir: Path | None,
    local_files_only: bool,
) -> None:
    """Make an ONNX folder from MODEL, a folder or a model on the Hugging Face hub that has its own ONNX graph.

    \b
    onnxembed adopt ./model-that-optimum-wrote
    onnxembed adopt org/model --onnx-file model_O2.onnx --pooling cls --normalize
    onnxembed adopt ./splade --task sparse

    The graph is copied unchanged. The model's files, its recipe and these options decide how texts become
    vectors or scores, as for `onnxembed export`; a decision that none of them makes is an error. If the extra
    [torch] is installed and MODEL is a folder that also has the weights, the vectors are compared with those of
    sentence-transformers.
    """
    require_export()
    from onnxembed.decisions.flags import Flags
    from onnxembed.export.adopt import AdoptOptions  # noqa: TID251
    from onnxembed.export.adopt import adopt as run  # noqa: TID251
    from onnxembed.hub.source import HubOptions

    options = AdoptOptions(
        onnx_file=onnx_file,
        flags=Flags(
            pooling=pooling,
            normalize=normalize,
            max_length=max_length,
            task=task,
            activation=activation,
            plain_pairs=plain_pairs,
            share_scales=share_scales,
        ),
        recipe=recipe,
        force=force,
    )
    hub = HubOptions(revision, cache_dir, local_files_only)
    output = output or default_output(model)
    manifest, notes = write_and_verify(
        output,
        lambda folder, verify, progress: run(model, folder, options, hub=hub, verify=verify, progress=progress),
        no_verify=no_verify,
        has_weights=_has_weights,
    )
    report(output, manifest, notes, as_json=as_json)


def _has_weights(folder: Path) -> bool:
    """Whether a model's folder has the weights of its transformer, in one file or in shards."""
    from onnxembed.facts.facts import read_facts
    from onnxembed.hub.checkpoint_files import WEIGHTS

    transformer = read_facts(folder).transformer_folder
    return any((transformer / f"{name}{index}").is_file() for name in WEIGHTS for index in ("", ".index.json"))
