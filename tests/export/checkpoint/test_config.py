"""Every key of config.json that could change the computation is noticed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.export.build_graph import build
from onnxembed.export.checkpoint.config import Config
from onnxembed.export.plan import Options, make_plan
from onnxembed.facts.facts import read_facts
from onnxembed.facts.known.config import HARMLESS, NEUTRAL_VALUES
from tiny import CONFIG, write_sentence_bert

# What the builders of the bert family read.
BERT_KEYS = {
    "hidden_act": str,
    "hidden_size": int,
    "intermediate_size": int,
    "layer_norm_eps": float,
    "max_position_embeddings": int,
    "num_attention_heads": int,
    "num_hidden_layers": int,
    "pad_token_id": int,
    "type_vocab_size": int,
    "vocab_size": int,
}


def config(**values: Any) -> Config:
    return Config(values, "model/config.json")


def build_bert(folder: Path, *ignored: str, **values: Any) -> None:
    """Build the graph of a tiny BERT whose config.json has these keys."""
    write_sentence_bert(folder)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **values}))
    facts = read_facts(folder)
    build(make_plan(facts, None, Options(ignored_config_keys=ignored)), "fp32")


# ---- taking keys


def test_takes_a_value_of_the_right_kind() -> None:
    read = config(size=3, eps=1, act="gelu", flag=False, nothing=None)
    assert read.take("size", int) == 3
    assert type(read.take("eps", float)) is float
    assert read.take("act", str) == "gelu"
    assert read.take("flag", bool) is False
    assert read.take("absent", int, 7) == 7
    assert read.take("nothing", int, 7) == 7
    read.finish()


@pytest.mark.parametrize(
    ("value", "kind"), [("3", int), (3.0, int), (True, int), (True, float), ("x", float), (1, bool), ([], str)]
)
def test_a_value_of_another_kind_is_an_error(value: object, kind: type) -> None:
    with pytest.raises(ModelFilesError, match=r"model/config\.json: size is .*, not (a|true)"):
        config(size=value).take("size", kind)


@pytest.mark.parametrize("values", [{}, {"size": None}])
def test_a_key_without_a_default_is_required(values: dict[str, Any]) -> None:
    with pytest.raises(ModelFilesError, match=r"model/config\.json has no size"):
        config(**values).take("size", int)


def test_an_expected_key_has_its_value_or_is_absent() -> None:
    for values in ({}, {"kind": "absolute"}):
        read = config(**values)
        read.expect("kind", "absolute")
        read.finish()
    with pytest.raises(UnsupportedError, match=r"model/config\.json sets kind to 'relative'; onnxembed builds"):
        config(kind="relative").expect("kind", "absolute")


def test_a_shape_must_match_the_keys_that_state_it() -> None:
    read = config(rows=5, width=3)
    read.confirm_shape("table", (5, 3), "rows", "width")
    with pytest.raises(ModelFilesError, match=r"rows, width say \(5, 3\), but table has the shape \(6, 3\)"):
        read.confirm_shape("table", (6, 3), "rows", "width")


def test_an_older_key_is_read_as_its_later_name() -> None:
    read = config(n_embd=8, n_layer=None, hidden_size=8)
    read.rename(n_embd="hidden_size", n_layer="layers", n_head="heads")
    assert read.take("hidden_size", int) == 8
    assert not read.has("layers")
    read.finish()
    with pytest.raises(ModelFilesError, match="n_embd is 8, but hidden_size, its later name, 9"):
        config(n_embd=8, hidden_size=9).rename(n_embd="hidden_size")


def test_an_older_key_does_not_hide_that_nothing_read_the_later_one() -> None:
    read = config(n_embd=8)
    read.rename(n_embd="hidden_size")
    with pytest.raises(UnsupportedError, match="hidden_size"):
        read.finish()


def test_a_key_is_ignored_where_the_reference_ignores_it() -> None:
    read = config(logn_attention_scale=True, other=1)
    read.ignore("logn_attention_scale", "absent")
    with pytest.raises(UnsupportedError, match="know: other;"):
        read.finish()


# ---- what is left over


def test_a_key_that_nothing_read_is_refused_with_the_flag_that_vouches_for_it() -> None:
    with pytest.raises(UnsupportedError, match=r"alpha, beta; .*--ignore-config-key alpha"):
        config(beta=1, alpha=2, architectures=["BertModel"]).finish()


# Keys of published files that transformers' classes do not read.
PUBLISHED: dict[str, dict[str, Any]] = {
    "albert-base-v2": {"down_scale_factor": 1, "gap_size": 0, "net_structure_type": 0, "num_memory_blocks": 0},
    "rubert-tiny2": {"emb_size": 312},
    "TinyBERT": {"cell": {}, "emb_size": 312, "pre_trained": "", "structure": [], "training": ""},
    "unsloth": {"unsloth_fixed": True, "unsloth_version": "2026.3.5", "quantization_config": None},
    "Qwen2.5": {"use_mrope": False, "_flash_attn_2_enabled": True, "neftune_noise_alpha": 5, "model_max_length": 512},
}


@pytest.mark.parametrize("published", PUBLISHED)
def test_the_keys_of_published_models_that_nobody_reads_are_known(published: str) -> None:
    config(**PUBLISHED[published]).finish()


@pytest.mark.parametrize(
    ("key", "value"),
    [("quantization_config", {"load_in_4bit": True}), ("use_mrope", True), ("gap_size", 2), ("cell", {"layers": 2})],
)
def test_their_other_values_are_refused(key: str, value: Any) -> None:
    with pytest.raises(UnsupportedError, match=key):
        config(**{key: value}).finish()


def test_the_caller_may_vouch_for_a_key() -> None:
    read = config(alpha=2, beta=1)
    with pytest.raises(UnsupportedError, match="beta"):
        read.finish(["alpha"])
    read.finish(["alpha", "beta"])


def test_a_mixture_of_experts_is_named_as_one() -> None:
    """Vouching for its keys would help nobody: they say what is computed."""
    with pytest.raises(
        UnsupportedError, match=r"a mixture of experts \(moe_top_k, num_experts\), which onnxembed does"
    ):
        config(num_experts=8, moe_top_k=2, novelty=1).finish()


def test_no_key_is_both_harmless_and_watched() -> None:
    assert not HARMLESS.keys() & NEUTRAL_VALUES.keys()
    assert not HARMLESS.keys() & BERT_KEYS.keys()


@pytest.mark.parametrize(
    "key",
    """
    alibi attention_bias attention_type emb_pooler embedding_size hidden_act is_causal layer_types logn_attention_scale
    num_key_value_heads per_layer_config position_embedding_type rope_parameters rope_scaling rope_theta
    sliding_window truncate_dim type_vocab_size use_bidirectional_attention
    """.split(),  # noqa: SIM905  (a word list)
)
def test_a_key_that_changes_hidden_states_is_not_called_harmless(key: str) -> None:
    assert key not in HARMLESS
    assert key not in NEUTRAL_VALUES


# ---- the bert family


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("position_embedding_type", "relative_key"),
        ("position_embedding_type", "relative_key_query"),
        ("position_embedding_type", None),
        ("is_decoder", True),
        ("is_encoder_decoder", True),
        ("add_cross_attention", True),
        ("pruned_heads", {"0": [1]}),
        ("prefix", "query: "),
        ("rope_theta", 10000),
        ("hidden_act", "swiglu"),
        ("quantization_config", {"bits": 8}),
    ],
)
def test_a_bert_that_is_not_plain_is_refused(tmp_path: Path, key: str, value: object) -> None:
    with pytest.raises(UnsupportedError, match=str(value) if key == "hidden_act" else key):
        build_bert(tmp_path, **{key: value})


def test_ignoring_a_key_does_not_unwatch_the_ones_that_are_read(tmp_path: Path) -> None:
    build_bert(tmp_path / "a", "rope_theta", rope_theta=10000)
    with pytest.raises(UnsupportedError, match="position_embedding_type"):
        build_bert(tmp_path / "b", "position_embedding_type", position_embedding_type="relative_key")


@pytest.mark.parametrize(
    ("key", "value", "tensor"),
    [
        ("vocab_size", 86, "word_embeddings"),
        ("hidden_size", 16, "word_embeddings"),
        ("max_position_embeddings", 128, "position_embeddings"),
        ("type_vocab_size", 1, "token_type_embeddings"),
        ("intermediate_size", 64, "intermediate"),
        ("num_attention_heads", 5, "attention heads"),
    ],
)
def test_sizes_that_contradict_the_weights_are_named(tmp_path: Path, key: str, value: int, tensor: str) -> None:
    with pytest.raises(ModelFilesError, match=tensor):
        build_bert(tmp_path, **{key: value})


@pytest.mark.parametrize(
    "name",
    [
        "bert-base-uncased",
        "bge-m3",
        "bge-reranker-v2-m3",
        "ms-marco-MiniLM-cross-encoder",
        "multilingual-e5-base",
        "multilingual-e5-large-instruct",
        "noinstruct-small-v0",
    ],
)
def test_real_configs_have_no_unknown_keys(shared_data: Path, name: str) -> None:
    file = shared_data / "configs" / name / "config.json"
    read = Config(json.loads(file.read_text(encoding="utf-8")), str(file))
    read.expect("position_embedding_type", "absolute")
    for key, kind in BERT_KEYS.items():
        read.take(key, kind)
    read.finish()


def test_configs_of_the_first_releases_have_no_unknown_keys(tmp_path: Path) -> None:
    """Up to 2020 every attribute was written, generation settings and all."""
    build_bert(
        tmp_path,
        _num_labels=2,
        bos_token_id=0,
        do_sample=False,
        eos_token_ids=0,
        finetuning_task=None,
        id2label={"0": "LABEL_0"},
        is_decoder=False,
        label2id={"LABEL_0": 0},
        length_penalty=1.0,
        max_length=20,
        num_beams=1,
        num_labels=2,
        num_return_sequences=1,
        output_attentions=False,
        output_hidden_states=False,
        output_past=True,
        prefix=None,
        pruned_heads={},
        repetition_penalty=1.0,
        temperature=1.0,
        tie_weights_=True,
        top_k=50,
        top_p=1.0,
        torchscript=False,
        use_bfloat16=False,
        xla_device=None,
    )


@pytest.mark.torch
@pytest.mark.parametrize("model_type", ["bert", "roberta", "xlm-roberta", "camembert", "electra", "distilbert"])
def test_keys_called_harmless_do_not_change_the_reference(model_type: str) -> None:
    """Each key that transformers writes is changed, the weights kept, and the hidden states compared."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "max_position_embeddings": 20, "pad_token_id": 1}
    sizes |= (
        {"dim": 8, "hidden_dim": 12, "n_heads": 2, "n_layers": 1}
        if model_type == "distilbert"
        else {"hidden_size": 8, "intermediate_size": 12, "num_attention_heads": 2, "num_hidden_layers": 1}
    )
    plain = transformers.AutoConfig.for_model(model_type, **sizes)
    model = transformers.AutoModel.from_config(plain, attn_implementation="eager").eval()
    ids = torch.tensor([[5, 6, 7, 8, 1], [9, 10, 1, 1, 1]])
    inputs = {"input_ids": ids, "attention_mask": (ids != 1).long(), "return_dict": True}

    def hidden(reference: Any) -> Any:
        with torch.no_grad():
            return reference(**inputs).last_hidden_state

    expected = hidden(model)
    tried = 0
    for key, value in plain.to_dict().items():
        # What is not a number or a switch is a name: of classes, labels, the type of stored weights.
        if key not in HARMLESS or not isinstance(value, bool | int | float):
            continue
        other = (not value) if isinstance(value, bool) else value + (1 if isinstance(value, int) else 0.25)
        changed = transformers.AutoConfig.for_model(model_type, **{**sizes, key: other})
        variant = transformers.AutoModel.from_config(changed, attn_implementation="eager").eval()
        variant.load_state_dict(model.state_dict())
        assert torch.allclose(hidden(variant), expected, atol=1e-6), key
        tried += 1
    assert tried >= 8
