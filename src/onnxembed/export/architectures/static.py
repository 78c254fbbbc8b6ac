"""Static embeddings: a token's vector is a row of a table; a text's vector is the average of its tokens' vectors.

Reference: model2vec (https://github.com/MinishLab/model2vec), and sentence-transformers,
sentence_transformer/modules/static_embedding.py. They differ in one thing: model2vec leaves unknown
tokens out of the average.
"""

from __future__ import annotations

import json
from pathlib import Path

from tokenizers import Tokenizer

from onnxembed.errors import ModelFilesError
from onnxembed.export.architectures.architecture import Architecture
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.graph.graph import Graph, Value
from onnxembed.export.graph.inputs import Inputs
from onnxembed.foreign_errors import foreign_errors


def static_embedding(g: Graph, config: Config, inputs: Inputs) -> Value:
    """sentence-transformers' StaticEmbedding; its config is the table's shape."""
    table = "embedding.weight"
    config.confirm_shape(table, g.weights.shape(table), "vocab_size", "hidden_dim")
    _check_tokenizer(g, config.take("vocab_size", int))
    return _rows(g, table, inputs.input_ids)


def model2vec(g: Graph, config: Config, inputs: Inputs) -> Value:
    """model2vec's StaticModel: several tokens may share a row (`mapping`), and each may have a weight (`weights`).

    Int8 tables are used without their scale, which normalization cancels.
    """
    config.take("normalize", bool, False)  # decided with the other modules
    has_mapping, has_weights = (g.weights.has(name) for name in ("mapping", "weights"))
    table = "embeddings"
    stored = g.weights.shape(table)
    config.confirm_shape(table, stored[1:], "hidden_dim")
    _check_tokenizer(g, g.weights.shape("mapping")[0] if has_mapping else stored[0])
    rows = g.op("Gather", g.stored("mapping"), inputs.input_ids) if has_mapping else inputs.input_ids
    x = _rows(g, table, rows)
    if has_weights:
        weights = g.op("Gather", g.weight("weights"), inputs.input_ids)
        x = g.op("Mul", x, g.op("Unsqueeze", weights, g.integers(-1)))
    return x


def unknown_token(folder: Path) -> int | None:
    """The id of a checkpoint's unknown token, which model2vec leaves out of the average; None where it has none."""
    tokenizer = _tokenizer(folder)
    name = getattr(tokenizer.model, "unk_token", None)
    if name is not None:
        return int(index) if (index := tokenizer.token_to_id(name)) is not None else None
    by_id = json.loads(tokenizer.to_str())["model"].get("unk_id")  # a Unigram's
    return None if by_id is None else int(by_id)


def _check_tokenizer(g: Graph, rows: int) -> None:
    """Refuse weights that lack a row for a token of the tokenizer."""
    tokenizer = _tokenizer(g.weights.folder)
    if tokenizer.get_vocab_size() > rows:
        raise ModelFilesError(
            f"{g.weights.folder}: tokenizer.json has {tokenizer.get_vocab_size()} tokens, the weights only {rows} rows"
        )


def _tokenizer(folder: Path) -> Tokenizer:
    file = folder / "tokenizer.json"
    with foreign_errors(f"{file} is not a tokenizer that the tokenizers library can read"):
        return Tokenizer.from_file(str(file))


def _rows(g: Graph, table: str, ids: Value) -> Value:
    """Rows of a table [B, T, D] in the graph's type; integers stay integers in the file."""
    if g.weights.dtype(table).kind == "i":
        return g.op("Cast", g.op("Gather", g.stored(table), ids), to=g.onnx_float)
    return g.op("Gather", g.weight(table), ids)


STATIC_EMBEDDING = Architecture(build=static_embedding)
MODEL2VEC = Architecture(build=model2vec, unpooled_token=unknown_token)
