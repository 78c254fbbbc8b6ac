"""The page says what the report says, and nothing in it is loaded or run."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from onnxembed.explain.page import page, write_page
from onnxembed.explain.report import Cause, Report, Row, Tried

CAUSE = Cause("pooling", "use the first token (CLS)", "use the mean", {"FastEmbed": "a <graph> & more"})
ROWS = (
    Row(0, 4, 0.5, 0.999999, "a <script>alert(1)</script> text", (1.0, 2.5), ("[CLS]", "<b>")),
    Row(1, 40, 0.9, 0.9999999, "a longer text", (1.0, 3.5), ("[CLS]",)),
)


def report(measure: str = "cosine", *, explained: bool = True) -> Report:
    return Report(
        verdict="Their results use the first token (CLS); ours use the mean.",
        band=False,
        explained=explained,
        same=False,
        causes=(CAUSE,) if explained else (),
        measure=measure,
        rows=ROWS,
        alternatives=(Tried("have no prompt", 1.0),),
        runner_up=Tried("cut texts to 32 tokens", 0.75),
        ruled_out=(Tried("lower-case the texts", 0.25),),
        unseen=("keep capital letters",),
        untested=("no graph: compute GELU with tanh",),
        notes=("1 row is left out",),
    )


class Reader(HTMLParser):
    """The tags of a page, and its text."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text = ""
        self.feed(content)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


def test_a_page_has_all_of_the_report_and_loads_nothing(tmp_path: Path) -> None:
    write_page(report(), tmp_path / "report.html")
    content = (tmp_path / "report.html").read_text(encoding="utf-8")
    read = Reader(content)
    for words in (
        "Explained",
        "Their results use the first token (CLS); ours use the mean.",
        "a <graph> & more",
        "a <script>alert(1)</script> text",
        "have no prompt",
        "if their vectors cut texts to 32 tokens, reaches only cosine 0.750000",
        "lower-case the texts",
        "keep capital letters",
        "no graph: compute GELU with tanh",
        "1 row is left out",
        "2.5000",
        "text 0, 4 tokens: cosine 0.500000 before, 0.999999 with the explanation",
        " and 39 more",
    ):
        assert words in read.text
    assert not {"script", "link", "img", "iframe"} & {*read.tags}
    assert not re.search(r"https?:|url\(|@import", content)


def test_texts_that_differ_most_come_first() -> None:
    cosines, differences = (Reader(page(report(measure))).text for measure in ("cosine", "difference"))
    assert cosines.index("a <script>") < cosines.index("a longer text")
    assert differences.index("a longer text") < differences.index("a <script>")


@pytest.mark.parametrize(("measure", "things"), [("cosine", "vectors"), ("difference", "scores")])
def test_the_page_names_what_was_compared(measure: str, things: str) -> None:
    content = page(report(measure))
    assert set(re.findall(r"[Ii]f their (\w+)", content)) == {things}


def test_the_worst_text_with_the_explanation_stands_on_the_ladder() -> None:
    """For cosines that is the smallest, for differences the largest."""
    found = r"<tr class=found><td>use the first token \(CLS\)<td class=bar><i style='width:\d+%'></i><td class=number>"
    assert re.search(f"{found}0.999999<", page(report()))
    assert re.search(f"{found}1.000000<", page(report("difference")))
    assert "class=found" not in page(report(explained=False))


def test_a_rounding_is_shown_as_such() -> None:
    content = page(replace(report(explained=False), band=True))
    assert "<header class=band><p class=state>Rounding<" in content
    assert "<header class=unexplained><p class=state>Unexplained<" in page(report(explained=False))
