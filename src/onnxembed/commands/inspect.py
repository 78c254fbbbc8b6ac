"""`inspect`: how a model's texts become vectors, whether it is an ONNX folder or still a checkpoint."""

from __future__ import annotations

from pathlib import Path

from onnxembed.commands.new_folder import require_export
from onnxembed.errors import NotAnArtifactError
from onnxembed.hub.model_files import open_model_files
from onnxembed.hub.source import HubOptions
from onnxembed.loading.locate import ModelManifest, manifest_of
from onnxembed.manifest import Manifest


def inspect(
    model: str | Path,
    *,
    onnx_file: str | None = None,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    refresh: bool = False,
    token: str | bool | None = None,
) -> Manifest:
    """The manifest of an ONNX folder or hub repository; of any other model, the one that it would get.

    A model with an ONNX graph from elsewhere gets that of an adoption. A checkpoint gets that of a dry run of `export`:
    its `variants` and `files` are empty, and the extra [export] is needed.

    Args:
        model: a folder, or the hub id of a model. Graphs of an ONNX folder and weights of a checkpoint are not fetched
            from the hub.
        onnx_file: the path of the graph to adopt, if it is not onnx/model.onnx or model.onnx.
        revision: a branch, tag or commit of a hub model.
        cache_dir: where hub files are kept; the hub client's standard cache if None.
        local_files_only: use the files in the cache, and never ask the hub.
        refresh: download every file anew, whatever the cache has.
        token: the hub's access token; the one of HF_TOKEN or `hf auth login` if None, no token if False.

    Raises what `export` does for a checkpoint that it refuses.
    """
    hub = HubOptions(revision, cache_dir, local_files_only, refresh, token)
    return inspect_revision(model, hub, onnx_file).manifest


def inspect_revision(model: str | Path, hub: HubOptions, onnx_file: str | None) -> ModelManifest:
    """What `inspect` returns, with the commit of a hub model."""
    files = open_model_files(model, hub)
    try:
        return manifest_of(files, onnx_file)
    except NotAnArtifactError:
        if onnx_file is not None:
            raise
        require_export()
    from onnxembed.export.plan import Options
    from onnxembed.export.preview import preview

    manifest = preview(model, Options(), hub, files).manifest
    return ModelManifest(manifest, manifest.source.revision)
