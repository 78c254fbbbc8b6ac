"""Keeps the libraries that the engines call off the screen."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from importlib import import_module
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the prints, logs, warnings and progress bars of torch and transformers; errors pass."""
    log_level = logging.root.manager.disable
    with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        try:
            bars: Any = import_module("transformers.utils.logging")
            shown = bars.is_progress_bar_enabled()
            bars.disable_progress_bar()
            try:
                yield
            finally:
                if shown:
                    bars.enable_progress_bar()
        finally:
            logging.disable(log_level)
