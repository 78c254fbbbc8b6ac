"""The command line: one function per command. What a command needs is imported inside it."""

from __future__ import annotations

import io
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NoReturn

import click

from onnxembed import __version__
from onnxembed.errors import (
    MissingExtraError,
    ModelFilesError,
    NoReferenceError,
    OnnxEmbedError,
    UsageError,
    VerificationError,
)
from onnxembed.manifest import FILE_NAME, POOLING_MODES, PRECISIONS, AttentionMode, Manifest, PoolingMode, Precision

if TYPE_CHECKING:
    from onnxembed.hub import Fetched

PATH = click.Path(path_type=Path)

REVISION = click.option("--revision", help="Branch, tag or commit of a hub model.")
CACHE_OPTIONS = (
    click.option(
        "--cache-dir", type=PATH, metavar="DIR", help="Where hub files are kept [default: the hub client's cache]."
    ),
    click.option("--offline", is_flag=True, help="Never ask the hub; use what is in the cache."),
)

Command = Callable[..., None]


def cache_options(command: Command) -> Command:
    """The options of every command that may download."""
    for option in reversed(CACHE_OPTIONS):
        command = option(command)
    return command


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line: exit code 2 and one sentence for errors, 130 for Ctrl-C."""
    warnings.showwarning = _show_warning
    signal.signal(signal.SIGTERM, _terminated)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal that cannot show a letter is no reason to stop
    try:
        cli.main(arguments, standalone_mode=False)
    except OnnxEmbedError as error:
        _fail(f"{error}", 2)
    except click.Abort:
        _fail("interrupted", 130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        _give_up_output()
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", 2)
    sys.exit(0)


def _give_up_output() -> None:
    """What cannot be written now, on a full disk, Python must not try and report again when it ends."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            sys.stdout.close()


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"onnxembed: {message}", err=True)
    sys.exit(code)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"onnxembed: warning: {message}", err=True)


def _terminated(*_: object) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)  # an exception, so that what is half-written is taken away


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="onnxembed")
def cli() -> None:
    """Embedding models as ONNX folders that give the model's own vectors, fast, without torch.

    \b
    Export a model once, then embed with its folder anywhere:
      onnxembed export sentence-transformers/all-MiniLM-L6-v2
      onnxembed embed all-MiniLM-L6-v2-onnx "hello world"

    `onnxembed COMMAND --help` says more about a command.
    """


