"""A job: what decides its output, written down before the first part, and what of it is done."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

from onnxembed.bulk.inputs import Inputs
from onnxembed.bulk.making import VectorMaker, VectorOptions
from onnxembed.bulk.parts import JOB_FOLDER, PartRecord, read_record, write_safely
from onnxembed.embedder import OnnxEmbedder
from onnxembed.errors import UsageError
from onnxembed.loading.space import differences, space_of
from onnxembed.warning import warn

JOB_FILE, SUMMARY_FILE, REJECTED_FILE, LOCK_FILE = "job.json", "summary.json", "rejected.parquet", "lock"
"""The files of a job's own folder."""


@dataclass(frozen=True)
class Job:
    """What decides the output of a job, down to its bytes; it is written to job.json."""

    vectors: dict[str, Any]
    """What the vectors are; every part has it in its metadata."""
    columns: dict[str, Any]
    inputs: list[dict[str, Any]]
    part_rows: int


def make_job(model: OnnxEmbedder, maker: VectorMaker, options: VectorOptions, inputs: Inputs, part_rows: int) -> Job:
    """The job of a model, with what it makes, over inputs."""
    manifest = model.manifest
    space = space_of(manifest, model.folder, maker.task, max_length=model.max_length, normalize=options.normalize)
    return Job(
        vectors={
            "space": {"id": space.id, "parts": dict(space.parts)},
            "task": maker.task,
            "model": manifest.source.model,
            "revision": manifest.source.revision,
            "precision": model.model.precision,
            "kind": options.kind,
            "prompt": maker.prompt,
            "dimensions": maker.dimensions,
            "normalized": maker.normalized,
            "similarity": model.similarity_fn_name,
            "dtype": options.dtype,
            "ranges": None if options.ranges is None else sha256(options.ranges.tobytes()).hexdigest(),
        },
        columns={"text": inputs.columns.text, "id": inputs.columns.id, "keep": list(inputs.columns.keep)},
        inputs=[{"name": file.path.name, "bytes": file.bytes, "sha256": file.sha256} for file in inputs.files],
        part_rows=part_rows,
    )


def begin(folder: Path, job: Job, *, force: bool) -> dict[int, PartRecord]:
    """Begin a job in a folder, or go on with it; returns the parts that are done, by number.

    With `force`, a job that is there is removed. Raises UsageError for a folder with something else in it, and for one
    with another job, naming what differs.
    """
    own = folder / JOB_FOLDER
    if force and (own / JOB_FILE).is_file():
        _remove(folder)
    if (own / JOB_FILE).is_file():
        _check_same(folder, json.loads((own / JOB_FILE).read_text(encoding="utf-8")), asdict(job))
    else:
        write_json(own / JOB_FILE, asdict(job), folder)
    for draft in own.glob(".*.part"):  # of a run that was killed
        draft.unlink(missing_ok=True)
    return done_parts(folder)


def done_parts(folder: Path) -> dict[int, PartRecord]:
    """The parts of a job that are done, by number. A file that cannot be read is none: it is written again."""
    done = {}
    for path in sorted(folder.glob("part-*.parquet")):
        try:
            done[int(path.stem.removeprefix("part-"))] = read_record(path)
        except UsageError as error:
            warn(f"{error}: its rows are embedded again")
            path.unlink()
    return done


def check_folder(folder: Path) -> None:
    """Raise UsageError for an output that is no folder, or a folder with something else than a job in it."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file, not a folder")
    names = {path.name for path in folder.iterdir()}
    if names and JOB_FOLDER not in names:
        raise UsageError(f"{folder} has files in it and no job: choose another folder")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a job's folder, which is made if it is not there; UsageError while another process holds it."""
    try:
        (folder / JOB_FOLDER).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {folder}: {error.strerror}") from error
    with (folder / JOB_FOLDER / LOCK_FILE).open("ab") as file:
        if os.name == "posix":
            import fcntl

            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(f"another process is writing to {folder}: wait until it is done") from None
        yield


def write_json(path: Path, value: Mapping[str, Any], folder: Path) -> None:
    """Write a file of JSON into a job's folder."""
    text = json.dumps(value, indent=2, ensure_ascii=False) + "\n"

    def write(file: IO[bytes]) -> None:
        file.write(text.encode("utf-8", "backslashreplace"))

    write_safely(path, write, folder)


def _check_same(folder: Path, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Raise UsageError if another job was begun in the folder."""
    if found == json.loads(json.dumps(wanted)):
        return
    what = "; ".join(job_differences(found, wanted))
    raise UsageError(
        f"{folder} has another job (there and here: {what}): run it as it was begun, choose another folder, or pass "
        "--force to replace it"
    )


def job_differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """What differs between two jobs, in words."""
    ours, theirs = found["vectors"], wanted["vectors"]
    words = [f"vector space, {each}" for each in differences(ours["space"]["parts"], theirs["space"]["parts"])]
    words += _values({**ours, "space": None}, {**theirs, "space": None})
    words += _values(found["columns"], wanted["columns"])
    words += _values({"rows of a part": found["part_rows"]}, {"rows of a part": wanted["part_rows"]})
    return words + _input_differences(found["inputs"], wanted["inputs"])


def _values(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    return [f"{name}: {ours[name]!r} and {theirs[name]!r}" for name in ours if ours[name] != theirs[name]]


def _input_differences(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> list[str]:
    if len(found) != len(wanted):
        return [f"{len(found)} and {len(wanted)} input files"]
    words = []
    for before, now in zip(found, wanted, strict=True):
        if before["name"] != now["name"]:
            words.append(f"input {before['name']} and {now['name']}")
        elif before != now:
            words.append(f"{now['name']} has another content")
    return words


def _remove(folder: Path) -> None:
    """Remove a job. Its own record goes last, so that a removal that is interrupted can be repeated."""
    for path in folder.glob("part-*.parquet"):
        path.unlink()
    own = folder / JOB_FOLDER
    others = [path for path in own.iterdir() if path.name not in (JOB_FILE, LOCK_FILE)]
    for path in (*others, own / JOB_FILE):
        path.unlink()
