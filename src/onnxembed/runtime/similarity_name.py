"""How a model's vectors are compared, as its folder says for sentence-transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from onnxembed.errors import ModelFilesError
from onnxembed.loading.locate import SIMILARITY_FILE
from onnxembed.manifest import Manifest, Task

USUAL: Mapping[Task, str] = {"embedding": "cosine", "sparse": "dot", "multi_vector": "maxsim"}
"""What sentence-transformers compares by where a model's files say nothing."""


def similarity_name(folder: Path, manifest: Manifest, task: Task) -> str:
    """The name of the similarity of what a model makes for `task`; the usual one where the files say nothing.

    Raises ModelFilesError for a file that cannot be read, or that the manifest records and the folder lacks.
    """
    path = folder / SIMILARITY_FILE
    if not path.is_file():
        if SIMILARITY_FILE in manifest.files:
            raise ModelFilesError(f"{path}, which says how vectors are compared, is not here: copy it from the model")
        return USUAL[task]
    try:
        name = json.loads(path.read_text(encoding="utf-8")).get("similarity_fn_name")
    except (ValueError, AttributeError) as error:
        raise ModelFilesError(f"{path} cannot be read: {error}") from error
    return USUAL[task] if name is None else str(name)
