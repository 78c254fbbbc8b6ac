"""Drafts: what a run that was killed left is removed, and nothing else; nobody takes the draft of a run that lives."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from onnxembed.atomic import new_draft, release, remove_abandoned

fcntl = pytest.importorskip("fcntl", reason="only POSIX has these locks")

LEFT = ".out.12345678.part"


def test_what_belongs_to_another_user_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = os.geteuid()
    (tmp_path / LEFT).write_text("left")
    monkeypatch.setattr(os, "geteuid", lambda: own + 1)
    remove_abandoned(tmp_path / "out")
    assert (tmp_path / LEFT).exists()
    monkeypatch.setattr(os, "geteuid", lambda: own)
    remove_abandoned(tmp_path / "out")
    assert not (tmp_path / LEFT).exists()


def test_a_draft_that_is_held_is_left_alone(tmp_path: Path) -> None:
    draft, holder = new_draft(tmp_path / "out", Path.mkdir)
    remove_abandoned(tmp_path / "out")
    assert draft.is_dir()
    release(holder)
    remove_abandoned(tmp_path / "out")
    assert not draft.exists()


def test_a_draft_that_was_taken_before_it_was_opened_is_made_anew(tmp_path: Path) -> None:
    made: list[Path] = []

    def create(draft: Path) -> None:
        draft.touch()
        made.append(draft)
        if len(made) == 1:
            remove_abandoned(tmp_path / "out")

    draft, holder = new_draft(tmp_path / "out", create)
    release(holder)
    assert (len(made), draft, draft.exists()) == (2, made[1], True)


def test_a_draft_that_was_taken_before_it_was_locked_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    made: list[Path] = []

    def taken_first(holder: int, how: int) -> None:
        if len(made) == 1:
            made[0].unlink()
        lock(holder, how)

    def create(draft: Path) -> None:
        draft.touch()
        made.append(draft)

    monkeypatch.setattr(fcntl, "flock", taken_first)
    draft, holder = new_draft(tmp_path / "out", create)
    release(holder)
    assert (len(made), draft, draft.exists()) == (2, made[1], True)
