"""The page at `/`, in a headless browser: it shows the model's numbers, fits every screen, and needs no mouse."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("msgspec", reason="pip install 'onnxembed[serve]'")
playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")

from onnxembed import OnnxEmbedder, OnnxReranker
from serving import on_a_thread

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")

TEXTS = ["the cat sleeps", "a kitten sleeps", "banks", "<b>&amp; 日本 \U0001f642</b>"]


@pytest.fixture(scope="module")
def address(artifact: Path, reranker: Path) -> Iterator[str]:
    with on_a_thread(f"tiny={artifact}", f"ranker={reranker}") as (_, port):
        yield f"http://127.0.0.1:{port}/"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as runner:
        browser = runner.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(browser: Any, address: str, width: int = 1200, scheme: str = "light") -> tuple[Any, list[str]]:
    """The page, and what its console has to complain of."""
    complaints: list[str] = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda said: complaints.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(address)
    page.wait_for_selector("#embed:not([hidden])")
    return page, complaints


def numbers(page: Any) -> list[list[float]]:
    rows: list[list[float]] = page.eval_on_selector_all(
        ".heat tbody tr", "rows => rows.map(row => [...row.querySelectorAll('td')].map(cell => +cell.textContent))"
    )
    return rows


def test_the_heat_map_has_the_cosines_of_the_models_vectors(browser: Any, address: str, artifact: Path) -> None:
    page, complaints = opened(browser, address)
    page.fill("#texts", "\n".join(TEXTS))
    page.click("#embed button")
    page.wait_for_selector(".heat")
    vectors = OnnxEmbedder(artifact).encode(TEXTS)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert np.allclose(numbers(page), vectors @ vectors.T, atol=0.0051)
    assert page.locator(".lines th").all_inner_texts()[0].endswith("tokens")
    assert "tokens; tokenized in" in page.inner_text("#said")
    assert TEXTS[3] in page.locator(".heat th").all_inner_texts()[-1]
    assert complaints == []
    page.close()


def test_a_list_is_ranked_as_the_library_ranks_it(browser: Any, address: str, reranker: Path) -> None:
    page, complaints = opened(browser, address)
    page.select_option("#model", "ranker")
    page.fill("#query", "the cat")
    page.fill("#documents", "\n".join(TEXTS))
    page.click("#rank button")
    page.wait_for_selector("#results td")
    cells = page.locator("#results td").all_inner_texts()
    scores = OnnxReranker(reranker).score("the cat", TEXTS)
    order = np.argsort(-scores, kind="stable")
    assert cells[1::2] == [TEXTS[place] for place in order]
    assert np.allclose([float(each) for each in cells[::2]], scores[order], atol=1e-4)
    assert complaints == []
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1200])
def test_it_fits_the_screen_in_both_schemes(browser: Any, address: str, width: int, scheme: str) -> None:
    page, complaints = opened(browser, address, width, scheme)
    page.fill("#texts", "\n".join([*TEXTS * 5, "long " * 200]))
    page.click("#embed button")
    page.wait_for_selector(".heat")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    brightness = sum(map(int, background.removeprefix("rgb(").removesuffix(")").split(",")))
    assert (brightness > 380) == (scheme == "light")
    assert complaints == []
    page.close()


def test_everything_can_be_done_with_the_keyboard(browser: Any, address: str) -> None:
    page, _ = opened(browser, address)
    reached = []
    for _ in range(6):
        page.keyboard.press("Tab")
        reached.append(page.evaluate("document.activeElement.id || document.activeElement.textContent"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") != "none"
    assert reached == ["model", "prompt", "key", "texts", "Compare", "decisions"]
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.wait_for_selector(".heat")
    assert page.get_attribute("#said", "aria-live") == "polite"
    page.close()


def test_what_the_server_refuses_is_said(browser: Any, address: str) -> None:
    page, _ = opened(browser, address)
    page.fill("#texts", " \n ")
    page.click("#embed button")
    assert page.inner_text("#said") == "Give a text."
    page.fill("#texts", "a" * (2**20 + 1))
    page.click("#embed button")
    page.wait_for_function("document.getElementById('said').textContent.includes('split it')")
    assert page.get_attribute("#said", "class") == "bad"
    page.close()
