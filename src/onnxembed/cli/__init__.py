"""The command line, one file per command. Each command imports what it needs when it runs."""

from __future__ import annotations

import io
import signal
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from types import FrameType
from typing import NoReturn

import click

from onnxembed import __version__
from onnxembed.cli.adopt import adopt
from onnxembed.cli.compare import compare
from onnxembed.cli.doctor import doctor
from onnxembed.cli.embed import embed
from onnxembed.cli.explain import explain
from onnxembed.cli.export import export
from onnxembed.cli.inspect import inspect
from onnxembed.cli.load import load
from onnxembed.cli.models import models
from onnxembed.cli.printing import colored
from onnxembed.cli.recipes import recipes
from onnxembed.cli.rerank import rerank
from onnxembed.cli.serve import serve
from onnxembed.cli.verify import verify
from onnxembed.errors import NetworkError, NoReferenceError, OnnxEmbedError, VerificationError, shortened

CHECK_FAILED, REFUSED, NETWORK, INTERRUPTED, UNREAD = 1, 2, 3, 130, 141
"""The exit codes besides 0: a check failed; the command or the model is not usable; the network failed; Ctrl-C; what
read the output has gone."""

STOPPING = [signal.SIGTERM, *([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])]
"""The signals after which partial files are removed; Windows has no SIGHUP."""

HAS_TIMERS = hasattr(signal, "setitimer")
"""Windows has none."""

IMPORT_WAIT = 0.02
"""Seconds after which Ctrl-C during an import is tried again."""

ONE_WISH = 2.0
"""Seconds after Ctrl-C in which another one is the same wish: it would interrupt what removes partial files."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line. After an error it prints one sentence and exits with `exit_code` of it."""
    warnings.showwarning = _show_warning
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:  # under nohup, a lost terminal stops nothing
            signal.signal(number, _stop)
    _check_streams()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # for terminals that cannot show every letter
    try:
        _call(arguments)
    except OnnxEmbedError as error:
        _fail(f"{error}", exit_code(error))
    except click.Abort:
        given = sys.argv[1:] if arguments is None else arguments
        _fail("interrupted", 0 if [*given[:1]] == [serve.name] else INTERRUPTED)  # Ctrl-C is how a server ends
    except click.ClickException as error:
        error.show()
        sys.exit(REFUSED)
    except MemoryError:
        _fail("there is not enough memory for this", REFUSED)
    except RecursionError as error:
        _fail(f"a file is nested too deeply ({error})", REFUSED)
    except UnicodeEncodeError as error:
        _fail(f"{_shown(error.object)[:100]} is not a name in {error.encoding}: rename it", REFUSED)
    except OSError as error:
        _discard_output()
        _fail(f"{error.filename or 'input or output'}: {error.strerror or error}", REFUSED)
    sys.exit(0)


def _call(arguments: Sequence[str] | None) -> None:
    """Run the command. Whatever comes out of it after Ctrl-C is click.Abort: imports turn it into their own errors."""
    interrupted, obeyed = False, -ONE_WISH

    def interrupt(_: int, frame: FrameType | None) -> None:
        nonlocal interrupted, obeyed
        interrupted = True
        if HAS_TIMERS and _is_importing(frame):
            signal.signal(signal.SIGALRM, _try_again)
            signal.setitimer(signal.ITIMER_REAL, IMPORT_WAIT)
        elif time.monotonic() - obeyed > ONE_WISH:
            obeyed = time.monotonic()
            raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGINT)
    try:
        if callable(before):  # in the background it is ignored
            signal.signal(signal.SIGINT, interrupt)
        cli.main(arguments, standalone_mode=False)
    except BaseException as error:
        if interrupted:
            raise click.Abort from error
        raise
    finally:
        if HAS_TIMERS and interrupted:  # else the timer is not ours
            signal.setitimer(signal.ITIMER_REAL, 0)
        # After Ctrl-C the process ends, and another one is not to be in its way.
        signal.signal(signal.SIGINT, signal.SIG_IGN if interrupted else before)


def _try_again(*_: object) -> None:
    signal.raise_signal(signal.SIGINT)  # a server has its own handler by then


def _is_importing(frame: FrameType | None) -> bool:
    """Whether the command is importing: an exception there can crash a module of C code, or be lost."""
    while frame is not None and frame.f_code is not _call.__code__:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def exit_code(error: OnnxEmbedError) -> int:
    """1 if a check failed, 3 if the network did, else 2: the command or the model is not usable as it is."""
    if isinstance(error, VerificationError) and not isinstance(error, NoReferenceError):
        return CHECK_FAILED
    return NETWORK if isinstance(error, NetworkError) else REFUSED


def _shown(text: str) -> str:
    """A name that no terminal can show, with its strange bytes as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _check_streams() -> None:
    """Refuse closed streams: the next file to be opened would take a closed stream's place and get its output."""
    for name, stream in (("input", sys.stdin), ("output", sys.stdout), ("error", sys.stderr)):
        if stream is None:
            _fail(f"standard {name} is closed; redirect it, for example to /dev/null", 2)


def _discard_output() -> None:
    """Discard what cannot be written, on a full disk: Python would try again at exit and report a second error."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            sys.stdout.close()


def _fail(message: str, code: int) -> NoReturn:
    click.echo(f"{colored('onnxembed:', 'red', sys.stderr)} {_shown(shortened(message))}", err=True)
    sys.exit(code)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    click.echo(f"{colored('onnxembed: warning:', 'yellow', sys.stderr)} {message}", err=True)


def _stop(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)  # raises an exception, so that partial files are removed


COMMANDS: Mapping[str, Sequence[click.Command]] = {
    "Make an ONNX folder": (export, adopt),
    "Use it": (embed, rerank, serve, load),
    "Prove and explain": (verify, compare, explain),
    "Look things up": (inspect, models, recipes, doctor),
}
"""The commands under the headings of the help, in the order in which a newcomer needs them."""


class _Headed(click.Group):
    """A group whose help shows its commands under headings, and which ends as others do when nobody reads on."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; where what reads the output has gone, end with a code of its own: click's is 1."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            _discard_output()
            sys.exit(UNREAD)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a list for each heading; all lists are aligned."""
        longest = max(map(len, self.commands))
        room = formatter.width - longest - 4  # the indent, and the gap before the words
        for heading, commands in COMMANDS.items():
            with formatter.section(heading):
                rows = [(str(command.name).ljust(longest), command.get_short_help_str(room)) for command in commands]
                formatter.write_dl(rows)


@click.group(cls=_Headed, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, "-V", "--version", prog_name="onnxembed")
def cli() -> None:
    """Embedding models as ONNX folders that give the model's own vectors, fast, without torch.

    \b
    Export a model once, then embed with its folder anywhere:
      onnxembed export sentence-transformers/all-MiniLM-L6-v2
      onnxembed embed all-MiniLM-L6-v2-onnx "hello world"

    See `onnxembed COMMAND --help` for each command.
    """


for command in chain.from_iterable(COMMANDS.values()):
    cli.add_command(command)
