"""The file that the measurements are written to: each step as soon as it is done, so that a run can go on later."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from onnxembed.execution.processor import read_processor


@dataclass
class Record:
    """The steps that are done, by name, with their figures."""

    path: Path
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)

    @classmethod
    def open(cls, path: Path) -> Record:
        """The record of an earlier run, or an empty one."""
        return cls(path, json.loads(path.read_text())["steps"] if path.exists() else {})

    def keep(self, step: str, figures: dict[str, Any], *, done: bool) -> None:
        """Write the figures of a step, which replace those that were there."""
        self.steps[step] = {"done": done, **figures}
        machine = {"processor": read_processor().name, "cpus": os.cpu_count(), "python": platform.python_version()}
        draft = self.path.with_name(f".{self.path.name}.part")
        draft.write_text(json.dumps({"machine": machine, "steps": self.steps}, indent=2) + "\n")
        draft.replace(self.path)

    def is_done(self, step: str) -> bool:
        return bool(self.steps.get(step, {}).get("done"))
