"""Fuzzing: changed checkpoints exported and adopted, changed artifacts loaded, odd texts embedded.

    scripts/fuzz --cases 1000 --seed 7                 # all campaigns in turn
    scripts/fuzz --campaign export --only 12 --seed 7 --keep DIR

A case depends on campaign, seed and number alone. Outcomes: "same" as the reference (or as before the change),
"different" (of an artifact, or a graph of others, whose files were changed on purpose), "overflow" (the same where the
reference gives numbers, and something else where it gives none), "refused" (one error of the package), "stricter" (the
same, though the reference gives results; the error names the changed file or key), and the bad ones: "foreign" (another
exception), "hang", "abort", "unexplained" (stricter, and the error does not name the cause) and "wrong": results that
sentence-transformers does not give. The exit code is 1 if there is a bad one.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

import numpy as np

import tiny
from fuzzing.bases import TASKS, write_checkpoints
from fuzzing.isolated import Ended, Work, attempt, isolated, isolated_each
from fuzzing.mutations import mutate_bytes, mutate_json, odd_texts
from onnxembed.arrays import FloatArray as Array
from onnxembed.export.pipeline import export

BAD = ("foreign", "hang", "abort", "unexplained", "wrong")
SECONDS = 30.0
GROUP = 25
"""The cases that share a process, because making one costs more than most cases."""
TOLERANCE = 2e-4
CONTENTS = {".safetensors": ("tensor",), ".onnx": ("graph", "no onnxembed.json")}
"""What errors call that which is in files without keys, or say where it is not there."""
IN_GRAPH = ("config.json", "model.safetensors", "onnx/")
"""What says how a graph was made, and the graph; of Dense layers, too."""

Outcome = tuple[str, str]


@dataclass(frozen=True)
class Change:
    """What was done to one file of a folder, in words, and the keys and values of its JSON that an error may name."""

    file: str
    what: str
    named: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.file}: {self.what}"

    def is_named_in(self, message: str) -> bool:
        """Whether an error names the file, what is in it, or a key that was changed."""
        path = Path(self.file)
        named = (*(name for name in self.named if len(name) > 1), *map(repr, self.named))  # messages quote texts
        return any(name in message for name in (path.name, *CONTENTS.get(path.suffix, ()), *named))


class Fuzzer:
    """The unchanged checkpoints and artifacts in a folder, and the campaigns that change copies of them."""

    def __init__(self, folder: Path, keep: Path | None = None) -> None:
        self._keep = keep
        self._checkpoints, self._artifacts = folder / "checkpoints", folder / "artifacts"
        self._tasks = write_checkpoints(self._checkpoints)
        self._before: dict[str, Ended] = {}
        for name in self._tasks:
            export(self._checkpoints / name, self._artifacts / name)
            self._before[name] = Ended("value", self._ours(name, self._artifacts / name))
            # What a process inherits, it need not import and set up: forked ones are four times as fast.
            self._theirs(name, self._checkpoints / name)
        self._run: Callable[[Work], Ended] = partial(isolated, seconds=SECONDS)

    def run(self, campaign: str, seed: int, number: int) -> tuple[str, Outcome]:
        """What was done in one case, and its outcome with a remark."""
        return CAMPAIGNS[campaign](self, Random(f"{campaign}/{seed}/{number}"))

    def run_alone(self, campaign: str, seed: int, numbers: Sequence[int]) -> Iterator[tuple[str, Outcome]]:
        """The same for several."""
        return (self.run(campaign, seed, number) for number in numbers)

    def run_each(self, campaign: str, seed: int, numbers: Sequence[int]) -> Iterator[tuple[str, Outcome]]:
        """The same for many, which share a process; one that ends badly there is run again by itself, which counts."""
        sharing = copy(self)
        sharing._run = attempt
        for at in range(0, len(numbers), GROUP):
            group = numbers[at : at + GROUP]
            cases = [partial(sharing.run, campaign, seed, number) for number in group]
            for number, ended in zip(group, isolated_each(cases, 3 * SECONDS), strict=True):
                good = ended.how == "value" and ended.value[1][0] not in BAD
                yield ended.value if good else self.run(campaign, seed, number)

    def _export(self, rng: Random) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as scratch:
            folder, output = Path(scratch) / "model", Path(scratch) / "onnx"
            name = rng.choice(sorted(self._tasks))
            shutil.copytree(self._checkpoints / name, folder)
            change = self._change(rng, folder, self._checkpoints)
            ended = self._run(lambda: (export(folder, output), self._ours(name, output))[1])
            return f"{name}: {change}", self._compare(name, folder, change, ended, "wrong")

    def _adopt(self, rng: Random) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            name = rng.choice(sorted(self._tasks))
            shutil.copytree(self._checkpoints / name, folder)
            shutil.copytree(self._artifacts / name / "onnx", folder / "onnx")
            change = self._change(rng, folder, self._checkpoints)
            ended = self._run(lambda: self._ours(name, folder))
            # The graph stays what it was where a change of the checkpoint would have made another one.
            otherwise = "different" if change.file.startswith(IN_GRAPH) or "_Dense/" in change.file else "wrong"
            return f"{name}: {change}", self._compare(name, folder, change, ended, otherwise)

    def _compare(self, name: str, folder: Path, change: Change, ended: Ended, otherwise: str) -> Outcome:
        """The outcome of what a changed checkpoint came to, beside what its reference comes to."""
        if ended.how not in ("value", "refused"):
            return ended.how, str(ended.value)
        reference = self._run(lambda: self._theirs(name, folder))
        if ended.how == "value" or reference.how != "value" or not np.isfinite(reference.value).all():
            return judge(ended, reference, otherwise)
        named = change.is_named_in(str(ended.value).replace(str(folder.parent), ""))
        return "stricter" if named else "unexplained", str(ended.value)

    def _load(self, rng: Random) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "onnx"
            name = rng.choice(sorted(self._tasks))
            shutil.copytree(self._artifacts / name, folder)
            read = ["onnxembed.json", "tokenizer.json", "onnx/model.onnx"]
            done = f"{name}: {self._change(rng, folder, self._artifacts, rng.choice(read))}"
            if rng.random() < 0.7:
                _rehash(folder)
            ended = self._run(lambda: self._ours(name, folder))
            return done, judge(ended, self._before[name], "different")

    def _texts(self, rng: Random) -> tuple[str, Outcome]:
        texts, name = odd_texts(rng), rng.choice(sorted(self._tasks))
        ended = self._run(lambda: self._ours(name, self._artifacts / name, texts))
        reference = self._run(lambda: self._theirs(name, self._checkpoints / name, texts))
        return f"{name}: {texts!r:.200}", judge(ended, reference, "wrong")

    def _ours(self, name: str, folder: Path, texts: Sequence[str] = tiny.TEXTS) -> Array:
        return np.asarray(TASKS[self._tasks[name]].ours(folder, texts))

    def _theirs(self, name: str, folder: Path, texts: Sequence[str] = tiny.TEXTS) -> Array:
        return np.asarray(TASKS[self._tasks[name]].theirs(folder, texts))

    def _change(self, rng: Random, folder: Path, originals: Path, name: str | None = None) -> Change:
        """Change one file of the folder, or the one named; `originals` has the unchanged folders of all models."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = folder / name if name else rng.choice(files)
        file = path.relative_to(folder).as_posix()
        draw = rng.random()
        named: tuple[str, ...] = ()
        what = "removed"
        if draw < 0.05:
            path.unlink()
        elif draw < 0.1 and (others := sorted(originals.glob(f"*/{file}"))):
            other = rng.choice(others)
            shutil.copy(other, path)
            what = f"that of {other.relative_to(originals).parts[0]}"
        elif path.suffix == ".json" and draw < 0.8:
            text, what, named = mutate_json(rng, path.read_text(encoding="utf-8"))
            path.write_bytes(text.encode("utf-8", "surrogatepass"))
        else:
            data, what = mutate_bytes(rng, path.read_bytes())
            path.write_bytes(data)
        if self._keep:
            shutil.copytree(folder, self._keep, dirs_exist_ok=True)
        return Change(file, what, named)


