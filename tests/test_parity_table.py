"""The table of `pytest --parity-table`, from what tests record to its rows."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

import parity_table
from parity_table import Architecture, ParityTable, record_differences, record_layer, sizes

BERT = Architecture("bert", "build", "bidirectional")
SMALL = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 3}


def after(monkeypatch: pytest.MonkeyPatch, *tests: Any) -> ParityTable:
    """The plugin after it has run tests, which are functions, as pytest runs it."""
    monkeypatch.setattr(parity_table, "RECORDS", [])
    plugin = ParityTable()
    for test in tests:
        item: Any = SimpleNamespace(user_properties=[])
        call = plugin.pytest_runtest_call(item)
        next(call)
        test()
        next(call, None)
        for when in ("setup", "call", "teardown"):
            report: Any = SimpleNamespace(when=when, user_properties=item.user_properties)
            plugin.pytest_runtest_logreport(report)
    return plugin


def test_a_row_has_the_largest_difference_of_all_configs_and_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = after(
        monkeypatch,
        lambda: record_differences(BERT, SMALL, {"tokens": 3e-6, "mean": 1e-7}),
        lambda: record_differences(BERT, {**SMALL, "num_attention_heads": 1}, {"tokens": 2e-6, "mean": 2e-7}),
        lambda: record_layer(BERT, {"MatMul": 6, "Add": 4, "BiasGelu": 1}),
    )
    assert list(plugin.pooling_rows())[2:] == [
        "| bert | build | bidirectional | tokens | 2 | 3.0e-06 | D 48, 4 x 12, 3 layers | 11 |",
        "| bert | build | bidirectional | mean | 2 | 2.0e-07 | D 48, 1 x 48, 3 layers | 11 |",
    ]
    assert list(plugin.layer_rows())[2:] == ["| bert | build | bidirectional | 11 | 6 MatMul, 4 Add, 1 BiasGelu |"]


def test_nodes_that_were_not_counted_are_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = after(monkeypatch, lambda: record_differences(BERT, SMALL, {"mean": 0.0}))
    assert list(plugin.pooling_rows())[-1].endswith("| not counted |")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"dim": 48, "n_heads": 4, "n_layers": 3}, "D 48, 4 x 12, 3 layers"),
        ({"n_embd": 40, "n_head": 4, "n_layer": 3}, "D 40, 4 x 10, 3 layers"),
        (
            {**SMALL, "num_key_value_heads": 2, "head_dim": 20, "sliding_window": 7},
            "D 48, 4 (2) x 20, 3 layers, window 7",
        ),
        ({"hidden_size": 6}, "D 6"),
    ],
)
def test_a_config_in_a_few_words(config: dict[str, int], words: str) -> None:
    assert sizes(config) == words
