"""What the files of a checkpoint say: both generations of sentence-transformers, and everything refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from onnxembed.errors import ModelFilesError, UnsupportedError
from onnxembed.facts.facts import Facts, read_facts
from onnxembed.facts.modules import POOLING_FLAGS, PoolingFacts
from tiny import change_json, write_bert, write_json, write_sentence_bert

IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sentence-transformers BERT with one Dense layer and a Normalize."""
    return write_sentence_bert(tmp_path / "model", dense=((32, 16, IDENTITY),))


def modules(folder: Path, *kinds: str) -> None:
    """Write a modules.json of these types; a bare name is a sentence-transformers class."""
    listed = [kind if "." in kind else f"sentence_transformers.models.{kind}" for kind in kinds]
    paths = ["", *(f"{i}_{kind.rpartition('.')[2]}" for i, kind in enumerate(listed[1:], start=1))]
    write_json(
        folder / "modules.json",
        [{"idx": i, "name": str(i), "path": paths[i], "type": kind} for i, kind in enumerate(listed)],
    )


def real(shared_data: Path, name: str) -> Facts:
    return read_facts(shared_data / "configs" / name)


# ---- real folders


def test_reads_the_files_of_todays_release(shared_data: Path) -> None:
    facts = real(shared_data, "bge-m3")
    assert facts.post.poolings == (PoolingFacts(("cls",), "1_Pooling/config.json: pooling_mode"),)
    assert facts.post.normalize
    assert "max_seq_length" not in facts.transformer_config
    assert facts.tokenizer_config["model_max_length"] == 8192
    assert facts.prompts == {"document": "", "query": ""}
    assert facts.similarity == "cosine"


def test_reads_dense_modules_and_prompts(shared_data: Path) -> None:
    facts = real(shared_data, "embeddinggemma-300m")
    assert [(layer.in_features, layer.out_features, layer.bias, layer.activation) for layer in facts.post.dense] == [
        (768, 3072, False, "identity"),
        (3072, 768, False, "identity"),
    ]
    assert [layer.folder.name for layer in facts.post.dense] == ["2_Dense", "3_Dense"]
    assert facts.post.poolings[0].modes == ("mean",)
    assert facts.post.normalize
    assert facts.prompts["query"] == "task: search result | query: "
    assert len(facts.prompts) == 14
    assert facts.default_prompt_name is None


def test_sees_that_a_normalize_module_is_absent(shared_data: Path) -> None:
    facts = real(shared_data, "gte-large-en-v1.5")
    assert facts.model_type == "new"
    assert facts.post.poolings == (PoolingFacts(("cls",), "1_Pooling/config.json: pooling_mode_cls_token"),)
    assert facts.has_modules
    assert not facts.post.normalize
    assert facts.transformer_config["max_seq_length"] == 8192


def test_reads_pooling_flags_without_the_newer_ones(shared_data: Path) -> None:
    facts = real(shared_data, "multilingual-e5-large-instruct")
    assert facts.post.poolings[0].modes == ("mean",)
    assert facts.post.normalize
    assert facts.transformer_config == {}


def test_reads_two_pooling_modules_without_judging(shared_data: Path) -> None:
    facts = real(shared_data, "noinstruct-small-v0")
    assert [pooling.modes for pooling in facts.post.poolings] == [("cls",), ("mean",)]


def test_reads_a_folder_that_does_not_mention_modules(shared_data: Path) -> None:
    facts = real(shared_data, "bert-base-uncased")
    assert not facts.has_modules
    assert facts.post.poolings == ()
    assert facts.transformer_folder == facts.folder


def test_reads_a_static_model(shared_data: Path) -> None:
    facts = real(shared_data, "potion-base-4m-int8")
    assert facts.model_type == "model2vec"
    assert facts.transformer_folder.samefile(facts.folder)
    assert facts.post.normalize
    assert facts.post.poolings == ()


# ---- both generations


@pytest.mark.parametrize(
    ("config", "modes"),
    [
        ({"pooling_mode": "mean"}, ("mean",)),
        ({"pooling_mode": ["mean"]}, ("mean",)),
        ({"pooling_mode": ["mean", "cls"]}, ("mean", "cls")),
        ({"pooling_mode": "mean_sqrt_len_tokens"}, ("mean_sqrt_len",)),
        ({"pooling_mode_max_tokens": True}, ("max",)),
        ({"pooling_mode_mean_sqrt_len_tokens": True, "pooling_mode_mean_tokens": False}, ("mean_sqrt_len",)),
        ({"pooling_mode": "lasttoken", "pooling_mode_mean_tokens": True}, ("lasttoken",)),
        (dict.fromkeys(reversed(POOLING_FLAGS), True), tuple(POOLING_FLAGS.values())),
        ({}, ()),
        ({"pooling_mode": []}, ()),
    ],
)
def test_pooling_of_both_generations(folder: Path, config: dict[str, Any], modes: tuple[str, ...]) -> None:
    write_json(folder / "1_Pooling/config.json", {"word_embedding_dimension": 32, **config})
    assert read_facts(folder).post.poolings[0].modes == modes


