"""Files that other libraries choke on: each is one sentence of the package that names the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from onnxembed import OnnxEmbedder
from onnxembed.errors import ModelFilesError, OnnxEmbedError, UsageError
from onnxembed.export.pipeline import export
from onnxembed.foreign_errors import foreign_errors
from tiny import VOCAB, change_json, write_sentence_bert

DEEP = "[" * 100_000 + "]" * 100_000


class PanicException(BaseException):
    """A panic of Rust code, as pyo3 raises it."""


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (PanicException("no entry found for key"), "no entry found for key"),
        (RecursionError("maximum recursion depth"), "nested too deeply"),
        (MemoryError(), "more memory than there is"),
        (KeyError("model"), "KeyError: 'model'"),
        (ZeroDivisionError(), "ZeroDivisionError"),
        (OSError("gone"), "gone"),
    ],
)
def test_every_foreign_error_becomes_one_that_names_the_file(error: BaseException, words: str) -> None:
    with pytest.raises(ModelFilesError, match=f"^file is broken: .*{words}"), foreign_errors("file is broken"):
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(), UsageError("own"), UserWarning("seen")])
def test_what_is_not_foreign_passes(error: BaseException) -> None:
    with pytest.raises(type(error)), foreign_errors("file is broken"):
        raise error


def test_chosen_classes_pass() -> None:
    with pytest.raises(OSError, match="gone"), foreign_errors("file is broken", but=(OSError,)):
        raise OSError("gone")


def deep(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).write_text('{"a": ' + DEEP + "}")

    return damage


def header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(len(DEEP).to_bytes(8, "little") + DEEP.encode())


def index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(DEEP)


def template(folder: Path) -> None:
    state = json.loads((folder / "tokenizer.json").read_text())
    state["post_processor"]["single"][0]["SpecialToken"]["id"] = "[BOS]"
    (folder / "tokenizer.json").write_text(json.dumps(state))


def unknown(folder: Path) -> None:
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["unk_token"] = "<unk>"
    (folder / "tokenizer.json").write_text(json.dumps(state))


def huge_id(folder: Path) -> None:
    """The tokenizers library would count to it, and write down each id that is not there."""
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["vocab"]["of"] = 2**31 - 1
    (folder / "tokenizer.json").write_text(json.dumps(state))


def one_id(folder: Path) -> None:
    """Reading and writing the file, the tokenizers library keeps either token, by chance."""
    state = json.loads((folder / "tokenizer.json").read_text())
    state["model"]["vocab"]["and"] = state["model"]["vocab"]["of"]
    (folder / "tokenizer.json").write_text(json.dumps(state))


def segments(folder: Path) -> None:
    """The last token of a pair in the first segment, where BERT's class has it in the second."""
    state = json.loads((folder / "tokenizer.json").read_text())
    state["post_processor"]["pair"][-1]["SpecialToken"]["type_id"] = 0
    (folder / "tokenizer.json").write_text(json.dumps(state))


def pointer(name: str) -> Callable[[Path], None]:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90868376\n"

    def damage(folder: Path) -> None:
        (folder / name).write_text(text)

    return damage


