"""A result as Markdown tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from statistics import median
from typing import Any

from benchmark.measure import Line, Result
from benchmark.rounds import percentile, ratios

MB = 1e6

FLOORS = {"fp32": 0.9999, "fp16": 0.999, "bf16": 0.99, "int16": 0.9999, "int8w": 0.99, "int8": 0.98}
"""Below this cosine a system computes something else, and its speed cannot be compared."""

ROOF_KINDS = {"fp32": "fp32", "int8": "int8", "int8w": "int8", "fp16": "fp16"}
"""The product whose rate a precision is compared with; other precisions have none."""


def report(result: Result, footprints: Mapping[str, Mapping[str, Any]]) -> str:
    """All tables of one model."""
    plan = result.plan
    clock = "wall time" if plan["clock"] == "seconds" else "CPU time"
    parts = [
        f"## {result.model}\n\n{plan['threads']} threads, {plan['device']}, {plan['rounds']} alternating rounds, "
        f"{clock}; x is the median of the rounds' ratios to {result.baseline}, with the least and the most.",
        roof_table(result),
        *(corpus_table(result, corpus) for corpus in result.throughput),
        *([latency_table(result)] if result.singles else []),
        cost_table(result, footprints),
        absences(result),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def roof_table(result: Result) -> str:
    """The machine's rate of matrix products."""
    rows = [[name, f"{median(rates) / 1e9:,.0f}", f"{min(rates) / 1e9:,.0f} to {max(rates) / 1e9:,.0f}"]
            for name, rates in result.roof.items()]  # fmt: skip
    return "### Roof: matrix products, GFLOP/s or GOP/s\n\n" + table(["product", "median", "spread"], rows)


def corpus_table(result: Result, corpus: str) -> str:
    """Throughput of every line on one corpus."""
    about = result.corpora[corpus]
    rows = [corpus_row(result, corpus, line, times) for line, times in result.throughput[corpus]]
    heading = (
        f"### {corpus}: {about['texts']} texts of {about['source']}, {about['mean']:.0f} tokens on average, "
        f"median {about['median']:.0f}, longest {about['longest']}; {about['flops'] / 1e9:,.0f} GFLOP"
    )
    columns = ["system", "batch", "texts/s", "tokens/s", "x", "spread of x", "of the roof", "min agreement"]
    return f"{heading}\n\n{table(columns, rows)}"


def corpus_row(result: Result, corpus: str, line: Line, times: Sequence[float]) -> list[str]:
    """One line: speed, ratio, share of the roof, and whether the vectors are the same."""
    about = result.corpora[corpus]
    seconds = median(times)
    ratio = ratios(times, baseline(result, corpus))
    same = result.agreement[line.label][corpus]
    rate = roof_rate(result, line.kind)
    batch = "" if line.batch is None else f"{line.batch}{' (best)' if line.best else ' (default)'}"
    return [
        line.label,
        batch,
        f"{about['texts'] / seconds:,.1f}",
        f"{about['tokens'] / seconds:,.0f}",
        f"{ratio.median:.2f}",
        f"{ratio.least:.2f} to {ratio.most:.2f}",
        f"{about['flops'] / seconds / rate:.0%}" if rate else "",
        f"{same:.5f}{'' if same >= FLOORS[line.kind] else ' NOT THE SAME'}",
    ]


def baseline(result: Result, corpus: str) -> list[float]:
    """The times of the line that ratios refer to."""
    return next(times for line, times in result.throughput[corpus] if line.label == result.baseline)


def roof_rate(result: Result, kind: str) -> float:
    """The best rate of products of this kind, over all ways to use threads; 0.0 if none was measured."""
    wanted = ROOF_KINDS.get(kind, "")
    rates = [median(rates) for name, rates in result.roof.items() if name.split()[0] == wanted]
    return max(rates, default=0.0)


def latency_table(result: Result) -> str:
    """Short queries one at a time."""
    every = {label: list(chain.from_iterable(rounds)) for label, rounds in result.singles.items()}
    ours = {share: percentile(every[result.baseline], share) for share in (0.5, 0.99)}
    rows = [
        [label]
        + [f"{percentile(times, share) * 1e3:.2f}" for share in ours]
        + [f"{ours[share] / percentile(times, share):.2f}" for share in ours]
        for label, times in every.items()
    ]
    return "### One short query, milliseconds\n\n" + table(["system", "p50", "p99", "x p50", "x p99"], rows)


def cost_table(result: Result, footprints: Mapping[str, Mapping[str, Any]]) -> str:
    """Memory, size and start."""
    rows = []
    for label, version in result.versions.items():
        footprint = next((value for name, value in footprints.items() if label.lower().startswith(name)), None)
        rows.append(
            [
                label,
                f"{result.peak[label] / MB:,.0f}",
                f"{result.gpu_memory[label] / MB:,.0f}" if result.plan["device"] == "cuda" else "",
                f"{result.load[label]:.2f}",
                f"{footprint['bytes'] / MB:,.0f}" if footprint else "",
                f"{footprint['import_seconds']:.2f}" if footprint else "",
                version,
            ]
        )
    columns = ["system", "peak MB", "GPU MB", "load s", "installed MB", "import s", "versions"]
    note = "Peak: resident memory of the process, each corpus encoded once at the default batch size."
    return f"### Memory, start and size\n\n{table(columns, rows)}\n\n{note}"


def absences(result: Result) -> str:
    """What was not measured, and why."""
    return "\n".join(f"- {label}: {reason}" for label, reason in result.absent.items())


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    lines = [list(columns), ["---"] * len(columns), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
