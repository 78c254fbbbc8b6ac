"""What a caller in Python may decide about a graph that another program made. Standard library only."""

from __future__ import annotations

from typing import NamedTuple

from onnxembed.manifest import PoolingMode, ScoreActivation, Task


class AdoptionChoices(NamedTuple):
    """What the caller decides about a graph to adopt; None leaves a decision to the model's files."""

    pooling: tuple[PoolingMode, ...] | None = None
    normalize: bool | None = None
    task: Task | None = None
    activation: ScoreActivation | None = None
    share_scales: bool = False
