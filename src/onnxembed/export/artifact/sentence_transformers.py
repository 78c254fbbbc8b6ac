"""config.json and the sentence-transformers files of an artifact, so that other programs read it too.

They are written from the decisions, not copied: a copy would contradict an artifact whose pooling,
normalization or length was set by a flag.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from onnxembed.decisions.embedding import EmbeddingDecisions
from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.export.checkpoint.safetensors import write_safetensors
from onnxembed.export.checkpoint.tensors import SINGLE
from onnxembed.export.graph.pooling import dense_weights
from onnxembed.facts.facts import Facts
from onnxembed.facts.json_file import write_json
from onnxembed.facts.modules import POOLING_FLAGS, DenseFacts
from onnxembed.manifest import Dense, PoolingMode

MODULE = "sentence_transformers.models"


def write_modules(
    facts: Facts, encoder: EncoderDecisions, embedding: EmbeddingDecisions, pooling_out: bool, folder: Path
) -> tuple[Dense, ...]:
    """Write config.json, modules.json and the modules' folders; returns the manifest's Dense entries.

    With `pooling_out` the Dense layers' weights are written as .npy too, for the runtime to apply.
    """
    write_json(folder / "config.json", facts.config)
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": encoder.max_length.value, "do_lower_case": encoder.lower_case.value},
    )
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "prompts": encoder.prompts.texts.value,
            "default_prompt_name": encoder.prompts.default.value,
            "similarity_fn_name": facts.similarity,
        },
    )
    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    write_json(folder / "1_Pooling/config.json", _pooling(embedding.pooling.value, encoder.hidden_size))
    dense = []
    for layer in facts.dense:
        path = f"{len(modules)}_Dense"
        modules.append((path, "Dense"))
        dense.append(_write_dense(layer, folder, path, pooling_out))
    if embedding.normalize.value:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
    write_json(
        folder / "modules.json",
        [
            {"idx": idx, "name": str(idx), "path": path, "type": f"{MODULE}.{kind}"}
            for idx, (path, kind) in enumerate(modules)
        ],
    )
    return tuple(dense)


def _pooling(modes: Sequence[PoolingMode], size: int) -> dict[str, object]:
    """The pooling in the older generation's keys, which every release reads, where they can say it."""
    if modes == tuple(mode for mode in POOLING_FLAGS.values() if mode in modes):
        flags = {flag: mode in modes for flag, mode in POOLING_FLAGS.items()}
        return {"word_embedding_dimension": size, **flags, "include_prompt": True}
    # The older keys know one order of concatenation only, and no repetition.
    names = ["mean_sqrt_len_tokens" if mode == "mean_sqrt_len" else mode for mode in modes]
    return {"embedding_dimension": size, "pooling_mode": names, "include_prompt": True}


def _write_dense(layer: DenseFacts, folder: Path, path: str, pooling_out: bool) -> Dense:
    (folder / path).mkdir()
    shutil.copyfile(layer.folder / "config.json", folder / path / "config.json")
    if (layer.folder / SINGLE).is_file():
        shutil.copyfile(layer.folder / SINGLE, folder / path / SINGLE)
    else:  # no pickle goes into an artifact
        weight, bias = dense_weights(layer)
        tensors = {"linear.weight": weight} | ({} if bias is None else {"linear.bias": bias})
        write_safetensors(folder / path / SINGLE, tensors)
    files: list[str | None] = [None, None]
    if pooling_out:
        for slot, (name, array) in enumerate(zip(("weight", "bias"), dense_weights(layer), strict=True)):
            if array is not None:
                np.save(folder / path / f"{name}.npy", array)
                files[slot] = f"{path}/{name}.npy"
    return Dense(layer.in_features, layer.out_features, layer.activation, *files)