@pytest.mark.torch
@pytest.mark.parametrize("flags", [("cls_token", "mean_tokens"), ("lasttoken", "max_tokens", "weightedmean_tokens")])
def test_several_flags_are_concatenated_in_the_order_of_sentence_transformers(
    folder: Path, flags: tuple[str, ...]
) -> None:
    modules = pytest.importorskip("sentence_transformers.sentence_transformer.modules")
    write_json(
        folder / "1_Pooling/config.json",
        {"word_embedding_dimension": 32, **{f"pooling_mode_{flag}": True for flag in flags}},
    )
    expected = modules.Pooling.load(str(folder), subfolder="1_Pooling").pooling_mode
    assert read_facts(folder).post.poolings[0].modes == expected


def test_type_paths_of_every_release(folder: Path) -> None:
    modules(
        folder,
        "sentence_transformers.base.modules.transformer.Transformer",
        "sentence_transformers.sentence_transformer.modules.pooling.Pooling",
        "sentence_transformers.base.modules.dense.Dense",
        "sentence_transformers.sentence_transformer.modules.dropout.Dropout",
        "sentence_transformers.base.modules.normalize.Normalize",
    )
    facts = read_facts(folder)
    assert facts.post.poolings[0].modes == ("mean",)
    assert len(facts.post.dense) == 1
    assert facts.post.normalize


def test_modules_are_taken_in_the_order_of_the_file(folder: Path) -> None:
    """sentence-transformers does not look at idx."""
    path = folder / "modules.json"
    listed = json.loads(path.read_text())
    write_json(path, [{**module, "idx": 0} for module in listed])
    assert read_facts(folder).post.normalize
    write_json(path, [{key: module[key] for key in ("path", "type")} for module in listed])
    assert read_facts(folder).post.normalize


def test_a_transformer_in_a_folder_of_its_own(folder: Path) -> None:
    inner = folder / "0_Transformer"
    inner.mkdir()
    for file in ("config.json", "tokenizer_config.json", "sentence_bert_config.json"):
        shutil.move(folder / file, inner)
    listed = json.loads((folder / "modules.json").read_text())
    listed[0]["path"] = "0_Transformer"
    write_json(folder / "modules.json", listed)
    facts = read_facts(folder)
    assert facts.transformer_folder == inner
    assert facts.model_type == "bert"
    assert facts.transformer_config["max_seq_length"] == 20
    assert facts.tokenizer_config["model_max_length"] == 64


def test_the_files_of_older_architectures_have_names_of_their_own(folder: Path) -> None:
    shutil.move(folder / "sentence_bert_config.json", folder / "sentence_roberta_config.json")
    facts = read_facts(folder)
    assert facts.transformer_config_name == "sentence_roberta_config.json"
    assert facts.transformer_config["max_seq_length"] == 20


@pytest.mark.parametrize(
    "options",
    [
        {"unpad_inputs": True, "query_length": None, "transformer_task": "feature-extraction"},
        {"model_args": {"torch_dtype": "float16", "trust_remote_code": True}, "tokenizer_args": {}},
        {"model_kwargs": {"attn_implementation": "sdpa"}, "config_kwargs": {}},
    ],
)
def test_options_of_the_transformer_that_change_nothing(folder: Path, options: dict[str, Any]) -> None:
    change_json(folder / "sentence_bert_config.json", **options)
    assert read_facts(folder).transformer_config["max_seq_length"] == 20


@pytest.mark.torch
def test_reads_what_sentence_transformers_writes(folder: Path, tmp_path: Path) -> None:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    model.save_pretrained(str(tmp_path / "saved"), create_model_card=False)
    before, after = read_facts(folder), read_facts(tmp_path / "saved")
    assert [pooling.modes for pooling in after.post.poolings] == [pooling.modes for pooling in before.post.poolings]
    assert [layer.activation for layer in after.post.dense] == ["identity"]
    assert after.post.normalize
    assert after.tokenizer_config["model_max_length"] == 20


# ---- refused


