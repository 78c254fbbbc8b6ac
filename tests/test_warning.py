"""Warnings that are given once."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor

from onnxembed.warning import Once


def test_a_warning_is_given_once_among_many_threads() -> None:
    once = Once()
    with warnings.catch_warnings(record=True) as caught, ThreadPoolExecutor(8) as threads:
        warnings.simplefilter("always")
        list(threads.map(once.warn, ["a", "b", "c"] * 10))
    assert len(caught) == 1


def test_the_warning_points_at_the_line_that_caused_it() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Once().warn("shown once")
    assert [(str(warning.message), warning.filename) for warning in caught] == [("shown once", __file__)]
