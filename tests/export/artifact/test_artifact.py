"""An artifact appears whole or not at all, with its large weights where ONNX Runtime can map them."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from onnxembed.atomic import new_draft, release
from onnxembed.errors import UsageError
from onnxembed.export.artifact import graph_file
from onnxembed.export.artifact.folder import check_output, new_folder
from onnxembed.export.artifact.graph_file import PAGE, write_graph
from onnxembed.export.build_graph import build
from onnxembed.export.graph.graph import Graph
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.json_file import write_json
from onnxembed.manifest import FILE_NAME
from tiny import write_sentence_bert


def quiet(stage: str, done: int, total: int) -> None:
    pass


def old_artifact(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / FILE_NAME).write_text("{}")
    (folder / "old").write_text("old")
    return folder


def fill(output: Path, *, force: bool = False, then: Callable[[], None] = lambda: None) -> None:
    """Write a new artifact, calling `then` before it is complete."""
    with new_folder(output, force=force) as draft:
        (draft / FILE_NAME).write_text("{}")
        (draft / "new").write_text("new")
        assert not (output / "new").exists()
        then()


def interrupt() -> None:
    raise KeyboardInterrupt


def fail() -> None:
    raise RuntimeError("in the middle")


def tiny_graph(folder: Path) -> Graph:
    facts = read_facts(write_sentence_bert(folder))
    return build(make_plan(facts, None, Options()), "fp32")


# ---- whole or not at all


def test_a_folder_appears_with_everything_in_it(tmp_path: Path) -> None:
    fill(tmp_path / "deep/er/out")
    assert sorted(path.name for path in (tmp_path / "deep/er/out").iterdir()) == ["new", FILE_NAME]
    assert [path.name for path in (tmp_path / "deep/er").iterdir()] == ["out"]


@pytest.mark.parametrize("stop", [interrupt, fail])
def test_a_failure_leaves_nothing(tmp_path: Path, stop: Callable[[], None]) -> None:
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        fill(tmp_path / "out", then=stop)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("stop", [interrupt, fail])
def test_a_failure_leaves_the_old_artifact(tmp_path: Path, stop: Callable[[], None]) -> None:
    old_artifact(tmp_path / "out")
    with pytest.raises((KeyboardInterrupt, RuntimeError)):
        fill(tmp_path / "out", force=True, then=stop)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/old").read_text() == "old"


@pytest.mark.parametrize("error", [OSError("disk"), KeyboardInterrupt()])
def test_a_failure_between_the_two_renames_brings_the_old_artifact_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    old_artifact(tmp_path / "out")
    original = Path.rename

    def rename(self: Path, target: Path) -> Path:
        if self.suffix == ".part":
            raise error
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(type(error)):
        fill(tmp_path / "out", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/old").read_text() == "old"


def test_force_replaces_an_artifact_entirely(tmp_path: Path) -> None:
    old_artifact(tmp_path / "out")
    fill(tmp_path / "out", force=True)
    assert not (tmp_path / "out/old").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_leftovers_of_an_interrupted_process_do_not_get_in_the_way(tmp_path: Path) -> None:
    for _ in range(2):
        with new_folder(tmp_path / "out", force=True) as outer:
            fill(tmp_path / "out", force=True)
            (outer / FILE_NAME).write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_folder_that_a_killed_process_was_replacing_comes_back(tmp_path: Path) -> None:
    """It was renamed, and the new one not yet."""
    old_artifact(tmp_path / ".out.12345678.old")
    (tmp_path / ".out.12345678.part").mkdir()
    with pytest.raises(UsageError, match="pass --force to replace it"):
        fill(tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/old").read_text() == "old"


def test_a_folder_that_a_killed_process_had_replaced_is_removed(tmp_path: Path) -> None:
    old_artifact(tmp_path / ".out.12345678.old")
    old_artifact(tmp_path / "out")
    fill(tmp_path / "out", force=True)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/new").exists()


def test_a_process_that_is_replacing_a_folder_is_left_alone(tmp_path: Path) -> None:
    def in_between() -> None:
        (draft,) = tmp_path.glob(".out.*.part")
        old_artifact(draft.with_suffix(".old"))
        fill(tmp_path / "out")
        assert draft.with_suffix(".old").exists()
        (tmp_path / "out").rename(tmp_path / "elsewhere")

    fill(tmp_path / "out", then=in_between)
    assert {path.name for path in tmp_path.iterdir()} == {"out", "elsewhere"}


@pytest.mark.skipif(os.name != "posix", reason="there are no locks")
def test_a_draft_lost_before_it_was_locked_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    made: list[Path] = []

    def create(path: Path) -> None:
        path.touch()
        made.append(path)

    def flock(file: int, how: int) -> None:
        if len(made) == 1:  # another process was faster
            made[0].unlink()

    monkeypatch.setattr(fcntl, "flock", flock)
    draft, holder = new_draft(tmp_path / "v.npy", create)
    release(holder)
    assert [draft] == made[1:]
    assert draft.exists()


def test_a_link_to_an_artifact_stays_a_link(tmp_path: Path) -> None:
    old_artifact(tmp_path / "v1")
    (tmp_path / "current").symlink_to("v1")
    fill(tmp_path / "current", force=True)
    assert (tmp_path / "current").is_symlink()
    assert (tmp_path / "v1/new").exists()


# ---- refusals


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    fill(tmp_path / "out")
    assert (tmp_path / "out/new").exists()


def test_an_artifact_is_not_replaced_without_force(tmp_path: Path) -> None:
    old_artifact(tmp_path / "out")
    with pytest.raises(UsageError, match="pass --force to replace it"):
        fill(tmp_path / "out")
    assert (tmp_path / "out/old").exists()


@pytest.mark.parametrize("force", [True, False])
def test_a_foreign_folder_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match="is not an onnxembed artifact"):
        fill(tmp_path / "out", force=force)
    assert (tmp_path / "out/thesis.tex").exists()


@pytest.mark.parametrize("force", [True, False])
def test_a_file_is_never_replaced(tmp_path: Path, force: bool) -> None:
    (tmp_path / "out").write_text("a file")
    with pytest.raises(UsageError, match="is a file"):
        check_output(tmp_path / "out", force=force)
    with pytest.raises(UsageError, match="is a file"):
        fill(tmp_path / "out", force=force)


def test_an_artifact_that_holds_the_input_is_not_replaced(tmp_path: Path) -> None:
    """Its old content is deleted: the checkpoint would go with it."""
    (tmp_path / "out/checkpoint").mkdir(parents=True)
    (tmp_path / "out/onnxembed.json").touch()
    (tmp_path / "link").symlink_to("out")
    for output in (tmp_path / "out", tmp_path / "link"):
        with pytest.raises(UsageError, match="contains the input"):
            check_output(output, force=True, inputs=[tmp_path / "out/checkpoint"])
        with pytest.raises(UsageError, match="is the input"):
            check_output(output, force=True, inputs=[tmp_path / "out"])
    check_output(tmp_path / "out", force=True, inputs=[tmp_path / "elsewhere"])


def test_a_mount_point_is_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path / "out")
    with pytest.raises(UsageError, match="out is a mount point"):
        check_output(tmp_path / "out", force=False)


def test_a_folder_created_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    def meanwhile() -> None:
        (tmp_path / "out").mkdir()
        (tmp_path / "out/thesis.tex").write_text("years of work")

    with pytest.raises(UsageError, match="is not an onnxembed artifact"):
        fill(tmp_path / "out", force=True, then=meanwhile)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out/thesis.tex").exists()


# ---- graph files


def test_small_weights_lie_in_the_graph_file(tmp_path: Path) -> None:
    variant = write_graph(tiny_graph(tmp_path / "model"), tmp_path, "fp32", quiet)
    assert (variant.file, variant.data) == ("onnx/model.onnx", None)
    assert [path.name for path in (tmp_path / "onnx").iterdir()] == ["model.onnx"]


def test_large_weights_lie_beside_it_each_on_a_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = tiny_graph(tmp_path / "model")
    write_graph(graph, tmp_path / "inline", "fp32", quiet)
    monkeypatch.setattr(graph_file, "INLINE_LIMIT", 1000)
    variant = write_graph(graph, tmp_path, "fp32", quiet)
    assert (variant.file, variant.data) == ("onnx/model.onnx", "onnx/model.onnx_data")

    # Reading the data ourselves: ONNX's own loader forgives wrong offsets by reading what is there.
    data = (tmp_path / "onnx/model.onnx_data").read_bytes()
    inline = {tensor.name: tensor for tensor in onnx.load(tmp_path / "inline/onnx/model.onnx").graph.initializer}
    end = 0
    external = 0
    for tensor in onnx.load(tmp_path / variant.file, load_external_data=False).graph.initializer:
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            assert len(tensor.raw_data) < PAGE
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = int(where["offset"]), int(where["length"])
        assert where["location"] == "model.onnx_data"
        assert offset % PAGE == 0
        assert end <= offset < end + PAGE
        assert data[offset : offset + length] == inline[tensor.name].raw_data
        end = offset + length
        external += 1
    assert external >= 5
    assert end == len(data)


def test_onnx_runtime_computes_the_same_from_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = tiny_graph(tmp_path / "model")
    ids = np.arange(5, 17).reshape(2, 6)
    feeds = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    results = []
    for limit in (2**28, 0):
        monkeypatch.setattr(graph_file, "INLINE_LIMIT", limit)
        variant = write_graph(graph, tmp_path / str(limit), "fp32", quiet)
        session = onnxruntime.InferenceSession(tmp_path / str(limit) / variant.file, providers=["CPUExecutionProvider"])
        results.append(session.run(["sentence_embedding"], feeds)[0])
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("limit", [0, 2**28])
def test_writing_twice_gives_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(graph_file, "INLINE_LIMIT", limit)
    for name in ("a", "b"):
        write_graph(tiny_graph(tmp_path / name / "model"), tmp_path / name, "fp32", quiet)
    files = sorted(path.name for path in (tmp_path / "a/onnx").iterdir())
    assert len(files) == (2 if limit == 0 else 1)
    for file in files:
        assert (tmp_path / "a/onnx" / file).read_bytes() == (tmp_path / "b/onnx" / file).read_bytes()


@pytest.mark.parametrize("limit", [0, 2**28])
def test_progress_counts_the_bytes_of_every_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(graph_file, "INLINE_LIMIT", limit)
    graph = tiny_graph(tmp_path / "model")
    calls: list[tuple[str, int, int]] = []
    write_graph(graph, tmp_path, "fp32", lambda *call: calls.append(call))
    total = sum(tensor.read().nbytes for tensor in graph.initializers.values())
    assert len(calls) == len(graph.initializers)
    assert calls[-1] == ("writing fp32 weights", total, total)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


# ---- JSON


def test_json_is_indented_and_keeps_letters(tmp_path: Path) -> None:
    write_json(tmp_path / "x/y.json", {"b": "é", "a": None})
    assert (tmp_path / "x/y.json").read_bytes() == '{\n  "b": "é",\n  "a": null\n}\n'.encode()
