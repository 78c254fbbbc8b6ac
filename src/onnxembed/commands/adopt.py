"""`adopt`: make an ONNX folder from a model that already has an ONNX graph."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from onnxembed.commands.new_folder import (
    DraftVerifier,
    NewFolder,
    default_output,
    made,
    require_export,
)
from onnxembed.commands.words import one_word, some_words
from onnxembed.decisions.flags import Flags
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import POOLING_MODES, SCORE_ACTIVATIONS, TASKS, PoolingMode, ScoreActivation, Task
from onnxembed.progress import Progress, silent


def adopt(
    model: str | Path,
    output: str | Path | None = None,
    *,
    onnx_file: str | None = None,
    pooling: PoolingMode | Sequence[PoolingMode] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    task: Task | None = None,
    activation: ScoreActivation | None = None,
    plain_pairs: bool = False,
    share_scales: bool = False,
    recipe: str | None = None,
    verify: bool = True,
    force: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    refresh: bool = False,
    token: str | bool | None = None,
    progress: Progress = silent,
) -> NewFolder:
    """Make an ONNX folder from a model that has an ONNX graph, which is copied unchanged. Needs the extra [export].

    Args:
        model: a folder, or the hub id of a model, with a graph and a tokenizer.
        output: the folder to write, whole or not at all; ./NAME-onnx if None.
        onnx_file: the graph's path, if it is not onnx/model.onnx or model.onnx.
        share_scales: run texts together although the graph's dynamic quantization gives all texts of a run one scale,
            by which each changes the others' vectors.
        verify: compare with the reference before the folder appears, if [torch] is installed and `model` is a folder
            that also has the weights.

    The other arguments and the errors are those of `export`.
    """
    require_export()
    from onnxembed.export.adopt import AdoptOptions
    from onnxembed.export.adopt import adopt as run

    options = AdoptOptions(
        onnx_file=onnx_file,
        flags=Flags(
            pooling=None if pooling is None else some_words("pooling", pooling, POOLING_MODES),
            normalize=normalize,
            max_length=max_length,
            task=one_word("task", task, TASKS),
            activation=one_word("activation", activation, SCORE_ACTIVATIONS),
            plain_pairs=plain_pairs,
            share_scales=share_scales,
        ),
        recipe=recipe,
        force=force,
    )
    hub = HubOptions(revision, cache_dir, local_files_only, refresh, token)
    folder = default_output(model) if output is None else Path(output)
    verifier = DraftVerifier(folder, wanted=verify, progress=progress, has_weights=_has_weights)
    manifest = run(model, folder, options, hub=hub, verify=verifier, progress=progress)
    return made(folder, manifest, verifier.notes)


def _has_weights(folder: Path) -> bool:
    """Whether a model's folder has the weights of its transformer, in one file or in shards."""
    from onnxembed.facts.facts import read_facts
    from onnxembed.hub.checkpoint_files import WEIGHTS

    transformer = read_facts(folder).transformer_folder
    return any((transformer / f"{name}{index}").is_file() for name in WEIGHTS for index in ("", ".index.json"))
