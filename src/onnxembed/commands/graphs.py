"""What `doctor MODEL` says of a model: whether each of its graphs gives the model's own results here."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from onnxembed.commands.doctor import Finding
from onnxembed.errors import OnnxEmbedError
from onnxembed.execution.providers import Placement
from onnxembed.manifest import read_manifest
from onnxembed.proof.verifying import GraphFigures, verify_graphs


def examine_graphs(folder: Path) -> Iterator[Finding]:
    """A finding for each graph of an artifact, on the provider that `auto` uses.

    Raises ManifestError for a folder that is no artifact.
    """
    for precision in read_manifest(folder).variants:
        name = f"graph {precision}"
        try:
            (graph,) = verify_graphs(folder, Placement(), precision)
        except OnnxEmbedError as error:
            yield Finding(name, f"{error}", broken=True)
            continue
        yield _judged(name, graph)


def _judged(name: str, graph: GraphFigures) -> Finding:
    where = f"{graph.provider}, {graph.threads} threads"
    broken = next((figure for figure in graph.figures if figure.fault), None)
    if broken:
        return Finding(name, f"does not give the model's own results on {where}: {broken.part}: {broken.fault}", True)
    cosines = [figure.min_cosine for figure in graph.figures if figure.min_cosine is not None]
    cosine = f"min cosine {min(cosines):.7f}, " if cosines else ""
    difference = max(figure.max_abs_diff for figure in graph.figures)
    return Finding(name, f"as the proof says on {where}: {cosine}max abs difference {difference:.1e}")
