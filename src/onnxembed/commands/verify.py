"""`verify`: compare an ONNX folder with its reference, or with published numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from onnxembed.commands.result import Result
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import fetch_artifact
from onnxembed.manifest import Manifest, Verification, read_manifest
from onnxembed.progress import Progress, silent

if TYPE_CHECKING:
    from onnxembed.execution.providers import Providers
    from onnxembed.proof.verifying import GraphFigures
    from onnxembed.verify.published import Outcome


@dataclass(frozen=True)
class Verified(Result):
    """What was measured against the reference."""

    folder: Path
    manifest: Manifest
    """The folder's manifest with the figures, also where the folder is read-only and nothing could be recorded."""

    @property
    def verification(self) -> dict[str, Verification]:
        """The figures of each graph, by precision; for sparse and multi-vector embeddings, by precision and task."""
        return self.manifest.verification


@dataclass(frozen=True)
class Golden(Result):
    """A folder against the numbers that were published for its model."""

    folder: Path
    golden: tuple[Outcome, ...]

    @property
    def failures(self) -> int:
        """How many of the published numbers are not met."""
        return sum(not outcome.passed for outcome in self.golden)


@dataclass(frozen=True)
class Proved(Result):
    """A folder's graphs against its proof."""

    folder: Path
    reference: str
    """What computed the results that the proof holds."""
    passed: bool
    """Whether every graph keeps its limits."""
    graphs: tuple[GraphFigures, ...]


def verify_proof(
    folder: str | Path,
    *,
    precision: str | None = None,
    providers: Providers = "auto",
    device_ids: Sequence[int] | None = None,
    threads: int | None = None,
    max_length: int | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    refresh: bool = False,
    token: str | bool | None = None,
) -> Proved:
    """Compare an ONNX folder's graphs with its proof, here, in several ways of running. Needs no torch.

    Args:
        folder: a folder that `export` wrote, or the hub id of a repository with its files.
        precision: the graph to run; all that can run at the provider if None.
        providers, device_ids, threads, max_length: as for OnnxEmbedder; texts of more tokens are left out.
        revision, cache_dir, local_files_only, refresh, token: how a hub repository is fetched, as for OnnxEmbedder.

    Raises:
        VerificationError: token ids differ, results have another shape, or are not finite.
        ModelFilesError: the folder has no proof; the message says how to get one.
        HubError: the hub could not be reached, or it refused.
        ProviderError: a requested provider cannot be used.
    """
    from onnxembed.execution.providers import Placement
    from onnxembed.proof.verifying import require_proof, verify_graphs

    folder = fetch_artifact(folder, HubOptions(revision, cache_dir, local_files_only, refresh, token), precision)
    _, proof = require_proof(folder)
    placement = Placement(providers, threads, device_ids=device_ids)
    graphs = tuple(verify_graphs(folder, placement, precision, max_length))
    passed = not any(figure.fault for graph in graphs for figure in graph.figures)
    return Proved(folder, proof.reference, passed, graphs)


def verify(
    folder: str | Path,
    *,
    against: str | Path | None = None,
    texts: Iterable[str] = (),
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    refresh: bool = False,
    token: str | bool | None = None,
    progress: Progress = silent,
) -> Verified:
    """Compare an ONNX folder with the original model run by sentence-transformers. Needs the extra [torch].

    The figures are recorded in the folder's manifest and in its model card.

    Args:
        folder: a folder that `export` or `adopt` wrote.
        against: hub id or folder of the original model; as the manifest records it if None.
        texts: texts to compare in addition to the built-in ones.
        revision: a branch, tag or commit of the original model.
        cache_dir: where hub files are kept; the hub client's standard cache if None.
        local_files_only: use the files in the cache, and never ask the hub.
        refresh: download every file anew, whatever the cache has.
        token: the hub's access token; the one of HF_TOKEN or `hf auth login` if None, no token if False.
        progress: called with the stage, how much of it is done, and how much there is.

    Raises:
        VerificationError: token ids or vectors differ by more than the limits; nothing is recorded.
        NoReferenceError: transformers has no class of its own for the model.
        MissingExtraError: the extra is not installed.
        ModelFilesError: the folder is no ONNX folder, or the original model is gone.
        HubError: the hub could not be reached, or it refused.
    """
    from onnxembed.verify.requirements import require_verification

    require_verification()  # before the imports that need it
    from onnxembed.export.artifact.model_card import refresh_card
    from onnxembed.verify.verify import verify as run

    folder = Path(folder)
    manifest = run(
        folder,
        against=against,
        hub=HubOptions(revision, cache_dir, local_files_only, refresh, token),
        texts=list(texts),
        progress=progress,
    )
    if read_manifest(folder) == manifest:  # it is recorded
        refresh_card(folder, manifest)
    return Verified(folder, manifest)


def verify_golden(folder: str | Path) -> Golden:
    """Compare an ONNX folder with the numbers published in its recipe: `onnxembed verify --golden`. Needs no torch.

    Raises UsageError for a model without a recipe or without published numbers.
    """
    from onnxembed.verify.published import check_golden

    return Golden(Path(folder), tuple(check_golden(Path(folder))))
