"""A checkpoint in the form that transformers' own classes load, without remote code.

Some models were published with code of their own, and the class that transformers has had since reads
another config. Loading the published one with it fails, or runs and gives other vectors; so the config is
translated where the class computes the same, and elsewhere there is no reference to compare with.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from onnxembed.errors import NoReferenceError
from onnxembed.facts.facts import read_facts
from onnxembed.facts.json_file import write_json

Values = Mapping[str, Any]


@contextmanager
def stock_folder(checkpoint: Path) -> Iterator[Path]:
    """A folder that transformers loads: the checkpoint, or links to its files beside a translated config.json.

    Raises NoReferenceError where transformers has no class that computes the model.
    """
    facts = read_facts(checkpoint)
    translate = _TRANSLATIONS.get(facts.model_type)
    if translate is None:
        yield checkpoint
        return
    translated = translate(facts.config)
    with TemporaryDirectory() as scratch:
        folder = Path(scratch) / "checkpoint"
        shutil.copytree(checkpoint, folder, copy_function=_link)
        config = folder / facts.transformer_folder.relative_to(checkpoint) / "config.json"
        config.unlink()
        write_json(config, translated)
        yield folder


def _link(source: str, target: str) -> None:
    Path(target).symlink_to(Path(source).resolve())


def _new(config: Values) -> dict[str, Any]:
    """NewModel for GteModel, whose linear scaling with a larger base is NewModel's ntk scaling."""
    scaling = config.get("rope_scaling") or {}
    known = scaling.get("type", "ntk") == "ntk" and scaling.keys() <= {"type", "factor"}
    if not (known and config.get("pack_qkv", True) and config.get("layer_norm_type", "layer_norm") == "layer_norm"):
        raise NoReferenceError(
            "transformers' Gte class computes a 'new' model only with packed q, k and v, LayerNorm and plain ntk"
        )
    theta, factor = float(config.get("rope_theta", 10000.0)), float(scaling.get("factor", 1.0))
    head_dim = config["hidden_size"] // config["num_attention_heads"]
    rope = {"rope_type": "linear", "rope_theta": theta * factor, "factor": factor ** (2 / head_dim)}
    dropped = {"auto_map", "rope_theta", "rope_scaling"}
    kept = {key: value for key, value in config.items() if key not in dropped}
    return {**kept, "model_type": "gte", "architectures": ["GteModel"], "rope_parameters": rope}


def _jina_embeddings_v3(config: Values) -> dict[str, Any]:
    """The published config, which calls itself xlm-roberta, for JinaEmbeddingsV3Model, which has no adapters."""
    if config.get("lora_adaptations"):
        raise NoReferenceError("transformers' JinaEmbeddingsV3 class does not read the adapters of the original code")
    if "position_embedding_type" not in config:
        return dict(config)
    kept = {key: value for key, value in config.items() if key not in ("auto_map", "position_embedding_type")}
    rope = {"rope_type": "default", "rope_theta": config["rotary_emb_base"]}
    return {
        **kept,
        "model_type": "jina_embeddings_v3",
        "architectures": ["JinaEmbeddingsV3Model"],
        "rope_parameters": rope,
    }


def _nomic_bert(config: Values) -> dict[str, Any]:
    if "n_embd" in config:
        raise NoReferenceError("transformers' NomicBert class ignores the keys of a published nomic_bert config")
    return dict(config)


_TRANSLATIONS: dict[str, Callable[[Values], dict[str, Any]]] = {
    "new": _new,
    "jina_embeddings_v3": _jina_embeddings_v3,
    "nomic_bert": _nomic_bert,
}
