"""What a fork does to open graphs: the child has their memory, but none of their threads.

A lock that another thread held at the fork is never released in the child, and work that was given to a thread is
never done. Backends therefore begin anew in the child; ONNX Runtime's own locks are not held while a fork happens.
"""

from __future__ import annotations

import ctypes
import os
import threading
from typing import Protocol
from weakref import WeakSet

from onnxembed.execution.session import Session


class Forked(Protocol):
    """A backend, as far as forks matter to it."""

    def begin_in_child(self) -> None:
        """Give up what the forked child cannot use. No other thread exists yet."""


OPENING = threading.RLock()
"""Held while a session is opened, and a fork waits for it: ONNX Runtime's own locks would stay held in the child."""

_OPEN: WeakSet[Forked] = WeakSet()


def begin_in_children(backend: Forked) -> None:
    """Have the backend begin anew in every child that this process forks from now on."""
    _OPEN.add(backend)


def give_up(session: Session) -> None:
    """Never free a session in this process: freeing it would wait for its threads, which were not forked."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(session))


def _in_child() -> None:
    OPENING.release()
    # With this setting, the tokenizers library would go on to wait for its threads, too. Without it, it knows better.
    if _OPEN and "TOKENIZERS_PARALLELISM" in os.environ:
        os.environ["TOKENIZERS_PARALLELISM"] = "false"
    for backend in list(_OPEN):
        backend.begin_in_child()


if hasattr(os, "register_at_fork"):  # Windows has no forks
    os.register_at_fork(before=OPENING.acquire, after_in_parent=OPENING.release, after_in_child=_in_child)
