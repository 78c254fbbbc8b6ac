"""Fixtures of the tests of loading."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from foreign import vectors


@pytest.fixture(scope="module")
def expected(artifact: Path) -> Any:
    """The vectors that every form of the tiny BERT should give SHORT_TEXTS."""
    return vectors(artifact)
