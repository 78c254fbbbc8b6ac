"""Flags that contradict the model's own files are named; those that say what the files leave out are not."""

from __future__ import annotations

from pathlib import Path

import pytest

from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.decisions.overruled import find_overruled
from onnxembed.facts.facts import read_facts
from tiny import write_bert, write_sentence_bert


def overruled(folder: Path, flags: Flags) -> tuple[str, ...]:
    facts = read_facts(folder)
    return find_overruled(facts, flags, None, decide(facts, flags))


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (Flags(), []),
        (Flags(pooling=("mean",)), []),
        (Flags(pooling=("cls",)), ["--pooling: cls instead of mean (1_Pooling/config.json: pooling_mode)"]),
        (Flags(normalize=False), ["--no-normalize: no instead of yes (modules.json has a Normalize module)"]),
        (Flags(max_length=8), ["--max-length: 8 instead of 20 (sentence_bert_config.json: max_seq_length)"]),
    ],
)
def test_flags_against_the_files(tmp_path: Path, flags: Flags, words: list[str]) -> None:
    assert list(overruled(write_sentence_bert(tmp_path / "model"), flags)) == words


def test_flags_that_say_what_the_files_leave_out(tmp_path: Path) -> None:
    assert overruled(write_bert(tmp_path / "raw"), Flags(pooling=("cls",), normalize=True)) == ()