@cli.command(short_help="Make an ONNX folder from a model.")
@click.argument("model")
@click.option("-o", "--output", type=PATH, metavar="DIR", help="Folder to write [default: NAME-onnx, here].")
@click.option(
    "--precision",
    multiple=True,
    default=("fp32",),
    metavar="NAMES",
    help=f"Graphs to write: {', '.join(PRECISIONS)}, or several joined by commas [default: fp32].",
)
@click.option(
    "--pooling",
    metavar="NAMES",
    help=f"Pool like this, whatever the model's files say: {', '.join(POOLING_MODES)}, or several joined by +.",
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale vectors to length 1 or do not, whatever the files say."
)
@click.option("--max-length", type=int, help="Cut texts to this many tokens, whatever the files say.")
@click.option(
    "--attention",
    type=click.Choice(("auto", "bidirectional", "causal")),
    default="auto",
    show_default=True,
    help="Of a decoder: whether a token sees the ones after it; auto is what recipe and files say.",
)
@click.option("--recipe", metavar="NAME", help="Follow this recipe [default: that of a hub model, if there is one].")
@click.option("--pooling-out", is_flag=True, help="Leave pooling out of the graph; onnxembed does it afterwards.")
@click.option(
    "--ignore-config-key",
    multiple=True,
    metavar="KEY",
    help="Vouch that this key of config.json, which onnxembed does not know, changes nothing.",
)
@click.option("--no-verify", is_flag=True, help="Do not compare the vectors with the reference's.")
@click.option("--force", is_flag=True, help="Replace the ONNX folder that is there.")
@REVISION
@cache_options
def export(
    *,
    model: str,
    output: Path | None,
    precision: tuple[str, ...],
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
    attention: Literal["auto"] | AttentionMode,
    recipe: str | None,
    pooling_out: bool,
    ignore_config_key: tuple[str, ...],
    no_verify: bool,
    force: bool,
    revision: str | None,
    cache_dir: Path | None,
    offline: bool,
) -> None:
    """Make an ONNX folder from MODEL, the name of a model on the Hugging Face hub or a folder.

    \b
    onnxembed export sentence-transformers/all-MiniLM-L6-v2
    onnxembed export ./my-model -o my-model-onnx --precision fp32,fp16

    How texts become vectors is read from the model's files; what those of a published model leave out, from
    its recipe (see onnxembed recipes). What neither says is an error that names the option to pass; nothing
    is guessed. Where the extra [torch] is installed, the vectors are compared
    with sentence-transformers' before the folder appears.
    """
    _require_export()
    from onnxembed.describe import describe_verification, megabytes
    from onnxembed.export.pipeline import Options  # noqa: TID251
    from onnxembed.export.pipeline import export as run  # noqa: TID251
    from onnxembed.export.verify import lacking, self_check, verify_against  # noqa: TID251
    from onnxembed.progress import ProgressLine
    from onnxembed.resolve import Flags

    options = Options(
        precisions=_precisions(precision),
        flags=Flags(_pooling(pooling), normalize, max_length, None if attention == "auto" else attention),
        recipe=recipe,
        pooling_out=pooling_out,
        ignored_config_keys=ignore_config_key,
        force=force,
    )
    output = output or _default_output(model)
    unverified = "--no-verify" if no_verify else lacking()
    later = f"; to verify: onnxembed verify {output}"
    notes = []

    def check(draft: Path, made: Manifest, source: Fetched) -> Manifest:
        nonlocal unverified, later
        if not unverified:
            try:
                return verify_against(draft, made, source.folder, progress=line)
            except NoReferenceError as error:
                unverified, later = str(error), ""
        notes.append(self_check(draft))
        return made

    with ProgressLine() as line:
        manifest = run(
            model,
            output,
            options,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=offline,
            verify=check,
            progress=line,
        )
    size = sum(record.bytes for record in manifest.files.values())
    click.echo(f"{output}: {manifest.embedding.dimension} dimensions, {megabytes(size)}")
    if unverified:
        notes.append(f"not verified ({unverified}){later}")
    for note in (*notes, *describe_verification(manifest)):
        click.echo(note)


