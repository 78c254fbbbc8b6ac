"""Options that several commands share. Those of the classes are named as the classes name them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypedDict

import click

from onnxembed.cli.texts import FIELD
from onnxembed.manifest import PRECISIONS, Precision

Command = Callable[..., None]
Option = Callable[[Command], Command]

PATH = click.Path(path_type=Path)

REVISION = click.option("--revision", help="Branch, tag or commit of a hub model.")
ONNX_FILE = click.option(
    "--onnx-file",
    metavar="NAME",
    help="Of a model whose graph something else made: the graph [default: onnx/model.onnx, then model.onnx].",
)


def options(*each: Option) -> Option:
    """Several options as one, which help shows in this order."""

    def add(command: Command) -> Command:
        for option in reversed(each):
            command = option(command)
        return command

    return add


class Running(TypedDict):
    """What `running_options` give a command: arguments of OnnxEmbedder and OnnxReranker."""

    precision: Literal["auto"] | Precision
    providers: str
    device_ids: tuple[int, ...] | None
    threads: int | None
    max_length: int | None
    revision: str | None
    cache_dir: Path | None
    local_files_only: bool


cache_options = options(
    click.option(
        "--cache-dir", type=PATH, metavar="DIR", help="Where hub files are kept [default: the hub client's cache]."
    ),
    click.option("--offline", "local_files_only", is_flag=True, help="Never ask the hub; use what is in the cache."),
)

text_options = options(
    click.option("--jsonl", is_flag=True, help="The file or standard input is JSON lines, whatever its name."),
    click.option("--field", metavar="NAME", help=f"The field of a JSON line to read [default: {FIELD}]."),
)

running_options = options(
    click.option(
        "--max-length", type=int, metavar="N", help="Cut what is longer to N tokens [default: the model's limit]."
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", *PRECISIONS]),
        default="auto",
        show_default=True,
        help="The graph to run; auto is fp32 where there is one.",
    ),
    click.option(
        "--provider",
        "providers",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="auto (CUDA where it can be used), cpu, cuda, tensorrt, or ONNX Runtime's name of a provider.",
    ),
    click.option(
        "--device-id",
        "device_ids",
        type=int,
        multiple=True,
        metavar="N",
        callback=lambda context, option, numbers: numbers or None,
        help="The GPU to use, by its number; several, each with this option, share the work [default: the first].",
    ),
    click.option("--threads", type=int, metavar="N", help="CPU threads [default: all that this process may use]."),
    REVISION,
    cache_options,
)
