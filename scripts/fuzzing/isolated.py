"""Functions in processes of their own, with limits on time and memory."""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, NoReturn

from onnxembed.errors import OnnxEmbedError

Work = Callable[[], Any]
WORDS = 2000
"""The most characters that are kept of an error."""


@dataclass(frozen=True)
class Ended:
    """How a call ended: "value", "refused" (an error of the package), "foreign" (another one), "hang" or "abort"."""

    how: str
    value: Any = None


def attempt(work: Work) -> Ended:
    """Run `work` in this process."""
    try:
        return Ended("value", work())
    except OnnxEmbedError as error:
        return Ended("refused", f"{type(error).__name__}: {error}"[:WORDS])
    except BaseException as error:  # a panic of Rust code is no Exception
        return Ended("foreign", f"{type(error).__name__}: {error}"[:WORDS])


def isolated(work: Work, seconds: float, memory: int = 4 << 30) -> Ended:
    """Run `work` in a forked process, which may take `memory` more bytes than this one."""
    return next(isolated_each([work], seconds, memory))


def isolated_each(works: Sequence[Work], seconds: float, memory: int = 4 << 30) -> Iterator[Ended]:
    """Run one after another in a forked process, and in a new one after each that ends its process."""
    while works:
        done = 0
        for ended in _in_one_process(works, seconds, memory):
            done += 1
            yield ended
        works = works[done:]


def _in_one_process(works: Sequence[Work], seconds: float, memory: int) -> Iterator[Ended]:
    """How they end, up to the one that hangs or aborts, if one does."""
    reading, writing = multiprocessing.Pipe(duplex=False)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        reading.close()
        _run(works, writing, memory)
    writing.close()
    try:
        for _ in works:
            if not reading.poll(seconds):
                yield Ended("hang", f"over {seconds} s")
                return
            yield reading.recv()
    except EOFError:
        yield Ended("abort", _death(pid))
        return
    finally:
        reading.close()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _death(pid: int) -> str:
    """What ended the process, which stays to be waited for."""
    ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    killed = ended is not None and ended.si_code in (os.CLD_KILLED, os.CLD_DUMPED)
    return signal.Signals(ended.si_status).name if ended is not None and killed else "no answer"


def _run(works: Sequence[Work], writing: Connection, memory: int) -> NoReturn:
    """Run them, send how each ended, and end the process."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.disable()  # how it ends is the parent's to say, not a traceback's in the log of a test that passes
    try:
        for work in works:
            writing.send(attempt(work))
    finally:
        os._exit(0)  # where an answer cannot be sent, too: what follows in the parent is not the child's