@cli.command(short_help="Turn texts into vectors.")
@click.argument("model")
@click.argument("texts", nargs=-1, metavar="[TEXT ... | FILE.txt | FILE.jsonl | -]")
@click.option(
    "-o", "--output", type=PATH, metavar="FILE", help="Write vectors to a .npy or .jsonl file [default: print them]."
)
@click.option("--jsonl", is_flag=True, help="The file or standard input is JSON lines, whatever its name.")
@click.option(
    "--field", default="text", show_default=True, metavar="NAME", help="The field of a JSON line that is the text."
)
@click.option("--prompt", metavar="TEXT", help="Put this before every text.")
@click.option("--prompt-name", metavar="NAME", help="Put the model's prompt of this name before every text.")
@click.option(
    "--dimensions", type=int, help="Keep the first so many numbers of a vector; one of length 1 is scaled to it again."
)
@click.option(
    "--normalize/--no-normalize", default=None, help="Scale vectors to length 1 or do not [default: as the model]."
)
@click.option("--max-length", type=int, help="Cut texts to this many tokens [default: the model's limit].")
@click.option(
    "--precision",
    type=click.Choice(["auto", *PRECISIONS]),
    default="auto",
    show_default=True,
    help="The graph to run; auto is fp32 where there is one.",
)
@click.option(
    "--provider",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto (CUDA where it can be used), cpu, cuda, or ONNX Runtime's name of a provider.",
)
@click.option("--threads", type=int, help="CPU threads [default: all that this process may use].")
@REVISION
@cache_options
def embed(
    *,
    model: str,
    texts: tuple[str, ...],
    output: Path | None,
    jsonl: bool,
    field: str,
    prompt: str | None,
    prompt_name: str | None,
    dimensions: int | None,
    normalize: bool | None,
    max_length: int | None,
    precision: str,
    provider: str,
    threads: int | None,
    revision: str | None,
    cache_dir: Path | None,
    offline: bool,
) -> None:
    """Turn texts into vectors with MODEL, a folder that `onnxembed export` wrote or a hub repository with its files.

    \b
    onnxembed embed my-model-onnx "a text" "another text"
    onnxembed embed my-model-onnx texts.txt -o vectors.npy
    onnxembed embed my-model-onnx documents.jsonl --field body -o vectors.npy
    cat texts.txt | onnxembed embed my-model-onnx - > vectors.jsonl

    Texts are arguments, the lines of a .txt file, a field of the lines of a .jsonl file, or the lines of
    standard input (-). Vectors keep the order of the texts: a row of the .npy file, or a line of JSON, each.
    """
    from onnxembed.embedder import OnnxEmbedder
    from onnxembed.files import check_vector_file, write_jsonl, write_vectors
    from onnxembed.progress import counter

    if output is not None:
        check_vector_file(output)
    with (
        _opened(texts, field, jsonl) as source,
        OnnxEmbedder(
            model,
            precision=precision,  # type: ignore[arg-type]  # click has checked the choice
            providers=provider,
            threads=threads,
            max_length=max_length,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=offline,
        ) as embedder,
    ):
        vectors = embedder.embed(
            source, prompt=prompt, prompt_name=prompt_name, dimensions=dimensions, normalize=normalize
        )
        # On a terminal that shows the vectors themselves, a bar would stand between them.
        with counter(vectors, "embedding", "text", hidden=output is None and sys.stdout.isatty()) as counted:
            if output is None:
                write_jsonl(sys.stdout.buffer, counted)
                sys.stdout.buffer.flush()
            else:
                write_vectors(output, counted, dimensions or embedder.dimension)


@cli.command(short_help="Say what an ONNX folder holds.")
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


