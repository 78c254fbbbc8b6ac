"""What the caller decides instead of the files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from onnxembed.errors import UsageError
from onnxembed.manifest import AttentionMode, PoolingMode, ScoreActivation, Task

NO_ADAPTER = "none"
"""The value of `Flags.adapter` for the model without any of its adapters."""


@dataclass(frozen=True)
class Flags:
    """What the caller decides instead of the files; None leaves the decision to the files."""

    pooling: tuple[PoolingMode, ...] | None = None
    normalize: bool | None = None
    max_length: int | None = None
    attention: AttentionMode | None = None
    adapter: str | None = None
    task: Task | None = None
    activation: ScoreActivation | None = None
    plain_pairs: bool = False
    share_scales: bool = False
    """Run the texts of a graph together that share the scale of their activations, and so change each other."""

    def refuse_embedding_flags(self, folder: Path) -> None:
        """Raise UsageError for flags about sentence embeddings if the model makes only other embeddings."""
        if self.pooling is not None or self.normalize is not None:
            raise UsageError(
                f"{folder} makes no sentence embedding here, and --pooling and --normalize are for those; "
                "--task embedding makes one, without its other heads"
            )
