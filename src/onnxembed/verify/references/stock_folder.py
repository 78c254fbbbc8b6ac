"""A checkpoint in the form that transformers' own classes load, without remote code.

Some models were published with their own code, and the class that transformers has since added reads a different
config: with the published one it fails, or computes other vectors. If the class can compute the model, the config is
translated; if not, there is no reference to compare with.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxembed.export.architectures import ARCHITECTURES
from onnxembed.facts.facts import read_facts
from onnxembed.facts.json_file import write_json


@contextmanager
def stock_folder(checkpoint: Path) -> Iterator[Path]:
    """A folder that transformers loads: the checkpoint, or links to its files beside a translated config.json.

    Raises NoReferenceError if transformers has no class that computes the model.
    """
    facts = read_facts(checkpoint)
    architecture = ARCHITECTURES.get(facts.model_type)
    if architecture is None or architecture.reference_config is None:
        yield checkpoint
        return
    translated = architecture.reference_config(facts.config)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        shutil.copytree(checkpoint, folder, copy_function=_link)
        config = folder / facts.transformer_folder.relative_to(checkpoint) / "config.json"
        config.unlink()
        write_json(config, translated)
        yield folder


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())
