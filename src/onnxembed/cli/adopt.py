"""`onnxembed adopt`: make an ONNX folder from a model that has an ONNX graph already."""

from __future__ import annotations

from pathlib import Path

import click

from onnxembed.cli.new_folder import make, making_options, require_export
from onnxembed.cli.options import ONNX_FILE, REVISION, cache_options
from onnxembed.manifest import PoolingMode


@click.command(short_help="Make an ONNX folder from a model that has an ONNX graph.")
@click.argument("model")
@ONNX_FILE
@making_options
@REVISION
@cache_options
def adopt(
    *,
    model: str,
    onnx_file: str | None,
    output: Path | None,
    pooling: tuple[PoolingMode, ...] | None,
    normalize: bool | None,
    max_length: int | None,
    recipe: str | None,
    no_verify: bool,
    force: bool,
    revision: str | None,
    cache_dir: Path | None,
    local_files_only: bool,
) -> None:
    """Make an ONNX folder from MODEL, a folder or a model on the Hugging Face hub with an ONNX graph of its own.

    \b
    onnxembed adopt ./model-that-optimum-wrote
    onnxembed adopt org/model --onnx-file model_optimized.onnx --pooling cls --normalize

    The graph is copied as it is. How texts become vectors is decided as by onnxembed export, from the model's
    files, its recipe and these options; what none of them says is an error. The vectors are compared with
    sentence-transformers' where the extra [torch] is installed and MODEL is a folder that has the weights, too.
    """
    require_export()
    from onnxembed.decisions.flags import Flags
    from onnxembed.export.adopt import Options  # noqa: TID251
    from onnxembed.export.adopt import adopt as run  # noqa: TID251
    from onnxembed.hub.source import HubOptions

    options = Options(onnx_file, Flags(pooling, normalize, max_length), recipe, force)
    hub = HubOptions(revision, cache_dir, local_files_only)
    make(
        model,
        output,
        lambda folder, verify, progress: run(model, folder, options, hub=hub, verify=verify, progress=progress),
        no_verify=no_verify,
        has_weights=_has_weights,
    )


def _has_weights(folder: Path) -> bool:
    """Whether a model's folder has the weights of its transformer, in one file or in shards."""
    from onnxembed.facts.facts import read_facts
    from onnxembed.hub.checkpoint import WEIGHTS

    weights = read_facts(folder).transformer_folder
    return any((weights / f"{name}{index}").is_file() for name in WEIGHTS for index in ("", ".index.json"))
