"""`pytest --parity-table`: what the parity tests measured, one row per architecture and pooling.

Tests record what they compare. With the option, a test's records travel in its report, from xdist's workers too, and
the tables are printed at the end of the run. Without it, nothing reads them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterable, Mapping
from typing import Any, NamedTuple

import pytest

NOTE = """\
Max abs difference in fp32 over all comparisons, each of a checkpoint at all shapes, of vectors that are not normalized.
`tokens` are the hidden states of real tokens; `mean_sqrt_len` is divided by the root of the number of tokens. The
config is the one with the largest difference. A layer's nodes are those that a third layer adds, all branches of an If
included; it is a layer with a window in models that have such."""


class Architecture(NamedTuple):
    """The key by which the rows of the tables are grouped."""

    model_type: str
    engine: str
    attention: str


# As pytest keeps a test's properties: names, and values of builtin types only, which xdist can send.
RECORDS: list[tuple[str, Any]] = []


def record_differences(architecture: Architecture, config: Mapping[str, Any], by_pooling: dict[str, float]) -> None:
    """The largest differences of one config over all shapes."""
    RECORDS.append(("differences", (tuple(architecture), sizes(config), by_pooling)))


def record_layer(architecture: Architecture, operators: dict[str, int]) -> None:
    """How many nodes of each type one layer has."""
    RECORDS.append(("layer", (tuple(architecture), operators)))


def sizes(config: Mapping[str, Any]) -> str:
    """A config in a few words: hidden size D, heads (those of keys and values) x their size, layers, window."""

    def first(*keys: str) -> Any:
        return next((config[key] for key in keys if config.get(key) is not None), None)

    hidden, heads = (
        first("hidden_size", "dim", "n_embd"),
        first("num_attention_heads", "n_heads", "n_head"),
    )
    if heads is None:
        return f"D {hidden}"
    groups, window = first("num_key_value_heads"), first("local_attention", "sliding_window")
    parts = [
        f"D {hidden}",
        f"{heads}{f' ({groups})' if groups not in (None, heads) else ''} x {first('head_dim') or hidden // heads}",
        f"{first('num_hidden_layers', 'n_layers', 'n_layer')} layers",
        *([f"window {window}"] if window else []),
    ]
    return ", ".join(parts)


class ParityTable:
    """The plugin that the option registers."""

    def __init__(self) -> None:
        self.differences: dict[Architecture, list[tuple[str, dict[str, float]]]] = defaultdict(list)
        self.layers: dict[Architecture, dict[str, int]] = {}

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None]:
        RECORDS.clear()
        try:
            yield
        finally:
            item.user_properties += RECORDS

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        records: list[tuple[str, Any]] = report.user_properties
        for name, value in records:
            if name == "differences":
                architecture, config, by_pooling = value
                self.differences[Architecture(*architecture)].append((config, by_pooling))
            elif name == "layer":
                architecture, operators = value
                self.layers[Architecture(*architecture)] = operators

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("parity table")
        for line in (*self.pooling_rows(), "", *self.layer_rows(), "", NOTE):
            terminalreporter.write_line(line)

    def pooling_rows(self) -> Iterable[str]:
        """One row per architecture and pooling."""
        yield from _head(
            "model type",
            "engine",
            "attention",
            "pooling",
            "comparisons",
            "max abs difference",
            "config",
            "nodes per layer",
        )
        for architecture, measured in sorted(self.differences.items()):
            layer = self.layers.get(architecture)
            nodes = sum(layer.values()) if layer else "not counted"
            for pooling in measured[0][1]:
                config, worst = max(
                    ((config, values[pooling]) for config, values in measured), key=lambda each: each[1]
                )
                yield _row(*architecture, pooling, len(measured), f"{worst:.1e}", config, nodes)

    def layer_rows(self) -> Iterable[str]:
        """One row per architecture: the nodes of a layer by type."""
        yield from _head("model type", "engine", "attention", "nodes per layer", "of which")
        for architecture, layer in sorted(self.layers.items()):
            types = sorted(layer.items(), key=lambda each: (-each[1], each[0]))
            yield _row(*architecture, sum(layer.values()), ", ".join(f"{count} {name}" for name, count in types))


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _head(*names: str) -> tuple[str, str]:
    return _row(*names), _row(*["---"] * len(names))
