"""Keeping the libraries that we call off the screen."""

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
    """Silence what torch and transformers print, log, warn of and draw bars for; errors come through."""
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