@cli.command(short_help="Compare an ONNX folder with its reference.")
@click.argument("folder", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--against", metavar="MODEL", help="Hub name or folder of the original model [default: as recorded].")
@click.option("--revision", help="Branch, tag or commit of --against.")
@click.option(
    "--texts",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="Compare on the texts of this .txt or .jsonl file, too.",
)
@click.option("--golden", is_flag=True, help="Compare with the numbers that its recipe gives instead; without torch.")
@cache_options
def verify(
    *,
    folder: Path,
    against: str | None,
    revision: str | None,
    texts: str | None,
    golden: bool,
    cache_dir: Path | None,
    offline: bool,
) -> None:
    """Compare FOLDER, which `onnxembed export` wrote, with the original model run by sentence-transformers.

    Token ids and vectors are compared on built-in texts: each alone, all together, padded left and
    right, and longer than the model's limit. The figures are recorded in the folder; when they are over the
    limits, nothing is, and the exit code is 2. Needs the extra [torch].
    """
    if golden:
        if against or revision or texts:
            raise UsageError("--golden compares with published numbers: not with --against, --revision or --texts")
        _verify_golden(folder)
        return
    from onnxembed.describe import describe_verification
    from onnxembed.export.verify import verify as run  # noqa: TID251
    from onnxembed.progress import ProgressLine

    more: list[str] = []
    if texts is not None:
        with _opened([texts], "text", jsonl=False) as source:
            more = list(source)
    with ProgressLine() as line:
        manifest = run(
            folder,
            against=against,
            revision=revision,
            cache_dir=cache_dir,
            local_files_only=offline,
            texts=more,
            progress=line,
        )
    for words in describe_verification(manifest):
        click.echo(words)


@cli.command(short_help="Say what is known of published models beside their files.")
@click.argument("name", required=False)
def recipes(*, name: str | None) -> None:
    """List the recipe book, or say all of the recipe NAME.

    A recipe holds what the files of a published model do not say, with its reason and source, and numbers
    that were published for it (see onnxembed verify --golden).
    """
    from onnxembed.recipes import describe_recipe, read_recipe, recipe_names, summary

    if name is not None:
        for line in describe_recipe(read_recipe(name)):
            click.echo(line)
        return
    book = [read_recipe(each) for each in recipe_names()]
    width = max((len(recipe.model) for recipe in book), default=0)
    for recipe in book:
        click.echo(
            f"{recipe.model:<{width}}  {'checked' if recipe.is_checked else 'UNCHECKED'}  {summary(recipe)}".rstrip()
        )


def _verify_golden(folder: Path) -> None:
    from onnxembed.golden import check_golden

    failures = 0
    for outcome in check_golden(folder):
        failures += not outcome.held
        click.echo(f"{'ok' if outcome.held else 'OFF'}: {outcome.words}")
    if failures:
        raise VerificationError(f"{failures} of the published numbers are not met")


# ---- what arguments mean


def _require_export() -> None:
    missing = [name for name in ("onnx", "ml_dtypes") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"export needs {' and '.join(missing)}: pip install 'onnxembed[export]'")


def _default_output(model: str) -> Path:
    """The model's own name, also when it is given as "." or as a hub id."""
    folder = Path(model).expanduser()
    return Path(f"{folder.resolve().name if folder.is_dir() else folder.name}-onnx")


def _precisions(options: Sequence[str]) -> tuple[Precision, ...]:
    names = [name.strip() for option in options for name in option.split(",")]
    for name in names:
        if name not in PRECISIONS:
            raise UsageError(f"--precision: {name!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(dict.fromkeys(names))  # type: ignore[arg-type]  # checked above


def _pooling(option: str | None) -> tuple[PoolingMode, ...] | None:
    if option is None:
        return None
    names = option.split("+")
    for name in names:
        if name not in POOLING_MODES:
            raise UsageError(f"--pooling: {name!r} is not one of {', '.join(POOLING_MODES)}")
    return tuple(names)  # type: ignore[arg-type]  # checked above


@contextmanager
def _opened(texts: Sequence[str], field: str, jsonl: bool) -> Iterator[Iterable[str]]:
    """The texts that the arguments stand for."""
    from onnxembed.files import read_texts

    name = _file(texts, jsonl)
    if name is None:
        yield texts
    elif name == "-":
        yield read_texts(sys.stdin.buffer, "standard input", field if jsonl else None)
    else:
        with open(name, "rb") as file:
            yield read_texts(file, name, field if jsonl or name.endswith(".jsonl") else None)


def _file(texts: Sequence[str], jsonl: bool) -> str | None:
    """The file that the arguments name, "-" for standard input, None when they are the texts themselves."""
    from onnxembed.files import TEXT_FILES

    if not texts:
        raise UsageError("no texts: give texts, a .txt or .jsonl file, or - for standard input")
    name, others = texts[0], texts[1:]
    # An existing file is never meant as a text, not even among others or with an unknown ending.
    if others:
        for text in texts:
            if text == "-" or os.path.isfile(text):
                raise UsageError(f"{text} is a file among texts: give one file, or join several (cat ... | ... -)")
    elif name == "-" or name.endswith(TEXT_FILES) or (os.path.isfile(name) and jsonl):
        return name
    elif os.path.isfile(name):
        raise UsageError(
            f"{name} is a file, but neither .txt nor .jsonl; embed takes any as standard input: - < {name}"
        )
    if jsonl:
        raise UsageError("--jsonl is for a file or standard input, not for texts")
    return None
