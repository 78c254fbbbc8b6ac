"""A job that is killed at random moments: its bytes, and the seconds that each kill costs."""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from pathlib import Path

from benchmark.bulk.work import Work

TIMES = 20
SHARE = 10
"""The job has this part of the large one's texts."""

PARTS = 20


def kills(work: Work) -> None:
    """Kill a job 20 times, then let it end; compare every file with those of a job that nobody disturbed.

    Moments are drawn so that the job does not end before it has been killed so often. A kill costs the part that was
    under way and a new beginning, which a finished job that runs again shows by itself.
    """
    count = work.texts // SHARE
    inputs = work.parquet(count)
    whole, killed = work.folder / "kills-whole", work.folder / "kills-killed"

    def command(output: Path) -> list[str]:
        line = [sys.executable, "-m", "onnxembed", "embed", work.model, inputs, "-o", f"{output}/"]
        return [*map(str, line), "--part-rows", str(count // PARTS), "--threads", str(work.threads)]

    def seconds(output: Path) -> float:
        begun = time.perf_counter()
        subprocess.run(command(output), check=True, capture_output=True)
        return time.perf_counter() - begun

    for folder in (whole, killed):
        shutil.rmtree(folder, ignore_errors=True)
    alone = seconds(whole)
    beginning = seconds(whole)
    moments, lost, happened = random.Random(), 0.0, 0
    for _ in range(TIMES):
        begun = time.perf_counter()
        with subprocess.Popen(command(killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                process.wait(moments.uniform(0, beginning + 2 * alone / TIMES))
            except subprocess.TimeoutExpired:
                process.kill()
                happened += 1
        lost += time.perf_counter() - begun
        if process.returncode == 0:
            break
    lost += seconds(killed) - alone
    files = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file() and path.name != "lock"}
    others = {path.relative_to(killed) for path in killed.rglob("*") if path.is_file() and path.name != "lock"}
    equal = files == others and all((whole / name).read_bytes() == (killed / name).read_bytes() for name in files)
    figures = {
        "texts": count,
        "part_rows": count // PARTS,
        "kills": happened,
        "files": len(files),
        "equal_bytes": equal,
        "undisturbed_seconds": alone,
        "beginning_seconds": beginning,
        "seconds_lost_per_kill": lost / max(1, happened),
    }
    work.record.keep("kills", figures, done=True)
