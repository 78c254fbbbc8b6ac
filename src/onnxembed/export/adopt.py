"""An artifact around a graph that something else made: copied as it is, its tokenizer and decisions written out."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxembed.decisions.flags import Flags
from onnxembed.errors import UnsupportedError, UsageError
from onnxembed.export.artifact.folder import check_output, new_folder
from onnxembed.export.artifact.hashing import hash_files
from onnxembed.export.artifact.manifest import Verify, record_manifest
from onnxembed.export.artifact.sentence_transformers import write_modules
from onnxembed.export.heads.embedding import dense_entries
from onnxembed.export.progress import Progress, silent
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.json_file import write_json
from onnxembed.hub.source import Fetched, HubOptions
from onnxembed.loading.adopt import adopted_manifest, decide_adoption, embedding_section
from onnxembed.loading.found_graph import FoundGraph, read_found_graph
from onnxembed.loading.locate import find
from onnxembed.manifest import FILE_NAME, PRECISIONS, SENTENCE_EMBEDDING, Manifest, Variant, graph_file
from onnxembed.recipes.book import choose_recipe


@dataclass(frozen=True)
class AdoptOptions:
    """What the caller decides about an adoption; the defaults follow the model's files."""

    onnx_file: str | None = None
    """The graph's path, if it is not onnx/model.onnx or model.onnx."""
    flags: Flags = field(default_factory=Flags)
    recipe: str | None = None
    """The recipe to follow; None follows that of a hub id, if the book has one."""
    force: bool = False
    """Replace an artifact that is there."""


def adopt(
    model: str | Path,
    output: Path,
    options: AdoptOptions | None = None,
    *,
    hub: HubOptions | None = None,
    verify: Verify | None = None,
    progress: Progress = silent,
) -> Manifest:
    """Adopt the ONNX graph of a model (hub id or folder) to an artifact folder, which appears whole or not at all.

    Raises what `decide_adoption` and `read_found_graph` do, UsageError for a model that is an artifact already.
    """
    options, hub = options or AdoptOptions(), hub or HubOptions()
    check_output(output, force=options.force)
    fetched, file = find(model, "auto", options.onnx_file, hub)
    if file == FILE_NAME:
        raise UsageError(f"{model} is an artifact of onnxembed already: it can be used as it is")
    found = read_found_graph(model, file, "auto", replace(hub, revision=fetched.revision))
    recipe = choose_recipe(model, options.recipe)
    encoder, embedding, graph_output = decide_adoption(found, options.flags, recipe)
    dense = dense_entries(found.facts, in_files=graph_output.name != SENTENCE_EMBEDDING)
    section = embedding_section(embedding, graph_output, dense)
    with new_folder(output, force=options.force) as draft:
        changes = write_tokenizer(found.facts, encoder, draft)
        write_json(draft / "config.json", found.facts.config)
        write_modules(found.facts, encoder, section, draft)
        variant = _copy_graph(found, draft)
        manifest = adopted_manifest(
            found,
            encoder,
            embedding=section,
            recipe=recipe,
            variant=variant,
            changes=changes,
            files=hash_files(draft, progress, {}),
        )
        return record_manifest(draft, manifest, Fetched(found.model, found.folder, found.revision), verify)


def _copy_graph(found: FoundGraph, folder: Path) -> Variant:
    """The graph and its weights in the folder's layout. The graph names its weights' file, which keeps its name."""
    names = sorted(found.graph.data)
    if len(names) > 1:
        raise UnsupportedError(
            f"{found.graph.path} has its weights in {', '.join(names)}; onnxembed's folders have one"
        )
    source = found.graph.path
    file = graph_file(found.precision) if found.precision in PRECISIONS else f"onnx/{source.name}"
    data = f"onnx/{names[0]}" if names else None
    for origin, target in ((source, file), *([(source.parent / names[0], data)] if data else [])):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, folder / target)
    operators = dict(sorted(found.graph.operators.items()))
    return Variant(file=file, data=data, nodes=sum(operators.values()), operators=operators)