@pytest.mark.parametrize(
    ("listed", "named"),
    [
        (["Transformer", "Pooling", "Router"], r"models\.Router"),
        (["Transformer", "Pooling", "LSTM"], "LSTM"),
        (["Transformer", "sentence_transformers.sparse_encoder.models.SpladePooling"], "SpladePooling"),
        (["BoW"], r"models\.BoW; .*begin with a Transformer or a StaticEmbedding"),
        (["Transformer", "StaticEmbedding"], "StaticEmbedding"),
        (["custom_st.Transformer", "Pooling"], r"custom_st\.Transformer"),
        (["Transformer", "other.models.Dense.Dense"], r"other\.models\.Dense"),
        ([], "nothing"),
    ],
)
def test_an_unknown_module_is_refused_by_name(folder: Path, listed: list[str], named: str) -> None:
    modules(folder, *listed) if listed else write_json(folder / "modules.json", [])
    with pytest.raises(UnsupportedError, match=named):
        read_facts(folder)


@pytest.mark.parametrize(
    ("listed", "words"),
    [
        (("Transformer", "Dense", "Pooling"), "before the pooling"),
        (("Transformer", "Normalize", "Pooling"), "before the pooling"),
        (("Transformer", "LayerNorm", "Pooling"), "before the pooling"),
        (("Transformer", "Pooling", "Dense", "Pooling"), "pools what is pooled already"),
    ],
)
def test_an_order_without_meaning_is_refused(folder: Path, listed: tuple[str, ...], words: str) -> None:
    modules(folder, *listed)
    shutil.copytree(folder / "2_Dense", folder / "1_Dense")
    write_json(folder / "1_LayerNorm/config.json", {"dimension": 32})
    with pytest.raises(UnsupportedError, match=words):
        read_facts(folder)


def test_modules_between_pooling_and_the_last_normalize_keep_their_order(folder: Path) -> None:
    modules(folder, "Transformer", "Pooling", "Dense", "Normalize", "LayerNorm", "Normalize", "Normalize")
    write_json(folder / "4_LayerNorm/config.json", {"dimension": 24})
    post = read_facts(folder).post
    assert [type(layer).__name__ for layer in post.layers] == ["DenseFacts", "NormalizeFacts", "LayerNormFacts"]
    assert post.normalize


@pytest.mark.parametrize("place", [0, 1])
def test_a_name_that_no_file_system_takes_is_refused(folder: Path, place: int) -> None:
    listed = json.loads((folder / "modules.json").read_text())
    listed[place]["path"] = "x" * 100_000
    write_json(folder / "modules.json", listed)
    with pytest.raises(ModelFilesError, match="too long") as refused:
        read_facts(folder)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("path", ["../1_Pooling", "/etc", "1_Pooling/../../other", "C/../.."])
def test_a_module_outside_the_folder_is_refused(folder: Path, path: str) -> None:
    listed = json.loads((folder / "modules.json").read_text())
    listed[1]["path"] = path
    write_json(folder / "modules.json", listed)
    with pytest.raises(ModelFilesError, match="outside the model's folder"):
        read_facts(folder)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        '{"idx": 0}',
        "3",
        "null",
        '["Transformer"]',
        '[{"type": "a.B"}]',
        '[{"path": "", "type": 3}]',
        '[{"path": 3, "type": "sentence_transformers.models.Transformer"}]',
    ],
)
def test_a_broken_modules_file_is_an_error_that_names_it(folder: Path, content: str) -> None:
    (folder / "modules.json").write_text(content)
    with pytest.raises(ModelFilesError, match=r"modules\.json is not (a list of modules|readable JSON)"):
        read_facts(folder)


