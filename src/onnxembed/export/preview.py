"""What an export would make, without making it: its decisions, its files, and what it would refuse."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxembed.decisions.flags import NO_ADAPTER, Flags
from onnxembed.errors import OnnxEmbedError, UnsaidError
from onnxembed.export.artifact.graph_file import INLINE_LIMIT, weights_size
from onnxembed.export.graph.graph import Graph, Widths
from onnxembed.export.heads import multi_vector
from onnxembed.export.pipeline import build_graphs, plan_checkpoint, write_small_files
from onnxembed.export.plan import ExportPlan, Options
from onnxembed.hub.checkpoint_files import fetch_checkpoint, has_weights
from onnxembed.hub.model_files import ModelFiles, hub_id
from onnxembed.hub.source import Fetched, HubOptions, file_names
from onnxembed.manifest import (
    CARD_FILE,
    FILE_NAME,
    MULTI_VECTOR,
    PROOF_FILE,
    SENTENCE_EMBEDDING,
    Manifest,
    Precision,
    graph_file,
)
from onnxembed.recipes.book import choose_recipe
from onnxembed.recipes.recipe import Recipe

STAND_INS: Mapping[str, Callable[[Flags], Flags]] = {
    "--adapter": lambda flags: replace(flags, adapter=NO_ADAPTER),
    "--attention": lambda flags: replace(flags, attention="bidirectional"),
    "--normalize": lambda flags: replace(flags, normalize=True),
    "--pooling": lambda flags: replace(flags, pooling=("mean",)),
}
"""What takes the place of a decision that nothing states, by its flag, to see what else nothing states."""


@dataclass(frozen=True)
class Preview:
    """What an export would make."""

    manifest: Manifest
    """Every decision; `variants` and `files` are empty."""
    files: dict[str, int | None]
    """The size of each file in bytes, by name; None where it is not known."""
    notes: tuple[str, ...]
    """What was not looked at."""


def preview(
    model: str | Path, options: Options, hub: HubOptions | None = None, opened: ModelFiles | None = None
) -> Preview:
    """What an export of a checkpoint would make; nothing is written, and a hub model's weights are not fetched.

    They are fetched if they alone say what the model is: of a static table, or the width of a ColBERT without modules.
    A graph that onnxembed builds is built if the weights are there, as far as the first read of its weights, so that
    what an export refuses is refused here. `opened` are the model's files, if the hub was asked for them already.
    Errors as for `export`, but for all that is left unsaid at once.
    """
    recipe = choose_recipe(hub_id(model), options.recipe, options.precisions)
    make = partial(plan_wholly, recipe=recipe, options=options)
    checkpoint = fetch_checkpoint(model, hub, examine=make, weights=False, opened=opened)
    plan = make(checkpoint)
    if _width_in_weights(plan):
        checkpoint = fetch_checkpoint(model, hub, opened=opened)
        plan = make(checkpoint)
    graphs: Mapping[Precision, Graph] = {}
    notes: tuple[str, ...] = ()
    if checkpoint.revision is not None and not has_weights(checkpoint):  # a folder without weights is refused below
        notes = ("the weights were not fetched, so their names and sizes are not checked",)
    elif plan.engine.value != "build":
        notes = (f"the graph of engine {plan.engine.value} is made by the export alone, so it is not checked",)
    else:
        graphs = build_graphs(plan)
    with TemporaryDirectory() as folder:
        graph = next(iter(graphs.values()), None)
        inputs, widths = (graph.input_names, graph.widths) if graph else ((), _widths(plan))
        manifest = write_small_files(plan, checkpoint, inputs=inputs, widths=widths, draft=Path(folder))
        small = {name: Path(folder, name).stat().st_size for name in file_names(Path(folder))}
    unknown = dict.fromkeys((CARD_FILE, FILE_NAME, PROOF_FILE))  # they hold figures that only the export measures
    return Preview(manifest, dict(sorted({**small, **unknown, **_graph_files(plan, graphs)}.items())), notes)


def plan_wholly(checkpoint: Fetched, recipe: Recipe | None, options: Options) -> ExportPlan:
    """The plan for a checkpoint, as `plan_checkpoint` makes it; one UnsaidError names all that a flag must decide."""
    unsaid: list[UnsaidError] = []
    while True:
        try:
            plan = plan_checkpoint(checkpoint, recipe, options)
        except UnsaidError as error:
            unsaid.append(error)
            options = replace(options, flags=STAND_INS[error.flag](options.flags))
        except OnnxEmbedError:
            if not unsaid:  # else a stand-in may have caused it
                raise
            break
        else:
            if not unsaid:
                return plan
            break
    if len(unsaid) == 1:
        raise unsaid[0]
    points = "; ".join(f"({number}) {error}" for number, error in enumerate(unsaid, start=1))
    flags = ", ".join(error.flag for error in unsaid)
    raise UnsaidError(f"{len(unsaid)} decisions are left to you: {points}", flags)


def _width_in_weights(plan: ExportPlan) -> bool:
    head = plan.decisions.multi_vector
    return head is not None and multi_vector.width_of_files(head, plan.decisions.encoder.hidden_size) is None


def _widths(plan: ExportPlan) -> Widths:
    """The outputs of a graph that is not built, as far as the manifest's sections ask for them."""
    decisions, widths = plan.decisions, {}
    if decisions.embedding is not None and "embedding" in plan.graph_tasks:
        widths[SENTENCE_EMBEDDING] = decisions.embedding.dimension
    if decisions.multi_vector is not None:
        width = multi_vector.width_of_files(decisions.multi_vector, decisions.encoder.hidden_size)
        assert width is not None  # else the weights were fetched
        widths[MULTI_VECTOR] = width
    return widths


def _graph_files(plan: ExportPlan, graphs: Mapping[Precision, Graph]) -> dict[str, int | None]:
    """The files of each graph, with the size of its weights where they are known, without that of its nodes."""
    files: dict[str, int | None] = {}
    for precision in plan.options.precisions:
        name = graph_file(precision)
        size = weights_size(graphs[precision]) if precision in graphs else None
        files[name] = size
        if size is not None and size > INLINE_LIMIT:
            files |= {name: None, f"{name}_data": size}
        if plan.options.packed:
            files[f"{name.removesuffix('.onnx')}_packed.onnx"] = None
    return files