CAMPAIGNS: Mapping[str, Callable[[Fuzzer, Random], tuple[str, Outcome]]] = {
    "export": Fuzzer._export,
    "adopt": Fuzzer._adopt,
    "load": Fuzzer._load,
    "texts": Fuzzer._texts,
}


def judge(ended: Ended, expected: Ended, otherwise: str) -> Outcome:
    """The outcome of vectors that should be the expected ones; where there are none to expect, any are as good."""
    if ended.how != "value":
        return ended.how, str(ended.value)
    if expected.how != "value":
        return "same", "only onnxembed gives vectors"
    ours, theirs = np.asarray(ended.value), np.asarray(expected.value)
    if ours.shape != theirs.shape:
        return otherwise, f"shapes {ours.shape} and {theirs.shape}"
    known = np.isfinite(theirs)
    scale = max(1.0, float(np.abs(theirs[known]).max(initial=1.0)))
    close = np.isclose(ours, theirs, rtol=0, atol=TOLERANCE * scale, equal_nan=True)
    if close.all():
        return "same", ""
    if close[known].all():
        return "overflow", f"{np.count_nonzero(~close)} numbers where the reference gives none that is finite"
    if lost := np.count_nonzero(~np.isfinite(ours[known])):
        return otherwise, f"{lost} numbers of the reference are not finite"
    return otherwise, f"up to {np.abs(ours - theirs)[known].max():.1e} apart"


def _rehash(folder: Path) -> None:
    """Record the files' new hashes, as somebody who changes an artifact on purpose would."""
    manifest = folder / "onnxembed.json"
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        for name, record in content["files"].items():
            data = (folder / name).read_bytes()
            record.update(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
        manifest.write_text(json.dumps(content), encoding="utf-8")
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return  # the manifest itself was changed


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--campaign", choices=tuple(CAMPAIGNS), action="append")
    parser.add_argument("--cases", type=int, default=100, help="of each campaign")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, action="append", help="run this case by itself; may be repeated")
    parser.add_argument("--keep", type=Path, help="copy the changed files of the case here")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    _quiet_references()
    numbers = range(options.cases) if options.only is None else options.only
    with tempfile.TemporaryDirectory() as bases:
        fuzzer = Fuzzer(Path(bases), options.keep)
        bad = 0
        for campaign in options.campaign or CAMPAIGNS:
            tally: Counter[str] = Counter()
            run = fuzzer.run_each if options.only is None else fuzzer.run_alone
            for number, (done, (outcome, remark)) in zip(numbers, run(campaign, options.seed, numbers), strict=True):
                tally[outcome] += 1
                if outcome in BAD or options.only is not None:
                    print(f"{campaign} {number}: {outcome}: {done}: {remark}", flush=True)
            bad += sum(tally[outcome] for outcome in BAD)
            counts = ", ".join(f"{outcome} {count}" for outcome, count in sorted(tally.items()))
            print(f"{campaign}, seed {options.seed}, {tally.total()} cases: {counts}", flush=True)
    return 1 if bad else 0


def _quiet_references() -> None:
    """Let the references compute on one thread, and say nothing."""
    import torch
    from transformers import utils

    torch.set_num_threads(1)
    logging: Any = utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
