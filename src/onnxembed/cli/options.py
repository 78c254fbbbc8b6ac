"""Options that several commands share. An option that sets an argument of the Python classes has its name."""

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


def options(*given: Option) -> Option:
    """Several options as one, listed by --help in this order."""

    def add(command: Command) -> Command:
        for option in reversed(given):
            command = option(command)
        return command

    return add


class CacheArguments(TypedDict):
    """The arguments that `cache_options` adds to a command."""

    cache_dir: Path | None
    local_files_only: bool
    refresh: bool
    token: str | None


class HubArguments(CacheArguments):
    """The arguments that `hub_options` adds to a command: those of HubOptions."""

    revision: str | None


class RunOptions(HubArguments):
    """The arguments of OnnxEmbedder and OnnxReranker that `run_options` adds to a command."""

    precision: Literal["auto"] | Precision
    providers: str
    device_ids: tuple[int, ...] | None
    threads: int | None
    max_length: int | None
    prove: bool | None


onnx_file_option = click.option(
    "--onnx-file",
    metavar="NAME",
    help="The graph of a model that onnxembed did not export [default: onnx/model.onnx, then model.onnx].",
)

cache_options = options(
    click.option(
        "--cache-dir",
        type=PATH,
        metavar="DIR",
        help="Where hub files are kept [default: the hub client's cache].",
    ),
    click.option("--offline", "local_files_only", is_flag=True, help="Use only what is in the cache."),
    click.option("--refresh", is_flag=True, help="Download every file anew, whatever is in the cache."),
    click.option(
        "--token",
        metavar="TOKEN",
        help="The hub's access token [default: HF_TOKEN, which other users of the machine cannot see, or hf's login].",
    ),
)

hub_options = options(
    click.option("--revision", help="Branch, tag or commit of a hub model."),
    cache_options,
)

json_option = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON, for programs.")

force_option = click.option("--force", is_flag=True, help="Replace what exists at the output.")

text_options = options(
    click.option(
        "--text", "texts", multiple=True, metavar="TEXT", help="A text, whatever it looks like; repeat it for more."
    ),
    click.option("--jsonl", is_flag=True, help="Read the file or standard input as JSON lines, whatever its name."),
    click.option(
        "--field",
        "--column",
        "field",
        metavar="NAME",
        help=f"Field of each JSON line, or column of a table, that holds the text [default: {FIELD}].",
    ),
)

provider_options = options(
    click.option(
        "--provider",
        "providers",
        default="auto",
        show_default=True,
        metavar="NAME",
        help="auto (CUDA if it can be used), cpu, cuda, tensorrt, or ONNX Runtime's name of a provider.",
    ),
    click.option(
        "--device-id",
        "device_ids",
        type=int,
        multiple=True,
        metavar="N",
        callback=lambda context, option, numbers: numbers or None,
        help="Number of the GPU to use; repeat it to share the work among several [default: the first].",
    ),
    click.option("--threads", type=int, metavar="N", help="CPU threads [default: all that this process may use]."),
)

run_options = options(
    click.option(
        "--max-length",
        type=int,
        metavar="N",
        help="Cut longer texts to N tokens [default: the model's limit].",
    ),
    click.option(
        "--precision",
        type=click.Choice(["auto", *PRECISIONS]),
        default="auto",
        show_default=True,
        help="Graph to run; auto prefers fp32. On a CPU, bf16 is computed from the fp32 graph.",
    ),
    provider_options,
    click.option(
        "--prove/--no-prove",
        default=None,
        help="Compare the graph with the model's proof first, or never [default: once, unless it is fp32 on the CPU].",
    ),
    hub_options,
)
