"""The recipe book is valid and sourced; recipes are chosen by id or name, rank between flags and files, and are checked
against published numbers."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from decided import decide_embedding, decide_encoder
from hub_server import HubServer
from onnxembed import OnnxEmbedder
from onnxembed.cli import main
from onnxembed.decisions.decide import decide
from onnxembed.decisions.flags import Flags
from onnxembed.errors import ModelFilesError, RecipeError, UnsupportedError, UsageError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.export.tokenizer.files import write_tokenizer
from onnxembed.facts.facts import read_facts
from onnxembed.hub.source import HubOptions
from onnxembed.manifest import Decision, read_manifest
from onnxembed.recipes import book as recipes
from onnxembed.recipes.book import find_recipe, read_recipe, recipe_names
from onnxembed.recipes.recipe import GoldenVectors, Recipe
from onnxembed.tokenizer.end_token import append_end_token
from tiny import VOCAB, change_json, write_bert, write_sentence_bert

ROOT = Path(__file__).parents[2]
MINILM = ROOT / "models/all-MiniLM-L6-v2"
BOOK = recipe_names()
WHY = 'reason = "because"\nsource = "a card"\n'

# Published models whose own files are in the founding documents' data, and the folder of each there.
AT_HAND = {
    "bge-m3": "bge-m3",
    "embeddinggemma-300m": "embeddinggemma-300m",
    "gte-large-en-v1.5": "gte-large-en-v1.5",
    "multilingual-e5-base": "multilingual-e5-base",
    "multilingual-e5-large-instruct": "multilingual-e5-large-instruct",
    "bge-reranker-base": "bge-reranker-base",
    "bge-reranker-v2-m3": "bge-reranker-v2-m3",
    "gte-reranker-modernbert-base": "gte-reranker-modernbert-base",
    "ms-marco-MiniLM-L6-v2": "ms-marco-MiniLM-cross-encoder/L-6-v2",
    "ms-marco-MiniLM-L12-v2": "ms-marco-MiniLM-cross-encoder",
}

# Copies of a model under another id, for which numbers were published.
COPIES = {
    "cross-encoder/ms-marco-MiniLM-L6-v2": "Xenova/ms-marco-MiniLM-L-6-v2",
    "cross-encoder/ms-marco-MiniLM-L12-v2": "Xenova/ms-marco-MiniLM-L-12-v2",
}


# What published models make, as their pages say: one for each way in which a recipe shows it.
TASKS = {
    "Qwen3-Reranker-0.6B": ("reranking",),  # a fact
    "splade-v3": ("sparse",),  # a fact, beside published similarities
    "bge-m3": ("embedding", "sparse", "multi_vector"),  # published similarities of three kinds
    "colbertv2.0": ("multi_vector",),
    "mxbai-embed-large-v1": ("embedding",),  # published vectors
    "bge-reranker-base": ("reranking",),  # published scores
    "stella_en_1.5B_v5": ("embedding",),  # facts of embedders, and no numbers
}


@pytest.fixture
def book(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty book in place of the real one."""
    folder = tmp_path / "book"
    folder.mkdir()
    monkeypatch.setattr(recipes, "BOOK", folder)
    return folder


def write(book: Path, text: str, name: str = "tiny", checked: str = "files: made for the test") -> Recipe:
    head = f'model = "org/{name}"\nchecked = "{checked}"\n'
    (book / f"{name}.toml").write_text(head + text, encoding="utf-8")
    return read_recipe(name)


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as end:
        main([str(argument) for argument in arguments])
    assert isinstance(end.value.code, int)
    return end.value.code


# ---- the book


def test_the_book_has_the_models_that_people_ask_for() -> None:
    assert len(BOOK) >= 30
    assert set(AT_HAND) <= set(BOOK)


