"""What `export` and `adopt` share: the folder that they make, how it is verified, and what they return."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from onnxembed.commands.result import Result
from onnxembed.errors import MissingExtraError, NoReferenceError
from onnxembed.hub.source import Fetched, file_names
from onnxembed.manifest import Manifest
from onnxembed.progress import Progress


@dataclass(frozen=True)
class NewFolder(Result):
    """An ONNX folder that was made; of a dry run, one that would be."""

    folder: Path
    written: bool
    """False for a dry run: nothing was written, and the manifest names neither graphs nor hashes."""
    files: dict[str, int | None]
    """The size of each file in bytes, by name; None where the weights would have to be fetched to know it."""
    notes: tuple[str, ...]
    """What to know about a folder that was not compared with the reference."""
    manifest: Manifest
    """Every decision with its origin, and the figures of verification."""


def require_export() -> None:
    """Raise MissingExtraError unless the extra [export] is installed."""
    missing = [name for name in ("onnx", "ml_dtypes") if find_spec(name) is None]
    if missing:
        raise MissingExtraError(f"export needs {' and '.join(missing)}: pip install 'onnxembed[export]'")


def default_output(model: str | Path) -> Path:
    """The folder that is written if the caller names none: the model's name, also for "." and for a hub id."""
    folder = Path(os.path.expanduser(model))
    return Path(f"{folder.resolve().name if folder.is_dir() else folder.name}-onnx")


def made(folder: Path, manifest: Manifest, notes: tuple[str, ...]) -> NewFolder:
    """The result for a folder that is written."""
    files: dict[str, int | None] = {name: (folder / name).stat().st_size for name in sorted(file_names(folder))}
    return NewFolder(folder, True, files, notes, manifest)


def all_weights(folder: Path) -> bool:
    """Whether a checkpoint has weights to compare with: one that is exported has."""
    return True


class DraftVerifier:
    """Compares a finished draft with the reference; runs its graphs without one if that is not possible.

    Args:
        output: where the folder will appear, for messages.
        wanted: False for the flag --no-verify.
        progress: called as the comparison goes on.
        has_weights: whether the folder of a model contains weights to compare with.
    """

    def __init__(
        self, output: Path, *, wanted: bool, progress: Progress, has_weights: Callable[[Path], bool] = all_weights
    ) -> None:
        self.notes: tuple[str, ...] = ()
        """What to tell the user about a draft that was not compared."""
        self._output, self._wanted, self._has_weights, self._progress = output, wanted, has_weights, progress

    def __call__(self, draft: Path, manifest: Manifest, source: Fetched) -> Manifest:
        """The manifest, with the figures of the comparison if there was one."""
        from onnxembed.proof.record import write_proof
        from onnxembed.proof.recording import Recorder
        from onnxembed.verify.comparison import Comparison
        from onnxembed.verify.requirements import missing_requirements
        from onnxembed.verify.verify import self_check, verify_against

        obstacle = missing_requirements() if self._wanted else "--no-verify"
        cure = f"; to verify: onnxembed verify {self._output} --against "
        if not self._has_weights(source.folder):
            obstacle, cure = obstacle or "its weights are not beside the graph", f"{cure}MODEL"
        else:
            cure += manifest.source.model
        if not obstacle:
            recorder = Recorder()
            try:
                comparison = Comparison(draft, manifest, source.folder, (), self._progress, source.base, recorder.keep)
                verified = verify_against(comparison)
                if manifest.model.engine != "adopted":
                    write_proof(draft, recorder.proof(manifest))
                return verified
            except NoReferenceError as error:
                obstacle, cure = str(error), ""
        self.notes = (self_check(draft), f"not verified ({obstacle}){cure}")
        return manifest
