"""Decoders without special tokens, with chat templates beside plain texts, and models of an early PyLate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

import tiny
from onnxembed import OnnxEmbedder
from onnxembed.decisions.flags import Flags
from onnxembed.errors import UnsupportedError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.facts.facts import read_facts
from onnxembed.verify.comparison import Comparison
from onnxembed.verify.verify import verify_against
from stock_models import write_sentence_decoder

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
st = pytest.importorskip("sentence_transformers")

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>: {{ m['content'] }} {% endfor %}"


def verified(folder: Path, **flags: Any) -> Path:
    """The folder's export, after it was compared with the reference."""

    def verify(draft: Path, manifest: Any, checkpoint: Any) -> Any:
        return verify_against(Comparison(draft, manifest, checkpoint.folder))

    output = folder.parent / "onnx"
    export(folder, output, Options(flags=Flags(**flags)), verify=verify)
    return output


def decoder(folder: Path, pooling: str, *, specials: bool = False) -> Path:
    write_sentence_decoder(folder, "qwen3", pooling=pooling)
    tiny.change_json(folder / "tokenizer_config.json", tokenizer_class="PreTrainedTokenizerFast")
    if not specials:
        tiny.change_json(folder / "tokenizer.json", post_processor=None)
    return folder


@pytest.mark.parametrize("pooling", ["lasttoken", "mean", "weightedmean", "mean_sqrt_len_tokens", "cls", "max"])
def test_a_decoder_whose_tokenizer_adds_nothing_is_verified(tmp_path: Path, pooling: str) -> None:
    folder = decoder(tmp_path / "model", pooling)
    texts = ["the cat", "", "a", "it was that"]
    with OnnxEmbedder(verified(folder), providers="cpu") as model:
        ours, alone = model.encode(texts), model.encode([""])
    theirs = st.SentenceTransformer(str(folder), device="cpu", local_files_only=True).encode(texts)
    compared = [0, 2, 3] if pooling in ("cls", "max") else [0, 1, 2, 3]
    np.testing.assert_allclose(ours[compared], theirs[compared], atol=2e-6)
    if pooling == "max":  # the reference gives NaN, because its attention has nothing to attend to
        np.testing.assert_allclose(alone, np.full((1, 32), -(32**-0.5)), atol=1e-6)
    elif pooling != "cls":
        np.testing.assert_array_equal(alone, np.zeros((1, 32), np.float32))


def test_a_plain_decoder_with_a_chat_template_is_compared_on_plain_texts(tmp_path: Path) -> None:
    folder = decoder(tmp_path / "model", "mean", specials=True)
    for name in ("modules.json", "sentence_bert_config.json"):
        (folder / name).unlink()
    tiny.change_json(folder / "tokenizer_config.json", chat_template=TEMPLATE)
    with OnnxEmbedder(verified(folder, pooling=("mean",), normalize=False), providers="cpu") as model:
        assert model.encode(["the cat"]).shape == (1, 32)


def test_a_model_whose_texts_go_through_a_chat_template_is_refused_by_that_name(tmp_path: Path) -> None:
    folder = tiny.write_sentence_bert(tmp_path / "model")
    text = {"method": "forward", "method_output_name": "last_hidden_state"}
    modalities = {"text": text, "message": {**text, "format": "flat"}}
    tiny.change_json(folder / "sentence_bert_config.json", modality_config=modalities)
    with pytest.raises(UnsupportedError, match="through the chat template"):
        read_facts(folder)


@pytest.mark.parametrize("residual", [False, True])
@pytest.mark.parametrize(
    "keys", [{"query_prefix": "[Q] ", "query_length": 12, "skiplist_words": ["."]}, {"query_prefix": "a "}]
)
def test_a_model_of_an_early_pylate_is_a_colbert(tmp_path: Path, keys: dict[str, Any], residual: bool) -> None:
    folder = tiny.write_bert(tmp_path / "model")
    listed = [("", "sentence_transformers.models.Transformer"), ("1_Dense", "pylate.models.Dense.Dense")]
    modules = [{"idx": idx, "name": str(idx), "path": path, "type": kind} for idx, (path, kind) in enumerate(listed)]
    tiny.write_json(folder / "modules.json", modules)
    dense: dict[str, Any] = {
        "in_features": 32,
        "out_features": 12,
        "bias": False,
        "activation_function": "torch.nn.modules.linear.Identity",
    }
    rng = np.random.default_rng(3)
    weights = {"linear.weight": rng.normal(0, 0.3, (12, 32)).astype(np.float32)}
    if residual:
        dense["use_residual"] = True
        weights["residual.weight"] = rng.normal(0, 0.3, (12, 32)).astype(np.float32)
    tiny.write_json(folder / "1_Dense/config.json", dense)
    save_file(weights, folder / "1_Dense/model.safetensors")
    tiny.write_json(folder / "config_sentence_transformers.json", {"prompts": {}, **keys})
    output = verified(folder)
    tiny.change_json(folder / "config_sentence_transformers.json", model_type="ColBERT")  # as later releases write it
    reference = st.MultiVectorEncoder(str(folder), device="cpu", local_files_only=True)
    with OnnxEmbedder(output, providers="cpu") as model:
        for kind in ("query", "document"):
            ours = list(model.embed_multi_vector(tiny.TEXTS, kind=kind))
            theirs = reference.encode(tiny.TEXTS, task=kind, prompt_name=kind, convert_to_numpy=True)
            for mine, yours in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(mine, yours, atol=2e-6)
