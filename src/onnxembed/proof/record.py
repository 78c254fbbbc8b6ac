"""proof.npz: what the reference gives for a few probes, in the artifact. numpy alone reads it.

`about` is the UTF-8 text of a JSON document: the reference, and for each part its task, the kind of its texts, the
texts or pairs themselves, and the limit they were cut to. The arrays of a part begin with its name, such as
"embedding" or "multi_vector.query":

- `ids`, `type_ids` int32 and `lengths` [N]: the tokens of all items, one item after another;
- `rows` [N]: how many rows each item's output has, and `kept` [N]: how many of them are here;
- `places`: which rows these are; and `values`, float32 [rows kept, D]. Of sparse embeddings, instead of `values`:
  `indices` and `weights` of the ids that have a weight, and `counts`, how many each item has.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from onnxembed.arrays import Array, FloatArray, IntArray
from onnxembed.errors import ModelFilesError
from onnxembed.manifest import PROOF_FILE, Task, TextKind
from onnxembed.proof.limits import Limits
from onnxembed.tokenizer.pairs import Pair
from onnxembed.tokenizer.texts import Tokens

FORMAT = 1

BUDGET = 192 * 2**10
"""The most bytes of outputs of one part: 12 vectors of 4,096 numbers."""

MOST_ROWS = 12
"""The most rows that are kept of the vectors of one text's tokens."""

# The same bytes everywhere: the earliest time that a ZIP file can hold.
_TIME = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Part:
    """What the reference gives for some items in one task."""

    task: Task
    kind: TextKind | None
    """What the texts are, for a model that treats queries and documents differently."""
    items: Sequence[str | Pair]
    """Texts, with their prompts, or pairs."""
    tokens: Sequence[Tokens]
    outputs: Sequence[FloatArray]
    """For each item [rows, D]: its vector, the vectors of its tokens, its weights [1, V], or its logits [labels, 1]."""
    places: Sequence[IntArray] = ()
    """Which rows of each item's output are here."""
    rows: Sequence[int] = ()
    """How many rows each item's output has."""

    @property
    def name(self) -> str:
        """The task, and the kind if there is one."""
        return f"{self.task}.{self.kind}" if self.kind else self.task


@dataclass(frozen=True)
class Proof:
    """What a model gives for a few probes."""

    reference: str
    """What computed it, in words."""
    parts: tuple[Part, ...]
    measured: Mapping[str, Mapping[str, Limits]] = field(default_factory=dict)
    """How far the artifact's integer graphs were from it when it was made, by precision and name of the part."""


def brief(part: Part, wanted: Sequence[str | Pair]) -> Part:
    """The items of a part that are wanted, in that order, with as many rows as the budget has room for."""
    numbers = {item: number for number, item in enumerate(part.items)}
    chosen: list[int] = []
    places: list[IntArray] = []
    size = 0
    for number in (numbers[item] for item in wanted if item in numbers):
        output = part.outputs[number]
        kept = np.unique(np.linspace(0, len(output) - 1, min(len(output), MOST_ROWS)).astype(np.int64))
        size += 8 * int(np.count_nonzero(output)) if part.task == "sparse" else output[kept].nbytes
        if chosen and size > BUDGET:
            break
        chosen.append(number)
        places.append(kept)
    return replace(
        part,
        items=[part.items[number] for number in chosen],
        tokens=[part.tokens[number] for number in chosen],
        outputs=[part.outputs[number][kept] for number, kept in zip(chosen, places, strict=True)],
        places=places,
        rows=[len(part.outputs[number]) for number in chosen],
    )


