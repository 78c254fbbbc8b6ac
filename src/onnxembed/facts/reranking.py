"""What a model's own files say about its scores. Standard library only."""

from __future__ import annotations

from pathlib import Path

from onnxembed.errors import UnsupportedError
from onnxembed.facts.known.sentence_transformers import LOGIT_SCORE
from onnxembed.facts.modules import module_class
from onnxembed.json_file import read_json


def read_answers(folder: Path, modules: list[dict[str, str]]) -> tuple[int, ...] | None:
    """What a CrossEncoder does after its Transformer: nothing, or LogitScore, whose token ids are returned."""
    if not modules:
        return None
    if [module_class(module) for module in modules] != ["LogitScore"]:
        types = ", ".join(module["type"] for module in modules)
        file = folder / "modules.json"
        raise UnsupportedError(f"{file} has {types} after a CrossEncoder's Transformer; onnxembed builds LogitScore")
    file = folder / modules[0]["path"] / "config.json"
    config = read_json(file)
    ids = tuple(config[key] for key in ("true_token_id", "false_token_id") if config.get(key) is not None)
    LOGIT_SCORE.check(file, config)
    if not ids or not all(type(token_id) is int for token_id in ids):
        raise UnsupportedError(f"{file} says {dict(config)!r}, not the ids true_token_id and false_token_id alone")
    return ids
