"""config.json and the sentence-transformers files of an artifact, so that other programs can read it.

They are written from the decisions, not copied: a copy would contradict an artifact whose pooling,
normalization or length was set by a flag.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from onnxembed.decisions.decide import Decisions
from onnxembed.decisions.encoder import EncoderDecisions
from onnxembed.export.checkpoint.safetensors import write_safetensors
from onnxembed.export.checkpoint.tensors import SINGLE, Checkpoint
from onnxembed.export.graph.pooling import dense_weights
from onnxembed.export.heads.embedding import layer_names, pooling_place, token_layer_names
from onnxembed.facts.facts import Facts
from onnxembed.facts.modules import DENSE_ACTIVATIONS, POOLING_FLAGS, DenseFacts, Layer, NormalizeFacts, width_after
from onnxembed.facts.transformer import CROSS_ENCODER_EXPECTED
from onnxembed.json_file import write_json
from onnxembed.manifest import Dense, Embedding, Reranking

MODULE = "sentence_transformers.models"
ACTIVATION_CLASSES = {value: name for name, value in DENSE_ACTIVATIONS.items()}


def write_sentence_transformers(facts: Facts, decisions: Decisions, embedding: Embedding | None, folder: Path) -> None:
    """Write config.json and the files from which sentence-transformers reads the model.

    `embedding` is the manifest's section of that name, None for a model that makes no sentence embeddings.
    """
    write_json(folder / "config.json", facts.config)
    if decisions.reranking is not None:
        _write_cross_encoder(decisions.reranking, folder)
    elif embedding is not None:
        write_modules(facts, decisions.encoder, embedding, folder)
    else:
        sentence_transformers_class = "SparseEncoder" if decisions.sparse else "MultiVectorEncoder"
        _write_class(facts, decisions.encoder, folder, model_type=sentence_transformers_class)


def write_modules(facts: Facts, encoder: EncoderDecisions, embedding: Embedding, folder: Path) -> None:
    """Write the files of a SentenceTransformer: modules.json, the modules' folders, lengths and prompts.

    Where the section `embedding` names files of Dense weights, they are written too.
    """
    write_json(
        folder / "sentence_bert_config.json",
        {"max_seq_length": encoder.max_length.value, "do_lower_case": encoder.lower_case.value},
    )
    _write_class(facts, encoder, folder)
    post = facts.post
    token_layers, layers = token_layer_names(post), layer_names(post)
    paths = ["", *token_layers, f"{pooling_place(post)}_Pooling", *layers]
    if embedding.normalize.value:
        paths.append(f"{len(paths)}_Normalize")
    width = width_after(post.token_layers, encoder.hidden_size)
    write_json(folder / paths[pooling_place(post)] / "config.json", _pooling(embedding, width))
    dense = iter(embedding.dense)
    for path, layer in {**token_layers, **layers}.items():
        entry = next(dense) if path in layers and isinstance(layer, DenseFacts) else None
        _write_layer(layer, entry, folder, path)
    write_json(
        folder / "modules.json",
        [
            {
                "idx": index,
                "name": str(index),
                "path": path,
                "type": f"{MODULE}.{path.partition('_')[2] or 'Transformer'}",
            }
            for index, path in enumerate(paths)
        ],
    )


def _write_class(facts: Facts, encoder: EncoderDecisions, folder: Path, **model_type: str) -> None:
    """Write config_sentence_transformers.json; a SentenceTransformer's has no `model_type`."""
    prompts = encoder.prompts
    write_json(
        folder / "config_sentence_transformers.json",
        {
            **model_type,
            "prompts": prompts.texts.value,
            "default_prompt_name": prompts.default.value,
            "similarity_fn_name": facts.similarity,
        },
    )


def _write_cross_encoder(reranking: Reranking, folder: Path) -> None:
    """Write modules.json, sentence_bert_config.json and config_sentence_transformers.json of a CrossEncoder.

    A reranker with a template gets none of them: no other program's files can say what a pair becomes.
    """
    if reranking.template or reranking.answers:
        return
    task = "sequence-classification"
    write_json(folder / "sentence_bert_config.json", {"transformer_task": task, **CROSS_ENCODER_EXPECTED[task]})
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.modules.transformer.Transformer"}
    write_json(folder / "modules.json", [module])
    write_json(
        folder / "config_sentence_transformers.json",
        {
            "model_type": "CrossEncoder",
            "activation_fn": ACTIVATION_CLASSES[reranking.activation.value],
            "prompts": {},
            "default_prompt_name": None,
        },
    )


def _pooling(embedding: Embedding, size: int) -> dict[str, object]:
    """The pooling in the older keys, which every release reads, if they can express it."""
    modes, prompt = embedding.pooling.value, embedding.prompt_left_out is None
    if modes == tuple(mode for mode in POOLING_FLAGS.values() if mode in modes):
        flags = {flag: mode in modes for flag, mode in POOLING_FLAGS.items()}
        return {"word_embedding_dimension": size, **flags, "include_prompt": prompt}
    # The older keys allow one order of concatenation, without repetition.
    names = ["mean_sqrt_len_tokens" if mode == "mean_sqrt_len" else mode for mode in modes]
    return {"embedding_dimension": size, "pooling_mode": names, "include_prompt": prompt}


def _write_layer(layer: Layer, entry: Dense | None, folder: Path, path: str) -> None:
    """Write a module's folder, and a Dense layer's weights as .npy where the manifest's entry names them."""
    (folder / path).mkdir()
    if isinstance(layer, NormalizeFacts):
        return
    shutil.copyfile(layer.folder / "config.json", folder / path / "config.json")
    if (layer.folder / SINGLE).is_file():
        shutil.copyfile(layer.folder / SINGLE, folder / path / SINGLE)
    else:  # no pickle goes into an artifact
        weights = Checkpoint(layer.folder)
        write_safetensors(folder / path / SINGLE, {name: weights.read(name) for name in weights.names()})
    if isinstance(layer, DenseFacts) and entry is not None and entry.weight is not None:
        weight, bias = dense_weights(layer)
        np.save(folder / entry.weight, weight)
        if entry.bias is not None and bias is not None:
            np.save(folder / entry.bias, bias)
