"""Whether two models, jobs or parquet files hold vectors of one space."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onnxembed.errors import UsageError
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import find
from onnxembed.loading.space import differences, space_of
from onnxembed.manifest import FILE_NAME, Task, read_manifest

BESIDE = ("precision", "prompt", "dimensions", "normalized", "dtype", "ranges")
"""What is recorded beside a space, and may keep vectors from being compared although they are of one space."""


@dataclass(frozen=True)
class Held:
    """The space of the vectors that something holds or makes."""

    id: str
    parts: Mapping[str, str]
    beside: Mapping[str, Any]
    """What is recorded beside the space; nothing for a model, which makes vectors in several ways."""


def held_spaces(name: str, hub: HubOptions) -> dict[Task, Held]:
    """The spaces of a model's folder or hub id, of a job's folder, or of a parquet file, by task.

    Raises UsageError for a file that does not say it, and what opening a model raises.
    """
    path = Path(name)
    if path.is_file():
        from onnxembed.bulk.parts import read_metadata

        return _recorded(read_metadata(path)[0])
    if (job := path / "_job" / "job.json").is_file():
        return _recorded(json.loads(job.read_text(encoding="utf-8"))["vectors"])
    files, found = find(name, hub, "auto", None)
    if found != FILE_NAME:
        raise UsageError(
            f"{name} is no artifact, so its vector space is not recorded; make one: onnxembed adopt {name}"
        )
    manifest = read_manifest(files.folder)
    spaces = {task: space_of(manifest, files.folder, task) for task in manifest.tasks if task != "reranking"}
    if not spaces:
        raise UsageError(f"{name} is a reranker: it makes scores, which are in no vector space")
    return {task: Held(space.id, space.parts, {}) for task, space in spaces.items()}


def _recorded(vectors: Mapping[str, Any]) -> dict[Task, Held]:
    beside = {key: vectors[key] for key in BESIDE}
    return {vectors["task"]: Held(vectors["space"]["id"], vectors["space"]["parts"], beside)}


@dataclass(frozen=True)
class Comparison:
    """How two spaces of a task compare."""

    task: Task
    ids: tuple[str, str]
    differences: tuple[str, ...]
    """What differs in the spaces; nothing if they are the same."""
    beside: tuple[str, ...]
    """What differs beside them."""


def compare(ours: Mapping[Task, Held], theirs: Mapping[Task, Held]) -> list[Comparison]:
    """The comparison for each task that both have; UsageError if there is none."""
    shared = [task for task in ours if task in theirs]
    if not shared:
        raise UsageError(f"nothing to compare: one has {', '.join(ours)}, the other has {', '.join(theirs)}")
    return [_compared(task, ours[task], theirs[task]) for task in shared]


def _compared(task: Task, ours: Held, theirs: Held) -> Comparison:
    both = [key for key in ours.beside if key in theirs.beside and ours.beside[key] != theirs.beside[key]]
    beside = tuple(f"{key}: {ours.beside[key]!r} and {theirs.beside[key]!r}" for key in both)
    return Comparison(task, (ours.id, theirs.id), tuple(differences(ours.parts, theirs.parts)), beside)
