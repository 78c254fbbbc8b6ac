"""A report of a job: one page of HTML with its counts, and lengths, rates and rejected rows as plots."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import numpy as np

from onnxembed.arrays import IntArray
from onnxembed.bulk.arrow import pc, pq
from onnxembed.bulk.job import REJECTED_FILE, Job
from onnxembed.bulk.making import TOKEN_COUNT
from onnxembed.bulk.parts import JOB_FOLDER
from onnxembed.bulk.summary import Summary
from onnxembed.counting import counted
from onnxembed.errors import UsageError

Sample = tuple[float, int]
"""Seconds since the run began, and how many texts had been embedded."""

WIDTH, HEIGHT, TOP, BOTTOM = 640, 220, 30, 30
"""Units of a plot, and of the words above and below it; letters are larger on narrow screens."""

GENERATOR = '<meta name="generator" content="onnxembed">'
"""What stands at the beginning of every report."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --paper: #fff; --faint: #d0d7de; --mark: #0969da; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6edf3; --paper: #0d1117; --faint: #30363d; --mark: #4493f8; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 44rem;
  margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
table { border-collapse: collapse; } td { padding: .15rem 1.2rem .15rem 0; vertical-align: top; }
td:first-child { white-space: nowrap; }
td + td { font-variant-numeric: tabular-nums; overflow-wrap: anywhere; }
svg { width: 100%; height: auto; } svg text { fill: var(--ink); font-size: 13px; }
@media (max-width: 40rem) { svg text { font-size: 21px; } }
.bars { width: 100%; } .bars td:first-child { white-space: normal; overflow-wrap: anywhere; }
.bars td { padding-right: .8rem; } .bars td:nth-child(2) { text-align: right; white-space: nowrap; }
.bars td:last-child { width: 45%; padding: .45rem 0 0; }
.bar { background: var(--mark); height: .8rem; min-width: 1px; }
.mark { fill: var(--mark); } .line { fill: none; stroke: var(--mark); stroke-width: 2; }
.axis { stroke: var(--faint); }
"""


def check_report(path: Path) -> None:
    """Raise UsageError for a path that cannot get a report: what exists is replaced only if it is one.

    The same command writes the same report again, and `--force` would begin the job anew.
    """
    if not path.parent.is_dir():
        raise UsageError(f"{path.parent} is not a folder")
    if path.exists() and not (path.is_file() and GENERATOR in path.read_text("utf-8", "replace")[:200]):
        raise UsageError(f"{path} exists and is no report: choose another name for the report")


def write_report(path: Path, output: Path, job: Job, summary: Summary, samples: Sequence[Sample]) -> None:
    """Write the page; `samples` are of the run that just ended, the rest is of the whole job."""
    lengths = _lengths(sorted(output.glob("part-*.parquet")))
    sections = [
        f"<h1>{escape(output.name)}</h1>",
        _table(_counts(job, summary)),
        "<h2>Tokens of a text</h2>",
        _histogram(lengths) if summary.texts else "<p>No texts.</p>",
        "<h2>Texts per second, in this run</h2>",
        _rates(samples) if len(samples) > 1 else "<p>Nothing was embedded in this run.</p>",
        "<h2>Rejected rows</h2>",
        _reasons(output) if summary.rejected else "<p>None.</p>",
    ]
    head = f'<meta charset="utf-8">{GENERATOR}<title>{escape(output.name)}</title><style>{STYLE}</style>'
    page = f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>\n' + "\n".join(sections) + "\n</body></html>\n"
    path.write_text(page, encoding="utf-8")


def _counts(job: Job, summary: Summary) -> list[tuple[str, str]]:
    vectors = job.vectors
    return [
        ("model", vectors["model"]),
        ("vector space", vectors["space"]["id"]),
        ("vectors", f"{vectors['task']}, {counted(vectors['dimensions'], 'dimension')}, {vectors['dtype']}"),
        ("precision", vectors["precision"]),
        ("inputs", f"{counted(len(job.inputs), 'file')}, {sum(file['bytes'] for file in job.inputs):,} bytes"),
        ("texts", f"{summary.texts:,}"),
        ("tokens", f"{summary.tokens:,}"),
        ("truncated", f"{summary.truncated:,} ({summary.truncated / max(1, summary.texts):.1%} of the texts)"),
        ("rejected", f"{summary.rejected:,}"),
        ("parts", f"{summary.parts:,}"),
    ]


def _table(rows: Iterable[tuple[str, str]]) -> str:
    return "<table>" + "".join(f"<tr><td>{escape(a)}</td><td>{escape(b)}</td></tr>" for a, b in rows) + "</table>"


def _lengths(parts: Sequence[Path]) -> IntArray:
    """How many texts have each number of tokens: [longest + 1]."""
    counts = np.zeros(1, np.int64)
    for part in parts:
        found = np.bincount(pq.read_table(part, columns=[TOKEN_COUNT])[TOKEN_COUNT].to_numpy())
        counts = np.pad(counts, (0, max(0, len(found) - len(counts))))
        counts[: len(found)] += found
    return counts


def _histogram(counts: IntArray, most: int = 40) -> str:
    """Bars of texts by their tokens, in at most `most` bins of equal width."""
    width = max(1, -(-len(counts) // most))
    bins = np.add.reduceat(counts, np.arange(0, len(counts), width))
    top = int(bins.max())
    step = WIDTH / len(bins)
    bars = []
    for place, count in enumerate(bins.tolist()):
        height = (HEIGHT - BOTTOM - TOP) * count / top
        title = f"{place * width} to {place * width + width - 1} tokens: {counted(count, 'text')}"
        bars.append(
            f'<rect class="mark" x="{place * step:.1f}" y="{HEIGHT - BOTTOM - height:.1f}" '
            f'width="{max(1.0, step - 1):.1f}" height="{height:.1f}"><title>{title}</title></rect>'
        )
    return _plot("".join(bars), bottom=("0", f"{len(bins) * width} tokens"), top=counted(top, "text"))


def _rates(samples: Sequence[Sample], most: int = 120, least: int = 4) -> str:
    """At most `most` steps of texts per second over time.

    Each is the rate over at least `least` samples, because windows, which are computed side by side, end in pairs.
    """
    every, last = max(least, -(-len(samples) // most)), len(samples) - 1
    places = [0, *range(every, last + 1 - every, every), last]
    seconds, texts = (np.array(column, np.float64)[places] for column in zip(*samples, strict=True))
    rates = np.diff(texts) / np.maximum(np.diff(seconds), 1e-9)
    top = float(rates.max()) or 1.0
    xs = WIDTH * seconds / (seconds[-1] or 1.0)
    ys = HEIGHT - BOTTOM - (HEIGHT - BOTTOM - TOP) * rates / top
    points = " ".join(
        f"{begin:.1f},{y:.1f} {end:.1f},{y:.1f}" for begin, end, y in zip(xs[:-1], xs[1:], ys, strict=True)
    )
    line = f'<polyline class="line" points="{points}"/>'
    return _plot(line, bottom=("0", f"{seconds[-1]:,.0f} s"), top=f"{top:,.0f} texts/s")


def _reasons(output: Path, most: int = 12) -> str:
    """Bars of rejected rows by their reason, the most frequent ones first, and where all rows are."""
    path = output / JOB_FOLDER / REJECTED_FILE
    counts = pc.value_counts(pq.read_table(path)["reason"])
    reasons = Counter({entry["values"].as_py(): entry["counts"].as_py() for entry in counts})
    shown = reasons.most_common(most)
    bars = [
        f"<tr><td>{escape(reason)}</td><td>{count:,}</td>"
        f'<td><div class="bar" style="width:{100 * count / shown[0][1]:.1f}%"></div></td></tr>'
        for reason, count in shown
    ]
    others = reasons.total() - sum(count for _, count in shown)
    more = f"{counted(others, 'row')} of {counted(len(reasons) - most, 'other reason')}. " if others else ""
    return f'<table class="bars">{"".join(bars)}</table><p>{more}Every row is in {escape(str(path))}.</p>'


def _plot(marks: str, *, bottom: tuple[str, str], top: str) -> str:
    """Marks with the ends of both axes in words."""
    base = HEIGHT - BOTTOM
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="up to {escape(top)}, {escape(bottom[1])}">'
        f'<line class="axis" x1="0" y1="{base}" x2="{WIDTH}" y2="{base}"/>'
        f'<line class="axis" x1="0" y1="{TOP}" x2="{WIDTH}" y2="{TOP}"/>{marks}'
        f'<text x="0" y="{TOP - 8}">{escape(top)}</text>'
        f'<text x="0" y="{base + 22}">{escape(bottom[0])}</text>'
        f'<text x="{WIDTH}" y="{base + 22}" text-anchor="end">{escape(bottom[1])}</text></svg>'
    )
