"""The lowest releases that pyproject.toml allows, as constraints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from models.lowest_versions import lowest

SCRIPT = Path(__file__).parents[2] / "scripts/models/lowest_versions.py"


def test_the_lowest_release_of_each_requirement_is_its_newest_patch() -> None:
    requirements = ["numpy>=2.0", "onnxruntime-gpu[cuda,cudnn]>=1.31", "onnxembed[export]", "types-tqdm"]
    assert list(lowest(requirements)) == ["numpy==2.0.*", "onnxruntime-gpu==1.31.*"]


def test_the_constraints_of_the_project_hold_its_own_and_those_of_the_extras() -> None:
    done = subprocess.run([sys.executable, SCRIPT, "cpu"], capture_output=True, text=True, check=True)
    names = [line.partition("==")[0] for line in done.stdout.splitlines()]
    assert names == ["numpy", "tokenizers", "huggingface_hub", "click", "tqdm", "onnxruntime"]
