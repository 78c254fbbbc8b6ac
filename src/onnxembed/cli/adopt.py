"""`onnxembed adopt`: make an ONNX folder from a model that already has an ONNX graph."""

from __future__ import annotations

from pathlib import Path

import click

from onnxembed.cli.new_folder import head_options, new_folder_options, report
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
    refresh: bool,
    token: str | None,
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
    from onnxembed import commands
    from onnxembed.cli.progress import ProgressLine

    with ProgressLine() as line:
        result = commands.adopt(
            model,
            output,
            onnx_file=onnx_file,
            pooling=pooling,
            normalize=normalize,
            max_length=max_length,
            task=task,
            activation=activation,
            plain_pairs=plain_pairs,
            share_scales=share_scales,
            recipe=recipe,
            verify=not no_verify,
            force=force,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=local_files_only,
            refresh=refresh,
            token=token,
            progress=line,
        )
    report(result, as_json=as_json)
