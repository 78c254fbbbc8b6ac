"""`onnxembed adopt`: make an ONNX folder from a model that already has an ONNX graph."""

from __future__ import annotations

from pathlib import Path
from typing import Unpack

import click

from onnxembed.cli.new_folder import NewFolderArguments, head_options, new_folder_options, report
from onnxembed.cli.options import hub_options, onnx_file_option


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
    output: Path | None,
    onnx_file: str | None,
    share_scales: bool,
    no_verify: bool,
    as_json: bool,
    **arguments: Unpack[NewFolderArguments],
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
            share_scales=share_scales,
            verify=not no_verify,
            progress=line,
            **arguments,
        )
    report(result, as_json=as_json)