@pytest.mark.parametrize("name", BOOK)
def test_every_recipe_is_valid_and_found_by_its_hub_id(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    assert find_recipe(recipe.model.upper()) == recipe
    assert all(golden.source for golden in recipe.golden)


@pytest.mark.parametrize("name", BOOK)
def test_golden_texts_have_no_prompt_or_one_that_the_model_has(name: str, shared_data: Path) -> None:
    recipe = read_recipe(name)
    prompts = {"", *(recipe.prompts.value.values() if recipe.prompts else ())}
    if name in AT_HAND:
        prompts |= set(read_facts(shared_data / "configs" / AT_HAND[name]).prompts.values())
    assert {prompt for pair in recipe.similarities for prompt in (pair.query_prompt, pair.document_prompt)} <= prompts


@pytest.mark.parametrize("name", BOOK)
def test_golden_numbers_are_those_that_were_published(name: str, shared_data: Path) -> None:
    published = json.loads((shared_data / "golden.json").read_text(encoding="utf-8"))
    model = read_recipe(name).model
    names = (model, COPIES.get(model))
    numbers = [json.dumps(entry["values"]) for entry in published if entry["model"] in names]
    for golden in read_recipe(name).golden:
        assert all(any(json.dumps(row)[1:-1] in number for number in numbers) for row in golden.values), golden


@pytest.mark.parametrize("name", BOOK)
def test_a_recipe_is_checked_only_where_its_files_were_at_hand(name: str) -> None:
    assert read_recipe(name).is_checked == (name in AT_HAND or name == "all-MiniLM-L6-v2")


@pytest.mark.parametrize("name", AT_HAND)
def test_a_checked_recipe_says_nothing_that_the_files_say(name: str, shared_data: Path) -> None:
    recipe, facts = read_recipe(name), read_facts(shared_data / "configs" / AT_HAND[name])
    assert not recipe.prompts or not {key for key, text in facts.prompts.items() if text} & recipe.prompts.value.keys()
    assert not (recipe.pooling and facts.post.poolings)
    assert not (recipe.normalize and facts.has_modules)
    assert recipe.attention is None


# ---- choosing


def test_a_recipe_is_chosen_by_its_whole_id_and_never_by_half_of_it(book: Path) -> None:
    recipe = write(book, "")
    assert find_recipe("org/tiny") == find_recipe("ORG/Tiny") == recipe
    assert [find_recipe(model) for model in ("tiny", "other/tiny", "org/tin", "org/tiny-2")] == [None] * 4
    assert read_recipe("org/tiny") == recipe


@pytest.mark.parametrize("name", ["small", "../tiny", "org/small", "Tiny"])
def test_a_name_that_is_not_in_the_book_is_an_error(book: Path, name: str) -> None:
    write(book, "")
    with pytest.raises(UsageError, match=r"there are: tiny|onnxembed recipes"):
        read_recipe(name)


def test_a_folder_has_a_recipe_only_when_it_is_named(book: Path, tmp_path: Path) -> None:
    write(book, f"[pooling]\nvalue = ['cls']\n{WHY}\n[normalize]\nvalue = true\n{WHY}")
    folder = write_bert(tmp_path / "org/tiny")
    with pytest.raises(ModelFilesError, match="--pooling"):
        export(folder, tmp_path / "out")
    manifest = export(folder, tmp_path / "out", Options(recipe="tiny"))
    assert manifest.source.recipe == "tiny"
    assert manifest.require_embedding().pooling == Decision(("cls",), "recipe", "tiny.toml: because")
    assert manifest.require_embedding().normalize == Decision(True, "recipe", "tiny.toml: because")
    assert read_manifest(tmp_path / "out") == manifest


@pytest.mark.hub
def test_a_hub_model_has_its_recipe_without_being_asked(
    book: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(book, f"[prompts]\n{WHY}[prompts.value]\nquery = 'to be: '\n")
    with HubServer({}) as hub:
        hub.answer(monkeypatch)
        hub.push("Org/tiny", write_sentence_bert(tmp_path / "tiny"))
        hub.push("org/other", write_sentence_bert(tmp_path / "other"))
        manifest = export("Org/tiny", tmp_path / "out", hub=HubOptions(cache_dir=tmp_path / "cache"))
        other = export("org/other", tmp_path / "plain", hub=HubOptions(cache_dir=tmp_path / "cache"))
    assert manifest.source.recipe == "tiny"
    assert manifest.prompts.texts.value == {"query": "to be: "}
    assert other.source.recipe is None


# ---- what wins


def test_files_win_over_the_recipe_and_flags_over_both(book: Path, tmp_path: Path) -> None:
    recipe = write(book, f"[pooling]\nvalue = ['cls']\n{WHY}\n[normalize]\nvalue = false\n{WHY}")
    complete, silent = write_sentence_bert(tmp_path / "said"), write_bert(tmp_path / "silent")
    assert decide_embedding(complete, recipe).pooling.value == ("mean",)
    assert decide_embedding(complete, recipe).normalize.origin == "file"
    assert decide_embedding(silent, recipe).pooling.origin == "recipe"
    assert decide_embedding(silent, recipe).normalize == Decision(False, "recipe", "tiny.toml: because")
    embedding = decide_embedding(silent, recipe, pooling=("max",), normalize=True)
    assert (embedding.pooling.origin, embedding.normalize.origin) == ("flag", "flag")


def test_attention_is_the_flags_then_the_recipes_then_the_files(book: Path, tmp_path: Path) -> None:
    recipe = write(book, f"[attention]\nvalue = 'bidirectional'\n{WHY}")
    folder = write_sentence_bert(tmp_path, model_type="qwen2", is_causal=True)
    assert decide_encoder(folder, recipe).attention == Decision("bidirectional", "recipe", "tiny.toml: because")
    assert decide_encoder(folder, recipe, attention="causal").attention == Decision("causal", "flag", "--attention")
    assert decide_encoder(folder).attention.origin == "file"


def test_a_recipes_prompt_fills_a_name_that_the_files_lack_or_leave_empty(book: Path, tmp_path: Path) -> None:
    recipe = write(book, f"[prompts]\n{WHY}[prompts.value]\nquery = 'q: '\ndocument = 'd: '\nsts = 's: '\n")
    folder = write_sentence_bert(tmp_path, prompts={"query": "to be: ", "document": "", "title": "of: "})
    assert decide_encoder(folder, recipe).prompts.texts == Decision(
        {"query": "to be: ", "document": "d: ", "title": "of: ", "sts": "s: "},
        "recipe",
        "tiny.toml says document, sts: because",
    )
    full = {"query": "to ", "document": "of ", "sts": "as "}
    assert decide_encoder(write_sentence_bert(tmp_path, prompts=full), recipe).prompts.texts.origin == "file"


def test_a_precision_that_a_model_does_not_tolerate_is_not_built(book: Path, tmp_path: Path) -> None:
    write(book, f"[[refused]]\nprecision = 'fp16'\n{WHY}")
    folder = write_sentence_bert(tmp_path / "model")
    with pytest.raises(UnsupportedError, match="cannot be run in fp16: because"):
        export(folder, tmp_path / "out", Options(precisions=("fp32", "fp16"), recipe="tiny"))
    assert not (tmp_path / "out").exists()
    export(folder, tmp_path / "out", Options(recipe="tiny"))


# ---- closed


def test_all_problems_of_a_file_are_reported_at_once(book: Path) -> None:
    text = f"poling = 'cls'\n[attention]\nvalue = 'both'\n{WHY}[prompts]\n{WHY}value = 1\n[end_token]\nvalue = '</s>'\n"
    with pytest.raises(RecipeError) as caught:
        write(book, text)
    for part in ("tiny.toml", "poling is unknown", "attention.value is 'both'", "prompts.value is 1"):
        assert part in str(caught.value)
    assert "end_token.reason is missing" in str(caught.value)
    assert "end_token.source is missing" in str(caught.value)


VECTORS = "[[vectors]]\ntexts = ['a']\nvalues = [[1.0, 2.0]]\n"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[pooling]\nvalue = ['cls']\nreason = ''\nsource = 'a card'", "pooling has an empty reason or source"),
        ("[[refused]]\nprecision = 'fp16'\nreason = 'because'\nsource = ''", "refused fp16 has an empty"),
        ("[[refused]]\nprecision = 'fp8'\nreason = 'because'\nsource = 'a card'", "precision is 'fp8'"),
        (f"[prompts]\n{WHY}[prompts.value]\nquery = ''", "prompts has an empty text"),
        (VECTORS + "atol = 0.1\nsource = ''", r"vectors\[0\].source is empty"),
        (VECTORS + "source = 'a card'", "does not set exactly one of atol, rtol and min_cosine"),
        (VECTORS + "source = 'a card'\natol = 0.1\nrtol = 0.1", "does not set exactly one of"),
        (VECTORS.replace("['a']", "['a', 'b']") + "source = 'a card'\natol = 0.1", "does not have one row"),
        (
            VECTORS.replace("['a']", "[]").replace("[1.0, 2.0]", "") + "source = 'a card'\natol = 0.1",
            "does not have one row",
        ),
        (
            "[[similarities]]\nqueries = ['a']\ndocuments = ['b']\nvalues = [[1, 2]]\nsource = 'a card'\natol = 0.1",
            r"similarities\[0\].values does not have one row",
        ),
        ("= 1", "not readable TOML"),
    ],
)
def test_a_recipe_that_says_too_little_or_too_much_is_refused(book: Path, text: str, problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        write(book, text)


def test_a_recipe_says_how_it_was_checked_and_is_named_after_its_model(book: Path) -> None:
    with pytest.raises(RecipeError, match="checked begins with neither"):
        write(book, "", checked="surely")
    (book / "big.toml").write_text('model = "org/tiny"\nchecked = "files: all"\n', encoding="utf-8")
    with pytest.raises(RecipeError, match="not organization/big"):
        read_recipe("big")


# ---- end tokens


def tokenizer_state(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    return state


def ids(state: dict[str, Any], text: str) -> list[int]:
    encoded: list[int] = Tokenizer.from_str(json.dumps(state)).encode(text).ids
    return encoded


def test_gte_qwen2_ends_texts_with_its_end_token(shared_data: Path) -> None:
    state = tokenizer_state(shared_data / "configs/qwen2-stella_en_1.5B_v5")
    token = read_recipe("gte-Qwen2-1.5B-instruct").end_token
    assert token
    assert ids(state, "Hello world") == [9707, 1879]
    assert append_end_token(state, token.value)
    assert ids(state, "Hello world") == [9707, 1879, 151643]
    assert ids(state, "") == [151643]
    assert not append_end_token(state, token.value)


@pytest.mark.parametrize("side", ["left", "right"])
def test_truncation_keeps_the_end_token(tmp_path: Path, side: str) -> None:
    folder = write_sentence_bert(tmp_path / "model")
    state = tokenizer_state(folder)
    change_json(folder / "tokenizer_config.json", truncation_side=side, add_eos_token=True, eos_token="[MASK]")
    facts = read_facts(folder)
    (tmp_path / "out").mkdir()
    changes = write_tokenizer(facts, decide(facts, Flags(max_length=5)).encoder, tmp_path / "out")
    assert "[MASK] added to the end of every text (tokenizer_config.json: add_eos_token)" in changes
    cut = ids(tokenizer_state(tmp_path / "out"), "the of and to in")
    words = ["the", "of"] if side == "right" else ["to", "in"]
    assert cut == [VOCAB.index(token) for token in ("[CLS]", *words, "[SEP]", "[MASK]")]
    assert ids(state, "the")[-1] == VOCAB.index("[SEP]")


@pytest.mark.parametrize(
    "processor",
    [
        None,
        {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        {"type": "Sequence", "processors": []},
        {"type": "Sequence", "processors": [{"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]}]},
        ...,
    ],
)
def test_any_post_processor_can_be_completed(tmp_path: Path, processor: Any) -> None:
    state = tokenizer_state(write_bert(tmp_path))
    if processor is not ...:
        state["post_processor"] = processor
    before, pair = ids(state, "the of"), Tokenizer.from_str(json.dumps(state)).encode("the", "of").ids
    assert append_end_token(state, "[MASK]")
    assert ids(state, "the of") == [*before, VOCAB.index("[MASK]")]
    assert Tokenizer.from_str(json.dumps(state)).encode("the", "of").ids == [*pair, VOCAB.index("[MASK]")]


def test_padding_does_not_hide_the_last_token(tmp_path: Path) -> None:
    state = tokenizer_state(write_bert(tmp_path))
    tokenizer = Tokenizer.from_str(json.dumps(state))
    tokenizer.enable_padding(length=30)
    assert not append_end_token(json.loads(tokenizer.to_str()), "[SEP]")


def test_an_end_token_outside_the_vocabulary_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match="vocabulary does not have"):
        append_end_token(tokenizer_state(write_bert(tmp_path)), "</s>")


def test_a_recipes_end_token_is_recorded_and_embedded(book: Path, tmp_path: Path) -> None:
    write(book, f"[end_token]\nvalue = '[MASK]'\n{WHY}")
    folder = write_sentence_bert(tmp_path / "model", pooling="lasttoken")
    manifest = export(folder, tmp_path / "out", Options(recipe="tiny"))
    assert "[MASK] added to the end of every text (tiny.toml: because)" in manifest.tokenization.changes
    with OnnxEmbedder(tmp_path / "out") as model:
        assert model.tokenize("the cat").ids[-1] == VOCAB.index("[MASK]")


def test_a_required_end_token_without_a_name_is_an_error(tmp_path: Path) -> None:
    folder = write_sentence_bert(tmp_path)
    change_json(folder / "tokenizer_config.json", add_eos_token=True)
    with pytest.raises(ModelFilesError, match="add_eos_token is true, but eos_token is None"):
        decide_encoder(folder)


@pytest.mark.torch
def test_verification_follows_the_recipe_where_the_reference_cannot_know_it(book: Path, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from onnxembed.verify.verify import verify

    write(
        book,
        f"[pooling]\nvalue = ['lasttoken']\n{WHY}[normalize]\nvalue = true\n{WHY}[end_token]\nvalue = '[MASK]'\n{WHY}"
        f"[prompts]\n{WHY}[prompts.value]\nquery = 'to be: '\n",
    )
    folder = write_bert(tmp_path / "model")
    export(folder, tmp_path / "out", Options(recipe="tiny"))
    assert verify(tmp_path / "out").verification["fp32"].max_abs_diff < 1e-5


# ---- the command line


def test_recipes_lists_the_book(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(BOOK)
    line = next(line for line in lines if line.startswith("Alibaba-NLP/gte-Qwen2-1.5B-instruct: "))
    for part in ("unchecked", "attention bidirectional", "end token <|endoftext|>", "prompts query", "no fp16"):
        assert part in line


@pytest.mark.parametrize("name", ["embeddinggemma-300m", "google/embeddinggemma-300m"])
def test_recipes_prints_one_recipe(capsys: pytest.CaptureFixture[str], name: str) -> None:
    assert run("recipes", name) == 0
    out = capsys.readouterr().out
    for part in ("google/embeddinggemma-300m (embeddinggemma-300m.toml)", "files: ", "not built: fp16", "  because "):
        assert part in out


def test_recipes_refuses_an_unknown_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("recipes", "gte") == 2
    assert "there is no recipe 'gte'" in capsys.readouterr().err


def golden(model: OnnxEmbedder, off: float = 0.0) -> str:
    """A recipe with numbers of every kind, the similarities `off` the artifact's own."""
    queries, documents = model.encode(["the", "of"], prompt="to "), model.encode(["cat"], prompt="")
    vectors = model.encode(["a", "is"], prompt="")[:, :4]
    similarities = (queries @ documents.T * 100 + off).tolist()
    return (
        f"[[vectors]]\ntexts = ['a', 'is']\nvalues = {vectors.tolist()}\natol = 1e-5\nsource = 'a card'\n"
        f"[[vectors]]\ntexts = ['a', 'is']\nvalues = {(vectors * 9).tolist()}\nmin_cosine = 0.9999\nsource = 'a card'\n"
        f"[[similarities]]\nqueries = ['the', 'of']\nquery_prompt = 'to '\ndocuments = ['cat']\n"
        f"values = {similarities}\nscale = 100\nrtol = 1e-4\nsource = 'a page'\n"
    )


def test_verify_golden_prints_every_number_with_its_tolerance(
    book: Path, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(book, "")
    assert run("export", checkpoint, "--recipe", "tiny", "--no-verify", "-o", tmp_path / "out") == 0
    capsys.readouterr()
    assert run("verify", tmp_path / "out", "--golden") == 2
    assert "tiny.toml has no published numbers" in capsys.readouterr().err
    with OnnxEmbedder(tmp_path / "out") as model:
        write(book, golden(model))
        assert run("verify", tmp_path / "out", "--golden") == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(":")[0] for line in lines] == ["ok"] * 3
        assert "the first 4 numbers of 2 vectors: max abs difference" in lines[0]
        assert "(at most 1e-05); a card" in lines[0]
        assert "min cosine 1.000000 (at least 0.9999)" in lines[1]
        assert "the similarity of 2 queries and 1 document: max relative difference" in lines[2]
        write(book, golden(model, off=1.0))
    assert run("verify", tmp_path / "out", "--golden") == 1
    out, err = capsys.readouterr()
    assert [line.split(":")[0] for line in out.splitlines()] == ["ok", "ok", "OFF"]
    assert "1 of the published numbers are not met" in err


def test_verify_golden_needs_a_recipe(
    artifact: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run("verify", artifact, "--golden") == 2
    assert "onnxembed export FOLDER --recipe NAME" in capsys.readouterr().err
    assert run("verify", artifact, "--golden", "--against", "org/tiny") == 2
    assert "leave out --against" in capsys.readouterr().err


@pytest.mark.skipif(not MINILM.is_dir(), reason="needs scripts/models/get_minilm.py's folder")
def test_the_real_minilm_meets_its_published_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export(MINILM, tmp_path / "out", Options(recipe="all-MiniLM-L6-v2"))
    assert run("verify", tmp_path / "out", "--golden") == 0
    assert capsys.readouterr().out.count("ok: ") == len(read_recipe("all-MiniLM-L6-v2").golden) >= 2


# ---- the prompts of a recipe, embedded


def test_a_model_with_prompts_of_its_recipe_says_that_it_expects_them(book: Path, tmp_path: Path) -> None:
    write(book, f"[prompts]\n{WHY}[prompts.value]\nquery = 'to '\ndocument = 'of '\n")
    folder = write_sentence_bert(tmp_path / "model")
    export(folder, tmp_path / "out", Options(recipe="tiny"))
    with OnnxEmbedder(tmp_path / "out") as model:
        with pytest.warns(UserWarning, match="expects a prompt"):
            plain = model.encode("the")
        np.testing.assert_array_equal(plain, model.encode("the", prompt=""))
        np.testing.assert_array_equal(model.encode_document("the"), model.encode("of the", prompt=""))


# ---- the wheel


def test_the_wheel_carries_the_book(tmp_path: Path) -> None:
    pytest.importorskip("hatchling")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "dist")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    program = "from onnxembed.recipes.book import BOOK, recipe_names; print(BOOK.name, len(recipe_names()))"
    process = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(tmp_path / "site")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert process.stdout == f"data {len(BOOK)}\n"


def test_golden_vectors_of_fastembed_are_compared_as_it_scales_them() -> None:
    scaled = [
        golden
        for name in BOOK
        for golden in read_recipe(name).golden
        if isinstance(golden, GoldenVectors) and golden.normalize
    ]
    assert scaled
    assert all("fastembed" in golden.source for golden in scaled)


@pytest.mark.parametrize("name", TASKS)
def test_a_recipe_shows_the_tasks_of_its_model(name: str) -> None:
    assert read_recipe(name).tasks == TASKS[name]


def test_a_recipe_without_a_fact_or_a_number_shows_no_task(book: Path) -> None:
    refused = '[[refused]]\nprecision = "fp16"\nreason = "r"\nsource = "s"\n'
    assert write(book, refused).tasks == ()
