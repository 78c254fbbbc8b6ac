"""`onnxembed serve`: answer the clients of text-embeddings-inference, OpenAI, Cohere and Weaviate over HTTP."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Unpack

import click

from onnxembed.cli.options import PATH, Option, RunOptions, options, run_options
from onnxembed.errors import UsageError


def _file(name: str, help: str) -> Option:
    """An option that names a file."""
    return click.option(name, type=PATH, metavar="FILE", help=help)


def _at_most(name: str, help: str) -> Option:
    """An option for the most of something that is let in."""
    return click.option(name, type=click.IntRange(1), metavar="N", help=help)


def _seconds(name: str, least: float, help: str) -> Option:
    """An option for a time, 30 seconds by default."""
    return click.option(
        name, type=click.FloatRange(least), default=30.0, show_default=True, metavar="SECONDS", help=help
    )


listening_options = options(
    click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; 0.0.0.0 for all."),
    click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="Port to listen on."),
    click.option("--uds", type=PATH, metavar="PATH", help="Listen on a UNIX socket instead."),
    _file("--ssl-certfile", "Certificate for TLS."),
    _file("--ssl-keyfile", "Key of the certificate."),
    click.option("--root-path", default="", metavar="PATH", help="The path that a proxy before the server takes away."),
    _seconds("--drain", 1, "How long requests may take to end after SIGTERM."),
    click.option(
        "--workers",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="N",
        help="Processes, among which the threads are shared.",
    ),
    click.option(
        "--spin", is_flag=True, help="Keep cores busy between requests: single texts take a little less time."
    ),
)

limit_options = options(
    _at_most("--max-texts", "Texts that may wait [default: 32768]."),
    _at_most("--max-tokens", "Tokens that may wait [default: 4194304]."),
    _at_most("--max-requests", "Requests at a time [default: 512]."),
    _at_most("--max-connections", "Connections at a time [default: 16384, or as many as the system allows]."),
    click.option(
        "--payload-limit",
        type=click.IntRange(1),
        default=33_554_432,
        show_default=True,
        metavar="BYTES",
        help="The largest body of a request.",
    ),
    _seconds("--body-seconds", 0.1, "A body has to arrive within this time."),
    click.option(
        "--auto-truncate/--no-auto-truncate",
        default=True,
        show_default=True,
        help="Cut long texts of requests that do not say, or refuse them.",
    ),
)


@click.command(short_help="Serve models over HTTP.")
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]MODEL ...")
@click.option("--default", metavar="NAME", help="The model of requests that name none [default: the first able one].")
@click.option("--api-key", "api_keys", multiple=True, metavar="KEY", help="Ask for this key; may be repeated.")
@_file("--api-key-file", "Ask for one of the keys in FILE, one a line.")
@click.option(
    "--cors-allow-origin",
    "cors_origins",
    multiple=True,
    metavar="ORIGIN",
    help="Let pages of this origin call the server; may be repeated [default: any].",
)
@click.option("--log-requests", is_flag=True, help="Log each request as a line of JSON, without its texts.")
@listening_options
@limit_options
@run_options
def serve(
    *,
    models: tuple[str, ...],
    default: str | None,
    api_keys: tuple[str, ...],
    api_key_file: Path | None,
    cors_origins: tuple[str, ...],
    log_requests: bool,
    host: str,
    port: int,
    uds: Path | None,
    ssl_certfile: Path | None,
    ssl_keyfile: Path | None,
    root_path: str,
    drain: float,
    workers: int,
    spin: bool,
    max_texts: int | None,
    max_tokens: int | None,
    max_requests: int | None,
    max_connections: int | None,
    payload_limit: int,
    body_seconds: float,
    auto_truncate: bool,
    **arguments: Unpack[RunOptions],
) -> None:
    """Serve one or several models over HTTP: folders that `onnxembed export` wrote, or hub repositories.

    \b
    onnxembed serve my-model-onnx
    onnxembed serve minilm=my-model-onnx ranker=my-reranker-onnx --default minilm
    onnxembed serve my-model-onnx --host 0.0.0.0 --api-key-file keys.txt

    Clients of text-embeddings-inference, OpenAI, Cohere, Jina and Weaviate find their routes. A browser finds a
    page at /, and /openapi.json describes every route.
    """
    from onnxembed.execution.providers import Placement
    from onnxembed.hub.source import HubOptions
    from onnxembed.serve import ModelOptions, ModelSource, QueueLimits, Settings
    from onnxembed.serve.listening import CONNECTIONS, Listening
    from onnxembed.serve.server import serve as run

    if (ssl_certfile is None) != (ssl_keyfile is None):
        raise UsageError("TLS needs both --ssl-certfile and --ssl-keyfile")
    keys = [*api_keys, *(_keys(api_key_file) if api_key_file else [])]
    if "" in keys:
        raise UsageError("a key is empty")
    limits = QueueLimits()
    settings = Settings(
        models=[ModelSource.parse(model) for model in models],
        default=default,
        options=ModelOptions(
            precision=arguments["precision"],
            placement=Placement(
                arguments["providers"], arguments["threads"], device_ids=arguments["device_ids"], spin=spin
            ),
            max_length=arguments["max_length"],
            hub=HubOptions(
                arguments["revision"],
                arguments["cache_dir"],
                arguments["local_files_only"],
                arguments["refresh"],
                arguments["token"],
            ),
            prove=arguments["prove"],
        ),
        limits=QueueLimits(
            limits.texts if max_texts is None else max_texts,
            limits.tokens if max_tokens is None else max_tokens,
            limits.requests if max_requests is None else max_requests,
        ),
        payload_limit=payload_limit,
        body_seconds=body_seconds,
        auto_truncate=auto_truncate,
        api_keys=keys,
        cors_origins=cors_origins or ("*",),
        log_requests=log_requests,
        root_path=root_path,
    )
    connections = CONNECTIONS if max_connections is None else max_connections
    sys.exit(run(settings, Listening(host, port, uds, ssl_certfile, ssl_keyfile, drain, workers, connections)))


def _keys(file: Path) -> list[str]:
    """The keys in a file, one a line; UsageError if there is none."""
    keys = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not keys:
        raise UsageError(f"{file} has no key")
    return keys
