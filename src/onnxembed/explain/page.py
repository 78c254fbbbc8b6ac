"""The report as one self-contained page for a browser: no script, no fonts, nothing that is loaded from elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from math import log10
from pathlib import Path

from onnxembed.atomic import write_whole
from onnxembed.counting import counted
from onnxembed.explain.report import Report, Row, Tried, in_digits

_STYLE = Path(__file__).with_name("page.css")

# The size of a chart, and its margins, in pixels.
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 640, 240, 64, 34

# Differences below this look the same.
_FLOOR = 1e-8

_LADDER, _WORST = 14, 5


def write_page(report: Report, path: Path) -> None:
    """Write the page, which appears whole or not at all, in place of an older one."""
    content = page(report).encode()
    write_whole(path, lambda file: file.write(content), force=True)


def page(report: Report) -> str:
    """The page as HTML."""
    explained = "band" if report.band else "explained" if report.explained else "unexplained"
    state = "same" if report.same else explained
    parts = [
        f"<header class={state}><p class=state>{_STATES[state]}</p><h1>{escape(report.verdict)}</h1></header>",
        *_notes(report),
        *_fixes(report),
        _section("Every text", _cosines(report)),
        _section("What was tried", _ladder(report)),
        *([_section("Lengths of the vectors", _norms(report.rows))] if report.rows and report.rows[0].norms else []),
        _section("The texts that differ most", "".join(_worst(report))),
        *_unseen(report),
    ]
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'>"
        f"<meta name=color-scheme content='light dark'><title>onnxembed explain</title><style>{_STYLE.read_text()}"
        f"</style><main>{''.join(parts)}</main></html>\n"
    )


_STATES = {"same": "No difference", "explained": "Explained", "band": "Rounding", "unexplained": "Unexplained"}


def _section(title: str, body: str) -> str:
    return f"<section><h2>{escape(title)}</h2>{body}</section>"


def _notes(report: Report) -> Iterator[str]:
    words = [*report.notes, *(f"These texts cannot tell it from: {each.changes}." for each in report.alternatives)]
    if report.runner_up:
        reached = f"{report.measure} {report.runner_up.reached:.6f}"
        words.append(f"The runner-up, if their {report.things} {report.runner_up.changes}, reaches only {reached}.")
    if words:
        yield f"<ul class=notes>{''.join(f'<li>{escape(each)}' for each in words)}</ul>"


def _fixes(report: Report) -> Iterator[str]:
    for cause in report.causes:
        rows = "".join(f"<tr><th>{escape(system)}<td><code>{escape(fix)}</code>" for system, fix in cause.fixes.items())
        yield _section(f"To change: {cause.name}", f"<table class=fixes>{rows}</table>")


def _difference(report: Report, value: float) -> float:
    """How far a cosine is from 1, or a difference as it is; never less than what looks the same."""
    return max(_FLOOR, 1 - value if report.measure == "cosine" else value)


def _cosines(report: Report) -> str:
    """Each text by its number of tokens: how far it was off before, and after."""
    what = "1 - cosine" if report.measure == "cosine" else "difference"
    longest = max(row.tokens for row in report.rows)
    points = []
    for row in report.rows:
        x = _LEFT + row.tokens / longest * (_WIDTH - _LEFT - 16)
        for name, value in (("before", row.before), ("after", row.after)):
            if value is None:
                continue
            off = _difference(report, value)
            title = f"text {row.index}, {counted(row.tokens, 'token')}, {name}: {report.measure} {value:.7f}"
            shape = f"<circle class={name} cx={x:.1f} cy={_y(off):.1f} r=5><title>{title}</title></circle>"
            points.append(shape)
    grid = "".join(
        f"<line x1={_LEFT} x2={_WIDTH} y1={_y(10.0**power):.1f} y2={_y(10.0**power):.1f} />"
        f"<text x={_LEFT - 8} y={_y(10.0**power) + 4:.1f} text-anchor=end>1e{power}</text>"
        for power in range(-8, 1, 2)
    )
    ends = ((_LEFT, "start", "0 tokens"), (_WIDTH, "end", str(longest)))
    axis = "".join(f"<text x={x} y={_HEIGHT - 6} text-anchor={anchor}>{word}</text>" for x, anchor, word in ends)
    legend = "<p class=legend><i class=before></i> before <i class=after></i> with the explanation</p>"
    return f"<p>{what} of each text, by its length. Lower is closer.</p>{legend}{_svg(grid + axis + ''.join(points))}"


def _y(off: float) -> float:
    """Where a difference stands: 1e-8 at the bottom, 1 and more at the top."""
    share = (log10(min(off, 1.0)) - log10(_FLOOR)) / -log10(_FLOOR)
    return (_HEIGHT - _BOTTOM) - share * (_HEIGHT - _BOTTOM - 12)


def _svg(body: str) -> str:
    return f"<svg viewBox='0 0 {_WIDTH} {_HEIGHT}' role=img>{body}</svg>"


def _ladder(report: Report) -> str:
    """The hypotheses, the closest first, each with a bar as long as what it leaves unexplained."""
    found = Tried(" and ".join(cause.theirs for cause in report.causes) or "are made as ours", _reached(report))
    tried = [*([found] if report.explained else []), *report.ruled_out]
    rows = []
    for place, each in enumerate(tried[:_LADDER]):
        off = _difference(report, each.reached)
        share = 100 * (log10(min(off, 1.0)) - log10(_FLOOR)) / -log10(_FLOOR)
        kind = "found" if report.explained and place == 0 else "not"
        rows.append(
            f"<tr class={kind}><td>{escape(each.changes)}<td class=bar><i style='width:{share:.0f}%'></i>"
            f"<td class=number>{each.reached:.6f}"
        )
    return (
        f"<p>If their {report.things} ..., this {report.measure} is reached in the worst text; "
        f"the bar is what remains.</p><table class=ladder>{''.join(rows)}</table>"
    )


def _reached(report: Report) -> float:
    after = [row.after for row in report.rows]
    return min(after) if report.measure == "cosine" else max(after)


def _norms(rows: Sequence[Row]) -> str:
    pairs = [row.norms for row in rows if row.norms]
    ours, theirs = ([pair[side] for pair in pairs] for side in (0, 1))
    cells = "".join(
        f"<tr><th>{name}<td class=number>{min(values):.4f}<td class=number>{max(values):.4f}"
        for name, values in (("ours", ours), ("theirs", theirs))
    )
    return f"<table class=norms><tr><th><th class=number>shortest<th class=number>longest{cells}</table>"


def _worst(report: Report) -> Iterator[str]:
    worst = sorted(report.rows, key=lambda row: -_difference(report, row.before or 0.0))[:_WORST]
    for row in worst:
        pieces = " ".join(f"<kbd>{escape(piece)}</kbd>" for piece in row.pieces)
        more = f" and {row.tokens - len(row.pieces)} more" if row.pieces and row.tokens > len(row.pieces) else ""
        yield (
            f"<article><p><b>text {row.index}</b>, {counted(row.tokens, 'token')}: "
            f"{report.measure} {in_digits(row.before)} before, "
            f"{row.after:.6f} with the explanation</p><blockquote>{escape(row.text)}</blockquote>"
            f"<p class=pieces>{pieces}{more}</p></article>"
        )


def _unseen(report: Report) -> Iterator[str]:
    for title, words in (("Not visible in these texts", report.unseen), ("Not tried", report.untested)):
        if words:
            yield _section(title, f"<ul class=plain>{''.join(f'<li>{escape(each)}' for each in words)}</ul>")