def write_proof(folder: Path, proof: Proof) -> None:
    """Write proof.npz: the same bytes for the same proof."""
    about = {
        "format": FORMAT,
        "reference": proof.reference,
        "measured": {
            precision: {name: limits.recorded() for name, limits in figures.items()}
            for precision, figures in proof.measured.items()
        },
        "parts": [
            {"task": part.task, "kind": part.kind, "width": _width(part), "items": list(part.items)}
            for part in proof.parts
        ],
    }
    text = json.dumps(about, ensure_ascii=False, sort_keys=True).encode()
    arrays: dict[str, Array] = {"about": np.frombuffer(text, np.uint8)}
    for part in proof.parts:
        arrays |= {f"{part.name}.{key}": array for key, array in _arrays(part)}
    with zipfile.ZipFile(folder / PROOF_FILE, "w", zipfile.ZIP_STORED) as file:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", _TIME)
            entry.create_system = 3  # as on Linux, wherever it is written
            data = io.BytesIO()
            np.lib.format.write_array(data, array, allow_pickle=False)
            file.writestr(entry, data.getvalue())


def read_proof(folder: Path) -> Proof | None:
    """The proof of an artifact; None if it has none. ModelFilesError for a file that is not a proof."""
    path = folder / PROOF_FILE
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            about = json.loads(bytes(arrays["about"]))
            if about["format"] != FORMAT:
                raise ModelFilesError(f"{path} is of format {about['format']}, which this version of onnxembed lacks")
            parts = tuple(_read_part(arrays, entry) for entry in about["parts"])
        measured = {
            precision: {name: Limits(**limits) for name, limits in figures.items()}
            for precision, figures in about["measured"].items()
        }
        return Proof(str(about["reference"]), parts, measured)
    except (ValueError, KeyError, TypeError, IndexError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ModelFilesError(f"{path} is not a proof ({error}): export or download the model again") from error


def _width(part: Part) -> int:
    return int(part.outputs[0].shape[1])


def _arrays(part: Part) -> Iterator[tuple[str, Array]]:
    yield "ids", np.concatenate([tokens.ids for tokens in part.tokens]).astype(np.int32)
    yield "type_ids", np.concatenate([tokens.type_ids for tokens in part.tokens]).astype(np.int32)
    yield "lengths", np.array([len(tokens) for tokens in part.tokens], np.int32)
    yield "rows", np.array(part.rows, np.int32)
    yield "kept", np.array([len(places) for places in part.places], np.int32)
    yield "places", np.concatenate(part.places).astype(np.int32)
    values = np.concatenate(part.outputs).astype(np.float32)
    if part.task != "sparse":
        yield "values", values
        return
    rows, indices = np.nonzero(values)
    yield "indices", indices.astype(np.int32)
    yield "weights", values[rows, indices]
    yield "counts", np.bincount(rows, minlength=len(values)).astype(np.int32)


def _read_part(arrays: Mapping[str, Array], entry: Mapping[str, Any]) -> Part:
    task, kind = cast(Task, entry["task"]), cast(TextKind | None, entry["kind"])
    prefix = f"{task}.{kind}" if kind else task

    def array(key: str) -> Array:
        return arrays[f"{prefix}.{key}"]

    items = [item if isinstance(item, str) else (str(item[0]), str(item[1])) for item in entry["items"]]
    lengths, kept = array("lengths"), array("kept")
    ids, type_ids = (_split(array(key).astype(np.int64), lengths) for key in ("ids", "type_ids"))
    if task == "sparse":
        values = np.zeros((int(kept.sum()), entry["width"]), np.float32)
        values[np.repeat(np.arange(len(values)), array("counts")), array("indices")] = array("weights")
    else:
        values = array("values").astype(np.float32)
    outputs = _split(values, kept)
    if not len(items) == len(ids) == len(outputs) == len(array("rows")) > 0 or values.ndim != 2:
        raise ValueError(f"{prefix} has arrays that do not fit together")
    return Part(
        task,
        kind,
        items,
        [Tokens(own, types, truncated=False) for own, types in zip(ids, type_ids, strict=True)],
        outputs,
        _split(array("places").astype(np.int64), kept),
        array("rows").tolist(),
    )


def _split(values: Array, counts: Array) -> list[Array]:
    """The pieces of an array whose sizes these are; ValueError if they do not make up the whole."""
    ends = np.cumsum(counts)
    if ends[-1] != len(values):
        raise ValueError("its arrays have other sizes than they say")
    return np.split(values, ends[:-1])
