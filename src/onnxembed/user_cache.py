"""Where this user's cache lies on this system."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def user_cache() -> Path:
    """The package's folder in XDG_CACHE_HOME or the system's usual place for caches; RuntimeError without a home."""
    if given := os.environ.get("XDG_CACHE_HOME"):
        base = Path(given)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path.home() / ".cache"
    return base / "onnxembed"
