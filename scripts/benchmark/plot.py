"""The same numbers as a picture; needs matplotlib, which only the bench environment has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmark.measure import Result

OURS, THEIRS = "#2a6f97", "#a9a9a9"


def plot_throughput(results: Sequence[Result], path: Path) -> None:
    """Bars of texts/s, one panel for each model and corpus."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    panels = [(result, corpus) for result in results for corpus in result.throughput]
    figure, axes = pyplot.subplots(len(panels), 1, figsize=(9, 3.2 * len(panels)), squeeze=False)
    for axis, (result, corpus) in zip(axes[:, 0], panels, strict=True):
        lines = result.throughput[corpus]
        names = [f"{line.label}{'' if line.batch is None else f', batch {line.batch}'}" for line, _ in lines]
        speeds = [result.corpora[corpus]["texts"] / median(times) for _, times in lines]
        colors = [OURS if name.startswith("onnxembed") else THEIRS for name in names]
        bars = axis.barh(names, speeds, color=colors)
        axis.bar_label(bars, fmt="{:,.1f}", padding=3, fontsize=8)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.tick_params(labelsize=8)
        axis.set_title(f"{result.model}, {corpus}: texts/s", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def plot_memory(streams: Mapping[str, Mapping[str, Any]], path: Path) -> None:
    """Resident memory over each stream."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(len(streams), 1, figsize=(9, 3 * len(streams)), squeeze=False)
    for axis, (name, stream) in zip(axes[:, 0], streams.items(), strict=True):
        axis.plot([texts for texts, _, _ in stream["points"]], [rss / 1e6 for _, _, rss in stream["points"]], OURS)
        axis.set_ylim(bottom=0)
        axis.set_title(f"{name}: resident MB over the number of texts", loc="left", fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