@pytest.mark.parametrize(
    ("file", "values", "named"),
    [
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "attention"),
        ("1_Pooling/config.json", {"pooling_mode": ["mean", "attention"]}, "attention"),
        ("1_Pooling/config.json", {"pooling_mode": 3}, "pooling_mode 3"),
        ("1_Pooling/config.json", {"pooling_mode_attention": True}, "pooling_mode_attention"),
        ("2_Dense/config.json", {"activation_function": "torch.nn.modules.activation.GLU"}, "GLU"),
        ("2_Dense/config.json", {"activation_function": ["Tanh"]}, "Tanh"),
        ("2_Dense/config.json", {"module_input_name": "token_embeddings"}, "token_embeddings"),
        ("2_Dense/config.json", {"module_output_name": "other"}, "other"),
        ("2_Dense/config.json", {"init_scale": 2}, "init_scale"),
        ("3_Normalize/config.json", {"module_input_name": "token_embeddings"}, "token_embeddings"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "fill-mask"),
        ("sentence_bert_config.json", {"query_expansion": {"length": 32}}, "query_expansion"),
        ("sentence_bert_config.json", {"document_length": 300}, "document_length"),
        ("sentence_bert_config.json", {"tokenizer_args": {"add_eos_token": True}}, "add_eos_token"),
        ("sentence_bert_config.json", {"config_kwargs": {"is_decoder": True}}, "is_decoder"),
        ("sentence_bert_config.json", {"pad_to": 8}, "pad_to"),
        ("config_sentence_transformers.json", {"model_type": "Router"}, "Router"),
    ],
)
def test_an_option_that_would_change_vectors_is_refused_by_file_and_name(
    folder: Path, file: str, values: dict[str, Any], named: str
) -> None:
    if not (folder / file).is_file():
        write_json(folder / file, {})
    change_json(folder / file, **values)
    with pytest.raises(UnsupportedError, match=named) as caught:
        read_facts(folder)
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("2_Dense/config.json", {"in_features": None}),
        ("2_Dense/config.json", {"out_features": "16"}),
        ("2_Dense/config.json", {"in_features": 0}),
        ("2_Dense/config.json", {"bias": "false"}),
        ("config_sentence_transformers.json", {"prompts": ["query: "]}),
        ("config_sentence_transformers.json", {"prompts": {"query": 3}}),
        ("config_sentence_transformers.json", {"default_prompt_name": "query"}),
        ("config_sentence_transformers.json", {"default_prompt_name": ["query"]}),
    ],
)
def test_values_of_the_wrong_kind_are_errors_that_name_the_file(
    folder: Path, file: str, values: dict[str, Any]
) -> None:
    change_json(folder / file, **values)
    with pytest.raises(ModelFilesError) as caught:
        read_facts(folder)
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize("file", ["config.json", "1_Pooling/config.json", "2_Dense/config.json"])
def test_a_missing_config_is_named(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(ModelFilesError, match=r"has no config\.json") as caught:
        read_facts(folder)
    assert str((folder / file).parent) in str(caught.value)


def test_a_missing_folder_of_a_module_is_named_with_the_file_that_names_it(folder: Path) -> None:
    (folder / "2_Dense").rename(folder / "2_dense")
    with pytest.raises(ModelFilesError, match=r"modules\.json names the folder '2_Dense', which is not there"):
        read_facts(folder)


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json", "sentence_bert_config.json"])
@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff\xfe{}"])
def test_a_file_that_is_not_a_json_object_is_named(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    with pytest.raises(ModelFilesError) as caught:
        read_facts(folder)
    assert str(folder / file) in str(caught.value)


@pytest.mark.parametrize("model_type", [None, 3])
def test_a_config_without_model_type_is_an_error(tmp_path: Path, model_type: Any) -> None:
    folder = write_bert(tmp_path / "model")
    change_json(folder / "config.json", model_type=model_type)
    with pytest.raises(ModelFilesError, match="model_type"):
        read_facts(folder)


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="no folder at"):
        read_facts(tmp_path / "absent")


# ---- what the reference would read, and onnxembed does not do


@pytest.mark.parametrize("kind", ["IA3", "ADALORA", "LOHA", "PREFIX_TUNING"])
def test_an_adapter_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    """transformers applies it to the weights, whether they are beside it or not."""
    folder = write_sentence_bert(tmp_path)
    write_json(folder / "adapter_config.json", {"peft_type": kind, "base_model_name_or_path": "org/base"})
    words = f"is a {kind} adapter of org/base .*merge_and_unload"
    with pytest.raises(UnsupportedError, match=words):
        read_facts(folder)
    (folder / "config.json").unlink()
    (folder / "model.safetensors").unlink()
    with pytest.raises(UnsupportedError, match=words):
        read_facts(folder)
    write_json(folder / "adapter_config.json", {"config": {}})
    with pytest.raises(ModelFilesError, match="names no peft_type"):
        read_facts(folder)


def test_special_tokens_that_texts_would_split_are_refused(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path)
    change_json(folder / "tokenizer_config.json", split_special_tokens=False)
    read_facts(folder)
    change_json(folder / "tokenizer_config.json", split_special_tokens=True)
    with pytest.raises(UnsupportedError, match=r"tokenizer_config\.json sets split_special_tokens"):
        read_facts(folder)


def test_vectors_that_are_cut_to_fewer_numbers_are_refused(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path)
    change_json(folder / "config_sentence_transformers.json", truncate_dim=8)
    with pytest.raises(UnsupportedError, match=r"truncate_dim to 8.*dimensions=8"):
        read_facts(folder)


@pytest.mark.parametrize("file", ["sentence_bert_config.json", "config_sentence_transformers.json"])
def test_a_link_to_a_file_that_is_gone_is_not_an_absent_file(checkpoint: Path, tmp_path: Path, file: str) -> None:
    folder = Path(shutil.copytree(checkpoint, tmp_path / "copy"))
    (folder / file).unlink()
    (folder / file).symlink_to("../blobs/gone")
    with pytest.raises(ModelFilesError, match=rf"{file} is a link to a file that is gone"):
        read_facts(folder)
