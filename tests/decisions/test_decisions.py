"""Facts and flags -> decisions: what wins, where it came from, and what is never guessed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from decided import decide_embedding, decide_encoder
from onnxembed.decisions.decide import decide
from onnxembed.errors import ModelFilesError, OnnxEmbedError, UnsaidError, UnsupportedError, UsageError
from onnxembed.facts.facts import read_facts
from onnxembed.facts.model_types import MODEL_TYPES
from onnxembed.manifest import Decision, PoolingMode
from tiny import change_json, write_bert, write_json, write_sentence_bert
from tiny_rerankers import write_reranker

DECODERS = [name for name, defaults in MODEL_TYPES.items() if defaults.decoder]
IDENTITY = "torch.nn.modules.linear.Identity"
ROBERTA: dict[str, Any] = {"model_type": "roberta", "max_position_embeddings": 66, "pad_token_id": 1}


def test_every_decision_of_the_files_says_which_file_and_key(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path, prompts={"query": "q: "}, default_prompt_name="query")
    change_json(folder / "tokenizer_config.json", truncation_side="left")
    encoder, embedding = decide_encoder(folder), decide_embedding(folder)
    assert encoder.attention == Decision("bidirectional", "architecture", "bert is an encoder")
    assert embedding.pooling == Decision(("mean",), "file", "1_Pooling/config.json: pooling_mode")
    assert embedding.normalize == Decision(True, "file", "modules.json has a Normalize module")
    assert encoder.max_length == Decision(20, "file", "sentence_bert_config.json: max_seq_length")
    assert encoder.truncation_side == Decision("left", "file", "tokenizer_config.json: truncation_side")
    assert encoder.pad_token_id == Decision(0, "file", "config.json: pad_token_id")
    assert encoder.lower_case == Decision(False, "file", "sentence_bert_config.json: do_lower_case")
    name = "config_sentence_transformers.json"
    assert encoder.prompts.texts == Decision({"query": "q: "}, "file", f"{name}: prompts")
    assert encoder.prompts.default == Decision("query", "file", f"{name}: default_prompt_name")
    assert (encoder.hidden_size, embedding.dimension) == (32, 32)


def test_flags_win_over_the_files(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path)
    flags: dict[str, Any] = {"pooling": ("cls", "max"), "normalize": False, "max_length": 7}
    encoder, embedding = decide_encoder(folder, **flags), decide_embedding(folder, **flags)
    assert embedding.pooling == Decision(("cls", "max"), "flag", "--pooling")
    assert embedding.normalize == Decision(False, "flag", "--no-normalize")
    assert encoder.max_length == Decision(7, "flag", "--max-length")
    assert embedding.dimension == 64
    assert decide_embedding(folder, normalize=True).normalize.reason == "--normalize"


def test_a_setting_absent_from_the_files_comes_from_the_architecture(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, pad_token_id=None, **{k: v for k, v in ROBERTA.items() if k != "pad_token_id"})
    encoder = decide_encoder(folder, pooling=("mean",), normalize=True)
    assert encoder.pad_token_id == Decision(1, "architecture", "the default of roberta")
    assert encoder.truncation_side.origin == "architecture"
    assert encoder.lower_case == Decision(False, "architecture", "the tokenizer decides about case")


# ---- never guessed


def test_missing_pooling_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    with pytest.raises(ModelFilesError, match="--pooling"):
        decide_embedding(folder, normalize=True)


def test_a_pooling_module_without_a_mode_needs_the_flag_and_takes_it(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path)
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, "pooling_mode_cls_token": False})
    with pytest.raises(ModelFilesError, match="--pooling"):
        decide_embedding(folder)
    assert decide_embedding(folder, pooling=("cls",)).pooling.value == ("cls",)


def test_missing_normalization_is_an_error_that_names_both_flags(tmp_path: Path) -> None:
    folder = write_bert(tmp_path)
    with pytest.raises(ModelFilesError, match=r"--normalize or --no-normalize"):
        decide_embedding(folder, pooling=("mean",))


def test_modules_without_normalize_mean_no_normalization(tmp_path: Path) -> None:
    decision = decide_embedding(write_sentence_bert(tmp_path, normalize=False)).normalize
    assert decision == Decision(False, "file", "modules.json has no Normalize module")


def test_two_pooling_modules_are_both_named_with_the_flag(shared_data: Path) -> None:
    folder = shared_data / "configs/noinstruct-small-v0"
    with pytest.raises(UnsupportedError) as caught:
        decide_embedding(folder)
    for part in ("cls (1_Pooling", "mean (2_Pooling", "--pooling"):
        assert part in str(caught.value)
    assert decide_encoder(folder, pooling=("cls",)).max_length == Decision(
        512, "file", "sentence_bert_config.json: max_seq_length"
    )


@pytest.mark.parametrize("pooling", [(), ("attention",), ("mean", "attention")])
def test_an_unknown_pooling_mode_is_a_usage_error(tmp_path: Path, pooling: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="lasttoken"):
        decide_embedding(write_sentence_bert(tmp_path), pooling=pooling)


# ---- length


def limits(tmp_path: Path, sentence_length: Any, tokenizer: Any, **config: Any) -> Decision[int]:
    folder = write_sentence_bert(tmp_path, max_length=None, **config)
    write_json(
        folder / "sentence_bert_config.json", {} if sentence_length is ... else {"max_seq_length": sentence_length}
    )
    change_json(folder / "tokenizer_config.json", model_max_length=None if tokenizer is ... else tokenizer)
    return decide_encoder(folder).max_length


@pytest.mark.parametrize(
    ("sentence_length", "tokenizer", "length", "reason"),
    [
        (30, 20, 30, "sentence_bert_config.json: max_seq_length"),
        (None, 20, 20, "tokenizer_config.json: model_max_length"),
        (..., 20.0, 20, "tokenizer_config.json: model_max_length"),
        (..., ..., 64, "config.json: max_position_embeddings allows 64"),
        (64, ..., 64, "sentence_bert_config.json: max_seq_length"),
        (
            65,
            20,
            64,
            "config.json: max_position_embeddings allows 64 (sentence_bert_config.json: max_seq_length says more)",
        ),
        (
            ...,
            1e30,
            64,
            "config.json: max_position_embeddings allows 64 (tokenizer_config.json: model_max_length says more)",
        ),
        (
            ...,
            1000000000000000019884624838656,
            64,
            "config.json: max_position_embeddings allows 64 (tokenizer_config.json: model_max_length says more)",
        ),
    ],
)
def test_which_length_wins(tmp_path: Path, sentence_length: Any, tokenizer: Any, length: int, reason: str) -> None:
    decision = limits(tmp_path, sentence_length, tokenizer)
    assert decision == Decision(length, "file", reason)
    assert type(decision.value) is int


def test_the_tokenizers_older_length_counts_where_the_newer_one_is_absent(tmp_path: Path) -> None:
    """transformers: kwargs.pop("model_max_length", kwargs.pop("max_len", None))."""
    folder = write_sentence_bert(tmp_path, max_length=None)
    for model_max_length, expected in ((None, 12), (20, 20)):
        change_json(folder / "tokenizer_config.json", model_max_length=model_max_length, max_len=12)
        assert decide_encoder(folder).max_length.value == expected


@pytest.mark.parametrize("value", ["512", 0, -1, True, 20.5, float("nan"), [20]])
@pytest.mark.parametrize("where", ["sentence_bert_config.json", "tokenizer_config.json"])
def test_an_invalid_length_is_an_error_and_is_not_skipped(tmp_path: Path, where: str, value: Any) -> None:
    sentence_length, tokenizer = (value, 20) if where.startswith("sentence") else (..., value)
    with pytest.raises(ModelFilesError, match=where):
        limits(tmp_path, sentence_length, tokenizer)


@pytest.mark.parametrize(("pad", "length"), [(1, 64), (0, 65), (4, 61)])
def test_robertas_positions_begin_after_the_padding_id(tmp_path: Path, pad: int, length: int) -> None:
    assert limits(tmp_path, ..., 1e30, **{**ROBERTA, "pad_token_id": pad}).value == length


def test_real_lengths(shared_data: Path) -> None:
    def length(name: str) -> Decision[int]:
        return decide_encoder(shared_data / "configs" / name, pooling=("mean",), normalize=True).max_length

    assert length("bge-m3") == Decision(8192, "file", "tokenizer_config.json: model_max_length")
    assert length("multilingual-e5-large-instruct") == Decision(512, "file", "tokenizer_config.json: model_max_length")
    assert length("multilingual-e5-base") == Decision(512, "file", "config.json: max_position_embeddings allows 512")


@pytest.mark.parametrize("max_length", [0, -1])
def test_a_model_without_position_embeddings_takes_any_positive_length(tmp_path: Path, max_length: int) -> None:
    folder = write_sentence_bert(tmp_path, model_type="new")
    assert decide_encoder(folder, max_length=65).max_length == Decision(65, "flag", "--max-length")
    with pytest.raises(UsageError, match=f"--max-length {max_length}: this model takes 1 token or more"):
        decide_embedding(folder, max_length=max_length)


@pytest.mark.parametrize("max_length", [0, -1, 65])
def test_a_length_flag_outside_the_models_range_is_a_usage_error(tmp_path: Path, max_length: int) -> None:
    with pytest.raises(UsageError, match=f"--max-length {max_length}: this model takes 1 to 64"):
        decide_embedding(write_sentence_bert(tmp_path), max_length=max_length)


def test_a_length_flag_may_exceed_the_files_but_not_the_positions(tmp_path: Path) -> None:
    assert decide_encoder(write_sentence_bert(tmp_path), max_length=64).max_length.value == 64


# ---- contradictions


def test_dense_layers_give_the_dimension(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path, dense=((32, 16, IDENTITY), (16, 24, IDENTITY)))
    assert (decide_encoder(folder).hidden_size, decide_embedding(folder).dimension) == (32, 24)


def test_a_dense_layer_of_the_wrong_size_is_a_model_files_error(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path, dense=((33, 16, IDENTITY),))
    with pytest.raises(ModelFilesError, match=r"2_Dense.config\.json takes 33 features, but gets 32"):
        decide_embedding(folder)


def test_a_pooling_flag_that_does_not_fit_the_dense_layer_is_a_usage_error(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path, dense=((32, 16, IDENTITY),))
    modes: tuple[PoolingMode, ...] = ("mean", "max")
    with pytest.raises(UsageError, match=r"gets 64 with --pooling mean\+max"):
        decide_embedding(folder, pooling=modes)


@pytest.mark.parametrize(
    ("file", "values", "error"),
    [
        ("config.json", {"max_position_embeddings": None}, ModelFilesError),
        ("config.json", {"max_position_embeddings": "512"}, ModelFilesError),
        ("config.json", {"hidden_size": True}, ModelFilesError),
        ("config.json", {"hidden_size": 0}, ModelFilesError),
        ("config.json", {"pad_token_id": "0"}, ModelFilesError),
        ("config.json", {"pad_token_id": True}, ModelFilesError),
        ("config.json", {"pad_token_id": -88}, ModelFilesError),
        ("config.json", {"pad_token_id": 87}, ModelFilesError),
        ("config.json", {"model_type": "roberta", "max_position_embeddings": 2, "pad_token_id": 1}, ModelFilesError),
        ("config.json", {"model_type": "t5"}, UnsupportedError),
        ("tokenizer_config.json", {"truncation_side": "middle"}, ModelFilesError),
        ("sentence_bert_config.json", {"do_lower_case": "false"}, ModelFilesError),
    ],
)
def test_impossible_values_are_errors_that_name_the_key(
    tmp_path: Path, file: str, values: dict[str, Any], error: type[OnnxEmbedError]
) -> None:
    folder = write_sentence_bert(tmp_path)
    change_json(folder / file, **values)
    with pytest.raises(error, match="t5" if error is UnsupportedError else next(reversed(values)) + "|max_position"):
        decide_embedding(folder)


def test_keys_that_contradict_each_other_about_attention_are_an_error(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, model_type="qwen2", is_causal=True, use_bidirectional_attention=True)
    with pytest.raises(ModelFilesError, match=r"is_causal and use_bidirectional_attention are both true.*--attention"):
        decide_encoder(folder, pooling=("mean",), normalize=True)


def test_an_unknown_architecture_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match=r"model_type is 't5'.*known: albert, bert"):
        decide_embedding(write_bert(tmp_path, model_type="t5"))


# ---- code of the model's own, and rotary positions

CODE = {
    "AutoConfig": "configuration.Config",
    "AutoModel": "modeling.Model",
    "AutoModelForCausalLM": "modeling.CausalLM",
}


@pytest.mark.parametrize("model_type", DECODERS)
def test_a_decoder_with_code_of_its_own_must_be_told_its_attention(tmp_path: Path, model_type: str) -> None:
    """Files as stella_en_1.5B_v5 has them: its code is bidirectional, transformers' class would be causal."""
    folder = write_bert(tmp_path, model_type=model_type, auto_map=CODE)
    with pytest.raises(UnsaidError, match=r"auto_map: modeling\.Model\).*--attention bidirectional or") as raised:
        decide_encoder(folder, pooling=("mean",), normalize=True)
    assert raised.value.flag == "--attention"
    stated = decide_encoder(folder, pooling=("mean",), normalize=True, attention="bidirectional").attention
    assert stated == Decision("bidirectional", "flag", "--attention")
    change_json(folder / "config.json", is_causal=False)
    stated = decide_encoder(folder, pooling=("mean",), normalize=True).attention
    assert stated == Decision("bidirectional", "file", "config.json: is_causal is false")


