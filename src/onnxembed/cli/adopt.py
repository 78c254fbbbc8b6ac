"""`onnxembed adopt`: make an ONNX folder from a model that has an ONNX graph already."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from onnxembed.cli.export import default_output, parse_pooling, require_export
from onnxembed.cli.options import ONNX_FILE, PATH, REVISION, cache_options
from onnxembed.errors import NoReferenceError
from onnxembed.manifest import POOLING_MODES, Manifest

if TYPE_CHECKING:
    from onnxembed.hub import Fetched


@click.command(short_help="Make an ONNX folder from a model that has an ONNX graph.")
@click.argument("model")
@click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder to write [default: NAME-onnx, here].")
@ONNX_FILE
@click.option(
    "--pooling",
    metavar="NAMES",
    help=f"Pool like this, whatever the model's files say: {', '.join(POOLING_MODES)}, or several joined by +.",
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale vectors to length 1 or do not, whatever the files say."
)
@click.option("--max-length", type=int, help="Cut texts to this many tokens, whatever the files say.")
@click.option("--recipe", metavar="NAME", help="Follow this recipe [default: that of a hub model, if there is one].")
@click.option("--no-verify", is_flag=True, help="Do not compare the vectors with the reference's.")
@click.option("--force", is_flag=True, help="Replace the ONNX folder that is there.")
@REVISION
@cache_options
def adopt(
    *,
    model: str,
    output: Path | None,
    onnx_file: str | None,
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
    recipe: str | None,
    no_verify: bool,
    force: bool,
    revision: str | None,
    cache_dir: Path | None,
    offline: bool,
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
    from onnxembed.describe import describe_verification, megabytes
    from onnxembed.export.adopt import Options  # noqa: TID251
    from onnxembed.export.adopt import adopt as run  # noqa: TID251
    from onnxembed.export.verify import lacking, self_check, verify_against  # noqa: TID251
    from onnxembed.facts import read_facts
    from onnxembed.foreign import Hub
    from onnxembed.hub import WEIGHTS
    from onnxembed.progress import ProgressLine
    from onnxembed.resolve import Flags

    output = output or default_output(model)
    unverified = "--no-verify" if no_verify else lacking()
    notes = []

    def check(draft: Path, made: Manifest, source: Fetched) -> Manifest:
        nonlocal unverified
        weights = read_facts(source.folder).transformer_folder
        if not any((weights / name).is_file() for name in WEIGHTS):
            unverified = unverified or "its weights are not beside the graph"
        if not unverified:
            try:
                return verify_against(draft, made, source.folder, progress=line)
            except NoReferenceError as error:
                unverified = str(error)
        notes.append(self_check(draft))
        return made

    options = Options(onnx_file, Flags(parse_pooling(pooling), normalize, max_length), recipe, force)
    with ProgressLine() as line:
        manifest = run(model, output, options, hub=Hub(revision, cache_dir, offline), verify=check, progress=line)
    size = sum(record.bytes for record in manifest.files.values())
    click.echo(f"{output}: {manifest.require_embedding().dimension} dimensions, {megabytes(size)}")
    if unverified:
        notes.append(f"not verified ({unverified}); to verify: onnxembed verify {output} --against MODEL")
    for note in (*notes, *describe_verification(manifest)):
        click.echo(note)
