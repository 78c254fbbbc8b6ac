"""How a model's vectors are compared, as its folder says for sentence-transformers."""

from __future__ import annotations

import json
from pathlib import Path

from onnxembed.errors import ModelFilesError
from onnxembed.manifest import Manifest

FILE = "config_sentence_transformers.json"


def similarity_name(folder: Path, manifest: Manifest) -> str:
    """The name of the similarity of dense vectors; "cosine" where the files say nothing, as in sentence-transformers.

    Raises UsageError for a model that makes no dense vectors, and ModelFilesError for a file that cannot be read, or
    that the manifest records and the folder lacks.
    """
    manifest.require_embedding()
    path = folder / FILE
    if not path.is_file():
        if FILE in manifest.files:
            raise ModelFilesError(f"{path}, which says how vectors are compared, is not here: copy it from the model")
        return "cosine"
    try:
        name = json.loads(path.read_text(encoding="utf-8")).get("similarity_fn_name")
    except (ValueError, AttributeError) as error:
        raise ModelFilesError(f"{path} cannot be read: {error}") from error
    return "cosine" if name is None else str(name)