def test_code_for_the_config_alone_leaves_a_decoder_causal(tmp_path: Path) -> None:
    folder = write_bert(tmp_path, model_type="qwen2", auto_map={"AutoConfig": "configuration.Config"})
    assert decide_encoder(folder, pooling=("mean",), normalize=True).attention.value == "causal"
    change_json(folder / "config.json", auto_map="modeling.Model")
    with pytest.raises(ModelFilesError, match=r"auto_map is 'modeling\.Model', not classes by name"):
        decide_encoder(folder, pooling=("mean",), normalize=True)


@pytest.mark.parametrize("model_type", [*DECODERS, "eurobert", "modernbert"])
def test_max_seq_length_is_not_bounded_by_rotary_positions(tmp_path: Path, model_type: str) -> None:
    """sentence-transformers takes max_seq_length as it stands, and bounds only the tokenizer's length."""
    folder = write_sentence_bert(tmp_path, model_type=model_type, max_length=512)
    change_json(folder / "tokenizer_config.json", model_max_length=512)
    reason = "sentence_bert_config.json: max_seq_length"
    assert decide_encoder(folder).max_length == Decision(512, "file", reason)
    write_json(folder / "sentence_bert_config.json", {})
    assert decide_encoder(folder).max_length.value == 64


# ---- segments of pairs


@pytest.mark.parametrize(
    ("tokenizer_class", "given"),
    [
        ("BertTokenizer", True),
        ("BertTokenizerFast", True),
        ("ElectraTokenizer", True),
        ("DebertaV2TokenizerFast", True),
        ("PreTrainedTokenizerFast", False),
        ("TokenizersBackend", False),
        ("AlbertTokenizer", False),
        (None, True),
    ],
)
def test_pairs_have_segments_where_the_tokenizers_class_gives_them(
    tmp_path: Path, tokenizer_class: str | None, given: bool
) -> None:
    """As `model_input_names` of transformers 5 say, which the generic classes leave token_type_ids out of."""
    folder = write_reranker(tmp_path)
    change_json(folder / "tokenizer_config.json", tokenizer_class=tokenizer_class)
    reranking = decide(read_facts(folder)).reranking
    assert reranking is not None
    assert (reranking.token_types.value, reranking.token_types.origin) == (given, "architecture")
    change_json(folder / "tokenizer_config.json", model_input_names=["input_ids", "token_type_ids"])
    reranking = decide(read_facts(folder)).reranking
    assert reranking is not None
    assert (reranking.token_types.value, reranking.token_types.origin) == (True, "file")
