"""Ray: the callable in Ray Data, and a job whose output has the bytes of one without Ray."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyarrow", reason="needs the extra [bulk]")
ray: Any = pytest.importorskip("ray", reason="needs ray[data]")

from jobs import Embed, content
from onnxembed import OnnxEmbedder
from onnxembed.bulk.making import VectorOptions
from onnxembed.bulk.ray import EmbedBatch, compute_on_ray
from onnxembed.errors import UsageError
from running import USUAL, command
from tiny_embedders import texts_of_many_lengths

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.timeout(900)]


@pytest.mark.skipif(os.name != "posix", reason="needs signals of POSIX")
def test_a_job_that_was_killed_on_ray_goes_on_with_ray_and_without_it(artifact: Path, tmp_path: Path) -> None:
    """On the command line, with relative paths; before the fixture starts a cluster, which would not be local."""
    texts = texts_of_many_lengths(3000)
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    (tmp_path / "model").symlink_to(artifact)

    def line(out: str, *options: str) -> list[str]:
        return command("embed", "model", "a.txt", "-o", f"{out}/", "--part-rows", "50", "--threads", "1", *options)

    def run(out: str, *options: str) -> None:
        subprocess.run(line(out, *options), env=USUAL, cwd=tmp_path, check=True, capture_output=True, timeout=300)

    run("plain")
    expected = content(tmp_path / "plain")
    with subprocess.Popen(line("out", "--ray"), env=USUAL, cwd=tmp_path, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and len(list((tmp_path / "out").glob("part-*"))) < 2:
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    done = sorted((tmp_path / "out").glob("part-*"))
    assert 2 <= len(done) < 60
    assert all(path.read_bytes() == expected[path.name] for path in done)
    shutil.copytree(tmp_path / "out", tmp_path / "without")
    run("out", "--ray")
    assert content(tmp_path / "out") == expected
    run("without")
    assert content(tmp_path / "without") == expected


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_clusters_that_cannot_be_reached(embed: Embed, artifact: Path, tmp_path: Path) -> None:
    """Before the fixture starts a cluster, which "auto" would find."""
    (tmp_path / "a.txt").write_text("the cat\n")
    with pytest.raises(UsageError, match="there is no Ray cluster at auto"):
        embed("a.txt", compute=compute_on_ray("auto", partial(OnnxEmbedder, artifact), VectorOptions()))


def test_map_batches(artifact: Path, cluster: None) -> None:
    import ray.data

    texts = texts_of_many_lengths(50)
    dataset = ray.data.from_items([{"n": n, "text": text} for n, text in enumerate(texts)])
    arguments = {"model": str(artifact), "threads": 1}
    pool = ray.data.ActorPoolStrategy(size=1)
    made = dataset.map_batches(EmbedBatch, fn_constructor_kwargs=arguments, batch_size=1024, compute=pool, num_cpus=1)
    rows = sorted(made.take_all(), key=lambda row: row["n"])
    with OnnxEmbedder(artifact) as model:
        assert np.allclose(np.stack([row["vector"] for row in rows]), model.encode(texts), atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_a_job_on_ray_writes_the_same_bytes_and_goes_on(
    embed: Embed, artifact: Path, cluster: None, tmp_path: Path, dtype: Any
) -> None:
    texts = texts_of_many_lengths(700)
    (tmp_path / "a.txt").write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    vectors = VectorOptions(dtype=dtype)
    embed("a.txt", out="plain", part_rows=100, vectors=vectors)
    compute = compute_on_ray("auto", partial(OnnxEmbedder, artifact), vectors, threads=1, actors=2)
    embed("a.txt", part_rows=100, vectors=vectors, compute=compute)
    assert content(tmp_path / "out") == content(tmp_path / "plain")
    for lost in (0, 3, 4):
        (tmp_path / f"out/part-0000{lost}.parquet").unlink()
    embed("a.txt", part_rows=100, vectors=vectors, compute=compute)
    assert content(tmp_path / "out") == content(tmp_path / "plain")


def test_a_cluster_without_room_is_refused(embed: Embed, artifact: Path, cluster: None, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the cat\n")
    compute = compute_on_ray("auto", partial(OnnxEmbedder, artifact), VectorOptions(), threads=1000)
    with pytest.raises(UsageError, match=r"room for 0 actors of 1000 CPUs, not 1: see --threads"):
        embed("a.txt", compute=compute)
    assert list((tmp_path / "out").glob("part-*")) == []


def test_a_model_is_found_by_a_path_that_begins_where_the_command_runs(
    artifact: Path, cluster: None, tmp_path: Path
) -> None:
    """The actors of a cluster that was started elsewhere begin elsewhere."""
    (tmp_path / "a.txt").write_text("the cat\n")
    (tmp_path / "model").symlink_to(artifact)
    line = command("embed", "model", "a.txt", "-o", "out/", "--threads", "1", "--ray", "auto")
    done = subprocess.run(line, env=USUAL, cwd=tmp_path, check=False, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("out: 1 text, ")
