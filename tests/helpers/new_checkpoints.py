"""Random checkpoints of the "gte" and "new" model types, in every layout that was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from onnxembed.export.architectures.new import PACKED, GatedLayerNames, Rows
from parity import SMALL, Family
from tiny import write_json

GTE = Family(
    "gte",
    {
        **SMALL,
        "hidden_size": 40,
        "max_position_embeddings": 64,  # shorter than the longest text
        "type_vocab_size": 2,
        "pad_token_id": 0,
    },
)

# The keys that models of this type were published with; the flags are strings in one of them.
PUBLISHED: dict[str, Any] = {
    "auto_map": {"AutoModel": "modeling.NewModel"},
    "layer_norm_type": "layer_norm",
    "pack_qkv": True,
    "position_embedding_type": "rope",
    "rope_scaling": None,
    "rope_theta": 160000,
    "unpad_inputs": "true",
    "use_memory_efficient_attention": "true",
    "logn_attention_clip1": False,
    "logn_attention_scale": True,
}


def rename(folder: Path, layout: GatedLayerNames, prefix: str = "") -> None:
    """Give the tensors of a folder, which has the packed layout, the names and the packing of another."""
    weights = load_file(folder / "model.safetensors")
    renamed: dict[str, Any] = {}
    for index in range(SMALL["num_hidden_layers"]):
        old, new = PACKED.at(index), layout.at(index)
        for part in vars(old):
            source, target = getattr(old, part), getattr(new, part)
            for kind in ("weight", "bias"):
                if isinstance(source, Rows) and f"{source.name}.{kind}" in weights:
                    rows = np.split(weights[f"{source.name}.{kind}"], source.parts)[source.part]
                    renamed.setdefault(f"{target.name}.{kind}", []).append(rows)
                elif isinstance(source, str) and f"{source}.{kind}" in weights:
                    renamed[f"{target}.{kind}"] = [weights[f"{source}.{kind}"]]
    tensors = {name: np.concatenate(parts) for name, parts in renamed.items()}
    tensors |= {name: tensor for name, tensor in weights.items() if name.startswith("embeddings")}
    save_file({prefix + name: tensor for name, tensor in tensors.items()}, folder / "model.safetensors")


def new(folder: Path, **change: Any) -> None:
    """Give a folder the config of a "new" model."""
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    del values["rope_parameters"]
    write_json(folder / "config.json", {**values, **PUBLISHED, "model_type": "new", **change})