BROKEN: dict[str, tuple[Callable[[Path], None], str]] = {
    "config": (deep("config.json"), "config.json.*nested too deeply"),
    "modules": (deep("modules.json"), "modules.json.*nested too deeply"),
    "transformer": (deep("sentence_bert_config.json"), "sentence_bert_config.json.*nested"),
    "tokenizer": (deep("tokenizer.json"), "tokenizer.json.*nested too deeply"),
    "pooling": (deep("1_Pooling/config.json"), "1_Pooling/config.json.*nested too deeply"),
    "header": (header, "model.safetensors.*nested too deeply"),
    "index": (index, "model.safetensors.index.json.*nested too deeply"),
    "panic": (template, "tokenizer.json is not a tokenizer .* can use: no entry found for key"),
    "no unknown token": (unknown, "tokenizer.json cannot tokenize a text"),
    "heads": (lambda folder: change_json(folder / "config.json", num_attention_heads=0), "num_attention_heads is 0"),
    "layers": (lambda folder: change_json(folder / "config.json", num_hidden_layers=2**62), "39 tensors"),
    "another sep_token": (
        lambda folder: change_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", sep_token="the"),
        r"makes \['\[CLS\]', 'a', '\[SEP\]'\] .* of 'a' alone and as a pair, and \['\[CLS\]', 'a', 'the'\]",
    ),
    "a cls_token that is no token": (
        lambda folder: change_json(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", cls_token="[X]"),
        "of 'a' alone and as a pair, and \\['\\[X\\]', 'a', '\\[SEP\\]'\\] .* tokens that its BertTokenizer has",
    ),
    "two tokens of one id": (one_id, "'of' and 'and' have one id, 7"),
    "id": (huge_id, "the id of 'of' is 2147483647, not a number from 0 to 16777215"),
    "segments": (segments, r"in segments \[0, 0, 0, 1, 0\] of .* in segments \[0, 0, 0, 1, 1\] with"),
    "class": (
        lambda folder: change_json(folder / "config_sentence_transformers.json", model_type={}),
        "says that this is a {}",
    ),
    "truncation": (lambda folder: change_json(folder / "tokenizer.json", truncation="x"), "truncation is 'x'"),
    "surrogate": (
        lambda folder: change_json(folder / "config_sentence_transformers.json", prompts={"query": "\ud800"}),
        "config_sentence_transformers.json is not readable JSON",
    ),
    "pointer of weights": (pointer("model.safetensors"), "model.safetensors is a git-lfs pointer"),
    "pointer of a tokenizer": (pointer("tokenizer.json"), "tokenizer.json is a git-lfs pointer"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_named_in_one_sentence(tmp_path: Path, name: str) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    damage, words = BROKEN[name]
    damage(folder)
    with pytest.raises(OnnxEmbedError, match=words) as caught:
        export(folder, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    assert not (tmp_path / "out").exists()


def test_architectures_of_another_type_name_no_class(tmp_path: Path) -> None:
    export(write_sentence_bert(tmp_path / "model", architectures=255), tmp_path / "out")


def test_the_home_of_somebody_unknown_is_a_usage_error() -> None:
    with pytest.raises(UsageError, match="no folder at ~nosuchuser/model"):
        OnnxEmbedder("~nosuchuser/model")


def test_added_tokens_without_a_row_are_named_when_the_model_is_exported(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    state = json.loads((folder / "tokenizer.json").read_text())
    added = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    # The library numbers added tokens itself: the first takes the id that "a", which VOCAB has twice, leaves free.
    for number, token in ((len(VOCAB) - 1, "<boi>"), (len(VOCAB), "<image_soft_token>")):
        state["added_tokens"].append({"id": number, "content": token, **added})
    (folder / "tokenizer.json").write_text(json.dumps(state))
    with pytest.warns(UserWarning, match=rf"^1 added token has no row .*'<image_soft_token>' \({len(VOCAB)}\)"):
        manifest = export(folder, tmp_path / "out")
    assert any("<image_soft_token>" in change for change in manifest.tokenization.changes)
    with OnnxEmbedder(tmp_path / "out", providers="cpu") as model:
        assert model.encode(["the cat"]).shape == (1, 32)
        message = (
            f"a text has the token '<image_soft_token>' with id {len(VOCAB)}, for which the model's table has no row"
        )
        for texts in (["the <image_soft_token> cat"], ["the cat", "a", "of <image_soft_token>", "the"]):
            with pytest.raises(UsageError, match=f"^{message}$"):
                model.encode(texts)


def test_the_vocabulary_of_another_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"tokens without a row in the table of 60 .*another model's vocabulary"):
        export(write_sentence_bert(tmp_path / "model", vocab_size=60), tmp_path / "out")
