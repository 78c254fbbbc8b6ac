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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random

import numpy as np

import tiny
from fuzzing.bases import TASKS, write_checkpoints
from fuzzing.isolated import Ended, isolated
from fuzzing.mutations import mutate_bytes, mutate_json, odd_texts
from onnxembed.arrays import FloatArray as Array
from onnxembed.export.pipeline import export

BAD = ("foreign", "hang", "abort", "unexplained", "wrong")
SECONDS = 30.0
TOLERANCE = 2e-4
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
        """Whether an error names the file or a key that was changed."""
        return any(name in message for name in (Path(self.file).name, *self.named))


class Fuzzer:
    """The unchanged checkpoints and artifacts in a folder, and the campaigns that change copies of them."""

    def __init__(self, folder: Path, keep: Path | None = None) -> None:
        self._keep = keep
        self._checkpoints, self._artifacts = folder / "checkpoints", folder / "artifacts"
        self._tasks = write_checkpoints(self._checkpoints)
        for name in self._tasks:
            export(self._checkpoints / name, self._artifacts / name)
            # What the forked processes inherit, they need not import and set up in every case: four times as fast.
            self._ours(name, self._artifacts / name)
            self._theirs(name, self._checkpoints / name)
        self._before = cache(lambda name: isolated(lambda: self._ours(name, self._artifacts / name), SECONDS))
        self.campaigns: dict[str, Callable[[Random], tuple[str, Outcome]]] = {
            "export": self._export,
            "adopt": self._adopt,
            "load": self._load,
            "texts": self._texts,
        }

    def run(self, campaign: str, seed: int, number: int) -> tuple[str, Outcome]:
        """What was done in one case, and its outcome with a remark."""
        return self.campaigns[campaign](Random(f"{campaign}/{seed}/{number}"))

    def _export(self, rng: Random) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as scratch:
            folder, output = Path(scratch) / "model", Path(scratch) / "onnx"
            name = rng.choice(sorted(self._tasks))
            shutil.copytree(self._checkpoints / name, folder)
            change = self._change(rng, folder)
            ended = isolated(lambda: (export(folder, output), self._ours(name, output))[1], SECONDS)
            return f"{name}: {change}", self._compare(name, folder, change, ended, "wrong")

    def _adopt(self, rng: Random) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "model"
            name = rng.choice(sorted(self._tasks))
            shutil.copytree(self._checkpoints / name, folder)
            shutil.copytree(self._artifacts / name / "onnx", folder / "onnx")
            change = self._change(rng, folder)
            ended = isolated(lambda: self._ours(name, folder), SECONDS)
            # The graph stays what it was where a change of the checkpoint would have made another one.
            otherwise = "different" if change.file.startswith(IN_GRAPH) or "_Dense/" in change.file else "wrong"
            return f"{name}: {change}", self._compare(name, folder, change, ended, otherwise)

    def _compare(self, name: str, folder: Path, change: Change, ended: Ended, otherwise: str) -> Outcome:
        """The outcome of what a changed checkpoint came to, beside what its reference comes to."""
        if ended.how not in ("value", "refused"):
            return ended.how, str(ended.value)
        reference = isolated(lambda: self._theirs(name, folder), SECONDS)
        if ended.how == "value" or reference.how != "value" or not np.isfinite(reference.value).all():
            return _judge(ended, reference, otherwise)
        named = change.is_named_in(str(ended.value).replace(str(folder.parent), ""))
        return "stricter" if named else "unexplained", str(ended.value)

    def _load(self, rng: Random) -> tuple[str, Outcome]:
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch) / "onnx"
            name = rng.choice(sorted(self._tasks))
            shutil.copytree(self._artifacts / name, folder)
            read = ["onnxembed.json", "tokenizer.json", "onnx/model.onnx"]
            done = f"{name}: {self._change(rng, folder, rng.choice(read))}"
            if rng.random() < 0.7:
                _rehash(folder)
            ended = isolated(lambda: self._ours(name, folder), SECONDS)
            return done, _judge(ended, self._before(name), "different")

    def _texts(self, rng: Random) -> tuple[str, Outcome]:
        texts, name = odd_texts(rng), rng.choice(sorted(self._tasks))
        ended = isolated(lambda: self._ours(name, self._artifacts / name, texts), SECONDS)
        reference = isolated(lambda: self._theirs(name, self._checkpoints / name, texts), SECONDS)
        return f"{name}: {texts!r:.200}", _judge(ended, reference, "wrong")

    def _ours(self, name: str, folder: Path, texts: Sequence[str] = tiny.TEXTS) -> Array:
        return np.asarray(TASKS[self._tasks[name]].ours(folder, texts))

    def _theirs(self, name: str, folder: Path, texts: Sequence[str] = tiny.TEXTS) -> Array:
        return np.asarray(TASKS[self._tasks[name]].theirs(folder, texts))

    def _change(self, rng: Random, folder: Path, name: str | None = None) -> Change:
        """Change one file of the folder, or the one named."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        path = folder / name if name else rng.choice(files)
        data = path.read_bytes()
        named: tuple[str, ...] = ()
        if path.suffix == ".json" and rng.random() < 0.8:
            text, what, named = mutate_json(rng, data.decode())
            data = text.encode("utf-8", "surrogatepass")
        else:
            data, what = mutate_bytes(rng, data)
        path.write_bytes(data)
        if self._keep:
            shutil.copytree(folder, self._keep, dirs_exist_ok=True)
        return Change(path.relative_to(folder).as_posix(), what, named)


def _judge(ended: Ended, expected: Ended, otherwise: str) -> Outcome:
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
    parser.add_argument("--campaign", choices=("export", "adopt", "load", "texts"), action="append")
    parser.add_argument("--cases", type=int, default=100, help="of each campaign")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--keep", type=Path, help="copy the changed files of the case here")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.simplefilter("ignore")
    _quiet_references()
    numbers = range(options.cases) if options.only is None else [options.only]
    with tempfile.TemporaryDirectory() as bases:
        fuzzer = Fuzzer(Path(bases), options.keep)
        bad = 0
        for campaign in options.campaign or fuzzer.campaigns:
            tally: Counter[str] = Counter()
            for number in numbers:
                done, (outcome, remark) = fuzzer.run(campaign, options.seed, number)
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
    from transformers.utils import logging

    torch.set_num_threads(1)
    logging.set_verbosity_error()
    logging.disable_progress_bar()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
