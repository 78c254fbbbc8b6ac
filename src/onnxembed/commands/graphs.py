"""What `doctor MODEL` says of a model: whether each of its graphs gives the model's own results here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnxembed.commands.doctor import Finding
from onnxembed.errors import OnnxEmbedError
from onnxembed.execution.opening import why_no_bf16
from onnxembed.execution.providers import Placement
from onnxembed.manifest import read_manifest
from onnxembed.proof.verifying import GraphFigures, verify_graphs


def examine_graphs(folder: Path) -> Iterator[Finding]:
    """A finding for each graph of an artifact, where `auto` would run it; and for fp32 in bf16 on a CPU that can.

    Raises ManifestError for a folder that is no artifact.
    """
    variants = read_manifest(folder).variants
    for precision in variants:
        yield _examined(f"graph {precision}", folder, Placement(), precision, broken=True)
    if "fp32" in variants and not why_no_bf16():  # it is another choice: without it, all works as before
        yield _examined("fp32 as bf16", folder, Placement("cpu"), "bf16", broken=False)


def _examined(name: str, folder: Path, placement: Placement, precision: str, *, broken: bool) -> Finding:
    """What a graph gives here; `broken` says what it means if that is not the model's own results."""
    try:
        (graph,) = verify_graphs(folder, placement, precision)
    except OnnxEmbedError as error:
        return Finding(name, f"{error}", broken)
    return _judged(name, graph, broken=broken)


def _judged(name: str, graph: GraphFigures, *, broken: bool) -> Finding:
    where = f"{graph.provider}, {graph.threads} threads"
    wrong = next((figure for figure in graph.figures if figure.fault), None)
    if wrong:
        return Finding(name, f"does not give the model's own results on {where}: {wrong.part}: {wrong.fault}", broken)
    cosines = [figure.min_cosine for figure in graph.figures if figure.min_cosine is not None]
    cosine = f"min cosine {min(cosines):.7f}, " if cosines else ""
    difference = max(figure.max_abs_diff for figure in graph.figures)
    return Finding(name, f"as the proof says on {where}: {cosine}max abs difference {difference:.1e}")
