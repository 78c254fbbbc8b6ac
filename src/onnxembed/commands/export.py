"""`export`: make an ONNX folder from a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

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
from onnxembed.manifest import (
    ATTENTION_MODES,
    ENGINES,
    FORMS,
    POOLING_MODES,
    PRECISIONS,
    SCORE_ACTIVATIONS,
    TASKS,
    AttentionMode,
    Engine,
    Form,
    PoolingMode,
    Precision,
    ScoreActivation,
    Task,
)
from onnxembed.progress import Progress, silent


def export(
    model: str | Path,
    output: str | Path | None = None,
    *,
    precision: Precision | Sequence[Precision] = "fp32",
    pooling: PoolingMode | Sequence[PoolingMode] | None = None,
    normalize: bool | None = None,
    max_length: int | None = None,
    attention: Literal["auto"] | AttentionMode = "auto",
    engine: Literal["auto"] | Engine = "auto",
    form: Form = "fused",
    packed: bool = False,
    pooling_out: bool = False,
    ignore_config_key: Sequence[str] = (),
    ignore_tensor: Sequence[str] = (),
    adapter: str | None = None,
    task: Task | None = None,
    activation: ScoreActivation | None = None,
    plain_pairs: bool = False,
    calibration: str | Path | None = None,
    min_cosine: float | None = None,
    min_agreement: float | None = None,
    recipe: str | None = None,
    verify: bool = True,
    force: bool = False,
    dry_run: bool = False,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    refresh: bool = False,
    token: str | bool | None = None,
    progress: Progress = silent,
) -> NewFolder:
    """Make an ONNX folder from a model's checkpoint. Needs the extra [export]; to compare the vectors, [torch].

    The model's files decide how texts become vectors; its recipe says what they leave out. Arguments that decide
    otherwise are said in `manifest.overruled`: the folder then does not give the model's own vectors.

    Args:
        model: a folder, or the hub id of a model.
        output: the folder to write, whole or not at all; ./NAME-onnx if None.
        precision: the graphs to write, one or several: "fp32", "fp16", "bf16", "int16", "int8", "int8w".
        pooling: how tokens are pooled, whatever the files say; several modes are joined.
        normalize: whether vectors are scaled to length 1, whatever the files say.
        max_length: texts are cut to this many tokens, whatever the files say.
        attention: of a decoder, whether tokens see later ones; "auto" follows the recipe and the files.
        engine: what writes the graph: onnxembed's builder, or the exporter of transformers or optimum.
        form: "fused" writes ONNX Runtime's own operators; "portable" standard ones only, for any program that reads
            ONNX, which take ONNX Runtime longer.
        packed: also write each graph in a form that CUDA runs without padding.
        pooling_out: leave pooling out of the graph; the runtime does it.
        ignore_config_key: keys of config.json that onnxembed does not know, and that do not change vectors.
        ignore_tensor: tensors, or modules, that onnxembed does not know; the vectors must be compared with [torch].
        adapter: of a model with adapters for several tasks, the one to merge, or "none".
        task: the task of a model that allows several.
        activation: of a reranker, what turns logits into scores, whatever the files say.
        plain_pairs: of a reranker with a chat template, feed it query and document without the template.
        calibration: for integer graphs, a file of texts to calibrate and measure with, one per line.
        min_cosine: for integer graphs, the lowest cosine of a text's vector with the fp32 one.
        min_agreement: for integer rerankers, the lowest rank agreement of their scores with those of fp32.
        recipe: the recipe to follow; that of the hub id if None.
        verify: compare with the reference before the folder appears, if [torch] is installed.
        force: replace an ONNX folder that exists.
        dry_run: decide everything and write nothing. The weights of a hub model are not fetched unless the decisions
            need them; the weights of a folder are mapped, so that what an export refuses is refused here, too.
        revision: a branch, tag or commit of a hub model.
        cache_dir: where hub files are kept; the hub client's standard cache if None.
        local_files_only: use the files in the cache, and never ask the hub.
        refresh: download every file anew, whatever the cache has.
        token: the hub's access token; the one of HF_TOKEN or `hf auth login` if None, no token if False.
        progress: called with the stage, how much of it is done, and how much there is.

    Raises:
        UsageError: an argument has an impossible value or contradicts the model, `output` is not to be replaced, an
            extra is not installed, or onnxembed does not build such a model (UnsupportedError).
        ModelFilesError: the files are missing, damaged or contradict each other, or neither they nor the recipe state
            a decision (UnsaidError, which names the argument).
        HubError: the hub could not be reached, or it refused.
        VerificationError: the vectors are not the reference's; nothing is written.
    """
    require_export()
    from onnxembed.export.artifact.folder import check_output
    from onnxembed.export.pipeline import export as run
    from onnxembed.export.pipeline import input_paths
    from onnxembed.export.plan import Options
    from onnxembed.export.preview import preview

    options = Options(
        precisions=some_words("precision", precision, PRECISIONS),
        flags=Flags(
            pooling=None if pooling is None else some_words("pooling", pooling, POOLING_MODES),
            normalize=normalize,
            max_length=max_length,
            attention=None if attention == "auto" else one_word("attention", attention, ATTENTION_MODES),
            adapter=adapter,
            task=one_word("task", task, TASKS),
            activation=one_word("activation", activation, SCORE_ACTIVATIONS),
            plain_pairs=plain_pairs,
        ),
        engine="auto" if engine == "auto" else one_word("engine", engine, ENGINES),
        calibration=None if calibration is None else Path(calibration),
        min_cosine=min_cosine,
        min_agreement=min_agreement,
        recipe=recipe,
        form=one_word("form", form, FORMS),
        packed=packed,
        pooling_out=pooling_out,
        ignored_config_keys=tuple(ignore_config_key),
        ignored_tensors=tuple(ignore_tensor),
        force=force,
    )
    hub = HubOptions(revision, cache_dir, local_files_only, refresh, token)
    folder = default_output(model) if output is None else Path(output)
    if dry_run:
        check_output(folder, force=force, inputs=input_paths(model, options))
        shown = preview(model, options, hub)
        return NewFolder(folder, False, shown.files, shown.notes, shown.manifest)
    verifier = DraftVerifier(folder, wanted=verify, progress=progress)
    manifest = run(model, folder, options, hub=hub, verify=verifier, progress=progress)
    return made(folder, manifest, verifier.notes)
