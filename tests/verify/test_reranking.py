"""Exported rerankers against sentence-transformers' CrossEncoder, and a yes-or-no model against its card's code."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from onnxembed import OnnxReranker
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, VerificationError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.manifest import FILE_NAME, read_manifest
from onnxembed.proof.probes import BRIEF_PAIRS, PAIRS, probe_pairs
from onnxembed.recipes.book import read_recipe
from onnxembed.tokenizer.pairs import PairTokenizer
from onnxembed.verify import batches
from onnxembed.verify.verify import self_check, verify
from tiny import change_json, write_json
from tiny_rerankers import DOCUMENTS, QUERY, write_cross_encoder, write_reranker

torch = pytest.importorskip("torch", reason="compares with torch; needs the [torch] extra")
transformers = pytest.importorskip("transformers", reason="compares with transformers; needs the [torch] extra")

pytestmark = pytest.mark.torch

QWEN = read_recipe("Qwen3-Reranker-0.6B")
SPECIALS = ["<|im_start|>", "<|im_end|>", "<|endoftext|>", "<think>", "</think>"]


def cross_encoder(folder: Path) -> Any:
    from sentence_transformers import CrossEncoder

    loading = {"dtype": torch.float32, "attn_implementation": "eager"}
    return CrossEncoder(str(folder), device="cpu", local_files_only=True, model_kwargs=loading)


def language_model(folder: Path, **config: Any) -> Path:
    """A tiny Qwen3ForCausalLM with a byte-level tokenizer that has the answers, and a chat template for chats."""
    vocab = {letter: number for number, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab |= {word: len(vocab) + number for number, word in enumerate(["ye", "yes", "no"])}
    tokenizer = Tokenizer(models.BPE(vocab, [("y", "e"), ("ye", "s"), ("n", "o")]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(SPECIALS)
    saved = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=512,
        padding_side="left",
        chat_template="{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}",
    )
    saved.save_pretrained(folder)
    values: dict[str, Any] = {
        "vocab_size": tokenizer.get_vocab_size(),
        "hidden_size": 32,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "num_hidden_layers": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 600,
        "pad_token_id": tokenizer.token_to_id("<|endoftext|>"),
        "eos_token_id": tokenizer.token_to_id("<|im_end|>"),
        "bos_token_id": None,
        "tie_word_embeddings": True,
        **config,
    }
    torch.manual_seed(0)
    model = transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**values))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(0, 0.2)
            if parameter.ndim == 1 and name.endswith("weight"):
                parameter.add_(1)
    model.save_pretrained(folder)
    return folder


def card_scores(folder: Path, pairs: list[tuple[str, str]], max_length: int) -> tuple[list[list[int]], Any]:
    """Token ids, and P(yes), as the code of Qwen3-Reranker's model card makes them, one pair at a time."""
    template = QWEN.template.value if QWEN.template else None
    assert template is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, padding_side="left")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    prefix = tokenizer.encode(template.prefix, add_special_tokens=False)
    suffix = tokenizer.encode(template.suffix, add_special_tokens=False)
    yes, no = (tokenizer.convert_tokens_to_ids(answer) for answer in ("yes", "no"))
    all_ids, scores = [], []
    for query, document in pairs:
        body = f"<Instruct>: {template.instruction}\n<Query>: {query}\n<Document>: {document}"
        room = max_length - len(prefix) - len(suffix)
        ids = prefix + tokenizer(body, truncation="longest_first", max_length=room)["input_ids"] + suffix
        with torch.no_grad():
            last = model(torch.tensor([ids])).logits[0, -1]
        scores.append(torch.log_softmax(torch.stack([last[no], last[yes]]), 0)[1].exp().item())
        all_ids.append(ids)
    return all_ids, np.array(scores)


