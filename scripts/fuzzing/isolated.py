"""A function in a process of its own, with limits on time and memory."""

from __future__ import annotations

import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from onnxembed.errors import OnnxEmbedError


@dataclass(frozen=True)
class Ended:
    """How a call ended: "value", "refused" (an error of the package), "foreign" (another one), "hang" or "abort"."""

    how: str
    value: Any = None


def isolated(work: Callable[[], Any], seconds: float, memory: int = 4 << 30) -> Ended:
    """Run `work` in a forked process, which may take `memory` more bytes than this one."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        _child(work, writing, memory)
    os.close(writing)
    data, deadline = b"", time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0 and select.select([reading], [], [], left)[0]:
        if not (chunk := os.read(reading, 1 << 20)):
            break
        data += chunk
    else:
        os.kill(pid, signal.SIGKILL)
    os.close(reading)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        name = signal.Signals(os.WTERMSIG(status)).name
        return Ended("hang", f"over {seconds} s") if name == "SIGKILL" else Ended("abort", name)
    return Ended(*pickle.loads(data)) if data else Ended("abort", "no answer")


def _child(work: Callable[[], Any], writing: int, memory: int) -> None:
    """Run the work, send how it ended, and end the process."""
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory, now + memory))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        answer: tuple[str, Any] = ("value", work())
    except OnnxEmbedError as error:
        answer = ("refused", f"{type(error).__name__}: {error}"[:500])
    except BaseException as error:  # a panic of Rust code is no Exception
        answer = ("foreign", f"{type(error).__name__}: {error}"[:500])
    with os.fdopen(writing, "wb") as pipe:
        pipe.write(pickle.dumps(answer))
    os._exit(0)
