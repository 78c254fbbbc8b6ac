"""Integer rerankers and sparse models: measured by the order of scores and by the weights, with a floor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from foreign import command
from onnxembed import OnnxEmbedder, OnnxReranker
from onnxembed.decisions.flags import Flags
from onnxembed.errors import UnsupportedError, UsageError, VerificationError
from onnxembed.export.pipeline import export
from onnxembed.export.plan import Options
from onnxembed.export.quantize.calibration_texts import pairs, read_texts
from onnxembed.export.quantize.measures import rank_agreement, weighted_overlaps
from onnxembed.manifest import Precision, Quality, read_manifest
from running import needs_torch
from tiny_heads import write_bge_m3, write_colbert_encoder, write_masked_lm
from tiny_rerankers import write_cross_encoder

pytestmark = pytest.mark.filterwarnings(r"ignore:\d+ of \d+ (texts?|pairs?) (was|were) longer")

INTEGERS: tuple[Precision, ...] = ("int16", "int8", "int8w")
LOOSE = Options(precisions=("fp32", *INTEGERS), min_cosine=0.5, min_agreement=0.2)
SPARSE = replace(LOOSE, flags=Flags(task="sparse"))


@pytest.fixture(scope="module")
def reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reranker")
    write_cross_encoder(folder / "checkpoint")
    export(folder / "checkpoint", folder / "out", LOOSE)
    return folder / "out"


@pytest.fixture(scope="module")
def splade(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("splade")
    write_masked_lm(folder / "checkpoint")
    export(folder / "checkpoint", folder / "out", SPARSE)
    return folder / "out"


def quality_of(folder: Path, precision: Precision) -> Quality:
    quality = read_manifest(folder).variants[precision].quality
    assert quality is not None
    return quality


@pytest.mark.parametrize("precision", INTEGERS)
def test_the_scores_of_pairs_are_measured(reranker: Path, precision: Precision) -> None:
    """The figures, computed again with the public class on the same pairs."""
    quality, held_back = quality_of(reranker, precision), pairs(read_texts(None)[1::2])
    assert (quality.texts, quality.required, quality.min_cosine) == (len(held_back), 0.2, None)
    with OnnxReranker(reranker, precision="fp32") as exact, OnnxReranker(reranker, precision=precision) as model:
        expected, ours = (one.score_pairs(held_back, raw_scores=True) for one in (exact, model))
    assert quality.max_score_diff == pytest.approx(np.abs(ours - expected).max(), rel=1e-2)
    assert quality.rank_agreement == pytest.approx(rank_agreement(ours, expected), abs=5e-3)
    assert quality.max_score_diff
    assert quality.max_score_diff > 0
    assert np.array_equal(ours[:8], np.concatenate([_alone(reranker, precision, pair) for pair in held_back[:8]]))


def _alone(folder: Path, precision: Precision, pair: tuple[str, str]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with OnnxReranker(folder, precision=precision) as model:
        scores: np.ndarray[tuple[int], np.dtype[np.float32]] = model.score_pairs([pair], raw_scores=True)
        return scores


@pytest.mark.exact_bytes
def test_integer_scores_keep_the_order(reranker: Path) -> None:
    agreements = {precision: quality_of(reranker, precision).rank_agreement for precision in INTEGERS}
    assert agreements["int16"] is not None
    assert agreements["int16"] > 0.995
    assert agreements["int8"] is not None
    assert agreements["int8"] > 0.8


@pytest.mark.parametrize("precision", INTEGERS)
def test_the_weights_of_texts_are_measured(splade: Path, precision: Precision) -> None:
    quality, held_back = quality_of(splade, precision), read_texts(None)[1::2]
    assert (quality.texts, quality.required) == (len(held_back), 0.5)
    with OnnxEmbedder(splade, precision="fp32") as exact, OnnxEmbedder(splade, precision=precision) as model:
        expected, ours = (_rows(one, held_back) for one in (exact, model))
    assert quality.min_overlap == pytest.approx(
        min(np.minimum(a, b).sum() / np.maximum(a, b).sum() for a, b in zip(ours, expected, strict=True)), abs=1e-4
    )
    dots, true_dots = ours @ ours.T, expected @ expected.T
    assert quality.max_dot_change == pytest.approx(np.abs(dots - true_dots).max() / true_dots.max(), abs=1e-3)
    cosines = (ours * expected).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(expected, axis=1)
    assert quality.min_cosine == pytest.approx(cosines.min(), abs=1e-5)


def _rows(model: OnnxEmbedder, texts: list[str]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    rows = np.zeros((len(texts), model.dimension), np.float32)
    for row, embedding in zip(rows, model.embed_sparse(texts), strict=True):
        row[embedding.indices] = embedding.values
    return rows


@pytest.mark.exact_bytes
def test_integer_weights_are_near(splade: Path) -> None:
    qualities = {precision: quality_of(splade, precision) for precision in INTEGERS}
    assert qualities["int16"].min_overlap is not None
    assert qualities["int16"].min_overlap > 0.999
    assert qualities["int8"].min_overlap is not None
    assert qualities["int8"].min_overlap > 0.8


@pytest.mark.parametrize("precision", ["int8", "int8w"])
def test_a_floor_that_is_not_reached_leaves_nothing(tmp_path: Path, precision: Precision) -> None:
    write_cross_encoder(tmp_path / "pairs")
    options = Options(precisions=(precision,), min_agreement=1)
    with pytest.raises(
        VerificationError, match=r"scores are too far .* rank agreement 0\.\d+ over \d+ pairs, at least 1 "
    ):
        export(tmp_path / "pairs", tmp_path / "out", options)
    write_masked_lm(tmp_path / "weights")
    options = Options(precisions=(precision,), min_cosine=1, flags=Flags(task="sparse"))
    with pytest.raises(VerificationError, match=r"sparse embeddings are too far .* min cosine 0\.\d+ .* --min-cosine"):
        export(tmp_path / "weights", tmp_path / "out", options)
    assert not (tmp_path / "out").exists()
    with pytest.raises(UsageError, match=r"--min-agreement: 2 is not a rank agreement"):
        export(tmp_path / "pairs", tmp_path / "out", Options(precisions=(precision,), min_agreement=2))


def test_what_has_no_integer_form_says_what_to_do(tmp_path: Path) -> None:
    for write, end in (
        (write_colbert_encoder, "use fp16$"),
        (write_bge_m3, "use fp16; --task embedding makes .* alone$"),
    ):
        write(tmp_path / "model")
        with pytest.raises(UnsupportedError, match=f"--precision int8: the cost of rounding is not measured .* {end}"):
            export(tmp_path / "model", tmp_path / "out", Options(precisions=("int8",)))


def test_rank_agreement_is_kendalls() -> None:
    """Against the counts of pairs in Kendall's own definition, ties included."""
    rng = np.random.default_rng(0)
    ours, theirs = rng.integers(0, 9, (2, 30)).astype(np.float32)
    concordant = discordant = ties_ours = ties_theirs = 0
    for i in range(30):
        for j in range(i):
            product = (ours[i] - ours[j]) * (theirs[i] - theirs[j])
            concordant, discordant = concordant + (product > 0), discordant + (product < 0)
            ties_ours, ties_theirs = ties_ours + (ours[i] == ours[j]), ties_theirs + (theirs[i] == theirs[j])
    total = 30 * 29 / 2
    expected = (concordant - discordant) / np.sqrt((total - ties_ours) * (total - ties_theirs))
    assert rank_agreement(ours, theirs) == pytest.approx(expected)
    assert rank_agreement(theirs, theirs) == pytest.approx(1)
    assert rank_agreement(-theirs, theirs) == pytest.approx(-1)


def test_overlaps_are_weighted_jaccard_indices() -> None:
    ours = np.array([[1, 0, 2], [0, 0, 0], [1, 1, 0]], np.float32)
    theirs = np.array([[1, 1, 1], [0, 0, 0], [0, 0, 3]], np.float32)
    assert weighted_overlaps(ours, theirs).tolist() == [2 / 4, 1, 0]


@needs_torch
@pytest.mark.torch
def test_inspect_and_verify_show_the_figures(reranker: Path, splade: Path) -> None:
    printed = command("inspect", reranker)
    assert "pairs: rank agreement 0." in printed
    assert "largest difference of a logit" in printed
    assert "dot products off by" in command("inspect", splade)
    for folder in (reranker, splade):
        assert "int8w" in command("verify", folder)