def test_a_bert_is_verified_and_the_figures_recorded(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint")
    export(folder, tmp_path / "out", Options(precisions=("fp32", "fp16")))
    manifest = verify(tmp_path / "out")
    assert read_manifest(tmp_path / "out") == manifest
    fp32, fp16 = manifest.verification.values()
    assert fp32.texts == len(PAIRS) + 4
    assert fp32.max_abs_diff <= 1e-5 <= fp32.required["max_abs_diff"]
    assert fp32.min_cosine is None
    assert 1e-5 < fp16.max_abs_diff <= fp16.required["max_abs_diff"]


@pytest.mark.parametrize("labels", [1, 3])
def test_scores_and_ranking_equal_the_cross_encoder(labels: int, tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "checkpoint", labels=labels)
    export(folder, tmp_path / "out")
    pairs = probe_pairs(64)
    theirs = cross_encoder(folder)
    with OnnxReranker(tmp_path / "out") as ours:
        with pytest.warns(UserWarning, match=r"(was|were) cut"):
            scores = ours.score_pairs(pairs)
        np.testing.assert_allclose(scores, theirs.predict(pairs), atol=1e-5)
        if labels == 1:
            ranked = theirs.rank(QUERY, DOCUMENTS)
            assert [result.index for result in ours.rank(QUERY, DOCUMENTS)] == [
                result["corpus_id"] for result in ranked
            ]


def test_the_artifact_itself_is_a_cross_encoder_folder_with_an_onnx_graph(tmp_path: Path) -> None:
    """Its files, beside the checkpoint's weights, make the same CrossEncoder."""
    folder = write_reranker(tmp_path / "checkpoint")
    export(folder, tmp_path / "out", Options(flags=Flags(activation="tanh")))
    shutil.copy(folder / "model.safetensors", tmp_path / "out")
    again = cross_encoder(tmp_path / "out")
    with OnnxReranker(tmp_path / "out") as ours:
        np.testing.assert_allclose(
            ours.score(QUERY, DOCUMENTS), again.predict([(QUERY, d) for d in DOCUMENTS]), atol=1e-5
        )


def refused(folder: Path, words: str) -> bool:
    """Whether verification fails with these words, and leaves the manifest as it was."""
    before = (folder / FILE_NAME).read_bytes()
    with pytest.raises(VerificationError, match=words):
        verify(folder)
    return (folder / FILE_NAME).read_bytes() == before


def test_a_wrong_head_is_found(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint")
    export(folder, tmp_path / "out")
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"] += 0.01
    save_file(weights, folder / "model.safetensors")
    words = r"fp32 logits are not the reference's: max abs difference 1.0e-02 \(at most 2\S+\); by way of .*: alone"
    assert refused(tmp_path / "out", words)


def test_another_activation_is_found(tmp_path: Path) -> None:
    folder = write_cross_encoder(tmp_path / "checkpoint")
    export(folder, tmp_path / "out")
    change_json(folder / "config_sentence_transformers.json", activation_fn="torch.nn.modules.activation.Tanh")
    assert refused(tmp_path / "out", r"scores are not the reference's, which makes them with Tanh")


def test_other_token_ids_and_segments_are_found(tmp_path: Path) -> None:
    folder = write_reranker(tmp_path / "checkpoint")
    export(folder, tmp_path / "out")
    change_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    assert refused(tmp_path / "out", r"the segments of \('What is the")
    change_json(folder / "tokenizer_config.json", do_lower_case=False)
    assert refused(tmp_path / "out", r"token ids of a pair are not the reference's: \('What is the")


def test_self_check_finds_scores_that_depend_on_the_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export(write_reranker(tmp_path / "checkpoint"), tmp_path / "out")
    assert self_check(tmp_path / "out").startswith(f"run on {len(BRIEF_PAIRS)} pairs: scores are finite")
    honest = batches.pad_on_side
    monkeypatch.setattr(
        batches,
        "pad_on_side",
        lambda *arguments: {**honest(*arguments), "attention_mask": np.ones_like(honest(*arguments)["input_ids"])},
    )
    with pytest.raises(VerificationError, match=r"padded right"):
        self_check(tmp_path / "out")


@pytest.mark.parametrize("tied", [True, False])
def test_a_yes_or_no_model_scores_as_its_card_says(tied: bool, tmp_path: Path) -> None:
    folder = language_model(tmp_path / "checkpoint", tie_word_embeddings=tied)
    export(folder, tmp_path / "out", Options(recipe="Qwen3-Reranker-0.6B"))
    pairs = [*PAIRS, (QUERY, "word " * 300), ("word " * 300, QUERY)]
    card_ids, scores = card_scores(folder, pairs, 512)
    with OnnxReranker(tmp_path / "out") as model:
        assert [tokens.ids.tolist() for tokens in model.tokenize(pairs)] == card_ids
        with pytest.warns(UserWarning, match=r"6 of 35 pairs were longer"):
            ours = model.score_pairs(pairs)
    np.testing.assert_allclose(ours, scores, atol=1e-5)
    manifest = verify(tmp_path / "out")
    assert manifest.verification["fp32"].max_abs_diff <= 1e-5
    reranking = manifest.require_reranking()
    assert reranking.labels.value == ("yes",)
    assert reranking.activation.value == "sigmoid"
    assert reranking.pooling.value == "lasttoken"


def test_an_instruction_from_the_caller_is_put_into_the_template(tmp_path: Path) -> None:
    export(language_model(tmp_path / "checkpoint"), tmp_path / "out", Options(recipe="Qwen3-Reranker-0.6B"))
    with OnnxReranker(tmp_path / "out", instruction="find {query}") as model:
        (tokens,) = model.tokenize([("{document}", "b")])
    reader = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    reader.decoder = decoders.ByteLevel()
    text = reader.decode(tokens.ids.tolist(), skip_special_tokens=False)
    assert "<Instruct>: find {query}\n<Query>: {document}\n<Document>: b<|im_end|>" in text
    with pytest.raises(Exception, match=r"cuts its body; only_second is not possible"):
        OnnxReranker(tmp_path / "out", truncation="only_second")


def test_a_language_model_without_its_recipe_is_refused(tmp_path: Path) -> None:
    folder = language_model(tmp_path / "checkpoint")
    with pytest.raises(ModelFilesError, match=r"names Qwen3ForCausalLM, not a .*needs its recipe \(--recipe NAME\)"):
        export(folder, tmp_path / "out", Options(flags=Flags(task="reranking")))


def test_an_output_layer_that_is_neither_there_nor_tied_is_an_error(tmp_path: Path) -> None:
    folder = language_model(tmp_path / "checkpoint")
    change_json(folder / "config.json", tie_word_embeddings=False)
    with pytest.raises(ModelFilesError, match=r"no tensor lm_head.weight, and it is not tied"):
        export(folder, tmp_path / "out", Options(recipe="Qwen3-Reranker-0.6B"))


def test_sentence_transformers_own_folder_of_such_a_model(tmp_path: Path) -> None:
    """LogitScore's ids come from its files; the template, a program there, from the recipe."""
    folder = language_model(tmp_path / "checkpoint")
    cross_encoder(folder).save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    with pytest.raises(ModelFilesError, match=r"chat_template.jinja\), which onnxembed does not run"):
        export(tmp_path / "saved", tmp_path / "out")
    manifest = export(tmp_path / "saved", tmp_path / "out", Options(recipe="Qwen3-Reranker-0.6B"))
    answers = manifest.require_reranking().answers
    assert answers is not None
    assert (answers.value, answers.origin) == (("yes", "no"), "file")
    assert verify(tmp_path / "out").verification["fp32"].max_abs_diff <= 1e-5


@pytest.mark.parametrize("truncation", ["longest_first", "only_second"])
@pytest.mark.parametrize("name", ["ms-marco-MiniLM-cross-encoder", "modernbert", "xlm-roberta"])
def test_real_tokenizers_join_and_cut_pairs_as_transformers_does(
    name: str, truncation: Any, shared_data: Path, tmp_path: Path
) -> None:
    """The ids and segments of every pair, very long queries included, at lengths that cut nearly all of them."""
    folder = shared_data / "configs" / name
    reference = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(folder / "tokenizer.json"), model_input_names=["input_ids", "token_type_ids"]
    )
    export(write_reranker(tmp_path / "checkpoint"), tmp_path / "out")
    manifest = read_manifest(tmp_path / "out")
    tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8")
    long = "The quick brown fox, und so weiter: 東京 " * 40
    pairs = [*PAIRS, (long, "short"), (long, long), ("short", long), ("", long), (long, "")]
    for length in (64, 13):
        comparable = [pair for pair in pairs if truncation == "longest_first" or len(pair[0]) < length // 4]
        ours = PairTokenizer(tmp_path / "out", manifest, length, truncation, changed=tokenizer).tokenize(comparable)
        for pair, tokens in zip(comparable, ours, strict=True):
            # In a batch, as CrossEncoder asks: asked for one pair, transformers takes an empty document for none.
            theirs = reference([pair], truncation=truncation, max_length=length)
            assert tokens.ids.tolist() == theirs["input_ids"][0], (pair, length)
            assert tokens.type_ids.tolist() == theirs["token_type_ids"][0], (pair, length)


@pytest.mark.parametrize("name", ["bge-reranker-base", "gte-reranker-modernbert-base", "ms-marco-MiniLM-cross-encoder"])
def test_published_configs_are_read_as_they_are(name: str, shared_data: Path, tmp_path: Path) -> None:
    """The real config.json, with fewer and narrower layers, a random head and a small tokenizer."""
    source = json.loads((shared_data / "configs" / name / "config.json").read_text(encoding="utf-8"))
    smaller = {"hidden_size": 48, "num_attention_heads": 4, "num_hidden_layers": 2, "intermediate_size": 64}
    config = transformers.AutoConfig.for_model(**{**source, **smaller, "vocab_size": 50300})
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(tmp_path / "checkpoint")
    write_reranker(tmp_path / "tokenizer")
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tmp_path / "tokenizer" / file, tmp_path / "checkpoint")
    if source.get("type_vocab_size") == 1:  # its own tokenizer has one segment
        change_json(tmp_path / "checkpoint/tokenizer_config.json", model_input_names=["input_ids", "attention_mask"])
    write_json(tmp_path / "checkpoint/config.json", {**source, **smaller, "vocab_size": 50300})
    manifest = verify(export_to(tmp_path))
    assert manifest.verification["fp32"].max_abs_diff <= 1e-5
    reranking = manifest.require_reranking()
    assert reranking.pooling.value == ("mean" if "modernbert" in name else "cls")
    assert reranking.activation.value == ("identity" if "ms-marco" in name else "sigmoid")
    assert reranking.labels.value == ("LABEL_0",)


def export_to(folder: Path) -> Path:
    export(folder / "checkpoint", folder / "out")
    return folder / "out"
