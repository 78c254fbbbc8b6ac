"""Makes an artifact around a graph from elsewhere: copies it and writes its tokenizer files and decisions."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

from onnxembed.decisions.flags import Flags
from onnxembed.errors import UnsupportedError, UsageError
from onnxembed.export.artifact.folder import check_output, new_folder
from onnxembed.export.artifact.hashing import hash_files
from onnxembed.export.artifact.model_card import copy_license, license_of, read_metadata
from onnxembed.export.artifact.record_manifest import Verify, record_manifest
from onnxembed.export.artifact.sentence_transformers import write_sentence_transformers
from onnxembed.export.heads.embedding import dense_entries
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.hub.checkpoint_files import TERMS
from onnxembed.hub.model_files import hub_id, local_paths
from onnxembed.hub.source import Fetched, HubOptions
from onnxembed.loading.adopt import adopted_manifest, decide_adoption
from onnxembed.loading.found_graph import FoundGraph, read_found_graph
from onnxembed.loading.locate import find
from onnxembed.manifest import FILE_NAME, PRECISIONS, Manifest, graph_file
from onnxembed.progress import Progress, silent
from onnxembed.recipes.book import choose_recipe
from onnxembed.tokenizer.token_ids import TokenIds


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
    options = options or AdoptOptions()
    check_output(output, force=options.force, inputs=local_paths(model))
    files, file = find(model, hub or HubOptions(), "auto", options.onnx_file)
    if file == FILE_NAME:
        raise UsageError(f"{model} is an artifact of onnxembed already: it can be used as it is")
    found_graph = read_found_graph(files, file, "auto")
    files.get_if_possible(TERMS)
    recipe = choose_recipe(hub_id(model), options.recipe)
    adoption = decide_adoption(found_graph, options.flags, recipe)
    facts, decisions = found_graph.facts, adoption.decisions
    with new_folder(output, force=options.force) as draft:
        changes = write_tokenizer(facts, decisions.encoder, draft)
        dense = dense_entries(facts, in_files=adoption.leaves_out_dense)
        sections = adoption.sections(TokenIds.of_folder(draft), dense)
        write_sentence_transformers(facts, decisions, sections.get("embedding"), draft)
        copy_license(found_graph.folder, draft)
        manifest = adopted_manifest(
            adoption,
            sections=sections,
            variant=adoption.variant(*_copy_graph(found_graph, draft)),
            changes=changes,
            files=hash_files(draft, progress, {}),
        )
        source = replace(manifest.source, license=license_of(read_metadata(files.folder)))
        manifest = replace(manifest, source=source)
        return record_manifest(draft, manifest, Fetched(files.model, files.folder, files.revision), verify)


def _copy_graph(found_graph: FoundGraph, folder: Path) -> tuple[str, str | None]:
    """Copy the graph and its weights into the folder; returns their paths there.

    The weights keep their file name, which the graph refers to.
    """
    names = sorted(found_graph.graph.data)
    if len(names) > 1:
        raise UnsupportedError(
            f"{found_graph.graph.path} has its weights in {', '.join(names)}; onnxembed's folders have one"
        )
    source = found_graph.graph.path
    file = graph_file(found_graph.precision) if found_graph.precision in PRECISIONS else f"onnx/{source.name}"
    data = f"onnx/{names[0]}" if names else None
    for origin, target in ((source, file), *([(source.parent / names[0], data)] if data else [])):
        (folder / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(origin, folder / target)
    return file, data
