"""Pictures and reports: what a value looks like is where it belongs, and no text from outside gets out of its place."""

from __future__ import annotations

import itertools
import math
import re
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import sample_report
from support.svg_checks import (
    HOSTILE,
    SVG,
    TAGS,
    Reader,
    assert_harmless_svg,
    assert_no_text_touches,
    every_plot,
    parsed,
    shown,
    words,
)

from hf_synth.errors import OutputError
from hf_synth.evaluation.calibration import reliability, reliability_bins
from hf_synth.evaluation.statistics import wilson
from hf_synth.reports.axes import Reference
from hf_synth.reports.drawing import (
    DARK,
    LEVELS,
    LIGHT,
    clean,
    contrast,
    log_ticks,
    number,
    readable_on,
    shade,
    shortened,
    text_width,
    ticks,
    wrapped,
)
from hf_synth.reports.page import Section, Table, markdown, markdown_table, md_escaped, page, write_report
from hf_synth.reports.plots import Bin, Interval, Series, curve_plot, interval_plot, reliability_plot
from hf_synth.reports.shares import bar_plot, histogram_plot, matrix_plot

texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=40),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)
SOME = 60  # examples of each property


@given(texts, texts, texts)
@settings(max_examples=SOME, deadline=None)
def test_no_text_gets_out_of_a_picture(a: str, b: str, c: str) -> None:
    for svg in every_plot(a, b, c):
        assert_harmless_svg(svg)
        svg.encode("utf-8")
        assert parsed(svg).find(f"{SVG}title").text in (clean(a).replace("\r\n", "\n").replace("\r", "\n"), None)


PAGE_TAGS = {"html", "head", "meta", "title", "style", "body", "header", "h1", "p", "dl", "dt", "dd", "nav", "ol", "li",
             "a", "main", "section", "h2", "ul", "figure", "div", "table", "caption", "thead", "tbody", "tr", "th",
             "td", "code"}  # fmt: skip


@given(texts, texts, texts)
@settings(max_examples=SOME, deadline=None)
def test_no_text_gets_out_of_a_page(a: str, b: str, c: str) -> None:
    sections = [
        Section(a, b, note=c, tables=[Table([a, b], [[b, c], [c, 0.5]], c)]),
        Section(b, c, every_plot(a, b, c)),
    ]
    text = page(a, sections, simulated=b, facts=[(c, a)])
    text.encode("utf-8")
    reader = Reader(text)
    assert not reader.open
    assert not reader.other
    assert {tag for tag, _ in reader.found} <= PAGE_TAGS | TAGS
    for _, attributes in reader.found:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"src", "action", "srcset", "data", "xlink:href", "style"} & set(attributes)
        assert re.fullmatch(r"#s\d+", attributes.get("href") or "#s1")
    assert "".join(reader.of("h1")) == clean(a).replace("`", "") or "`" in a


def test_code_is_the_only_mark() -> None:
    reader = Reader(page("A", [Section("B", "take `<b>` and <b> and **this**, and x`\ny")]))
    assert reader.of("code") == ["<b>"]
    assert "".join(t for w, t in reader.texts if w == "p") == "take  and <b> and **this**, and x`\ny"


@given(texts, texts, texts)
@settings(max_examples=SOME, deadline=None)
def test_markdown_reads_as_text(a: str, b: str, c: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    rows = [[b, c], [c, 0.5]]
    text = markdown(a, [Section(b, c, note=a, tables=[Table([a, b], rows, c)])], simulated=b, facts=[(c, a)])
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)
    inner = [t for token in tokens for t in (token.children or [])]
    kinds = {t.type for t in inner}
    assert kinds <= {"text", "text_special", "code_inline", "softbreak", "strong_open", "strong_close"}, kinds
    assert sum(t.type == "strong_open" for t in inner) <= 1  # "Simulated:"
    assert [t.tag for t in tokens if t.type == "heading_open"] == ["h1", "h2"]
    assert not [t for t in tokens if t.type in ("fence", "code_block", "html_block", "hr")]
    assert sum(t.type == "table_open" for t in tokens) == 1
    assert sum(t.type in ("td_open", "th_open") for t in tokens) == 6
    for kind, said in (("tr_open", b), ("heading_open", a)):
        assert kind
        plain = "".join(t.content for t in inner)
        assert " ".join(clean(said).replace("`", "").split()) in " ".join(plain.replace("`", "").split())


# --- values are where they belong -----------------------------------------------------------------------------------
def reader_of(ticks_at: list[tuple[float, float]], log: bool = False) -> Callable[[float], float]:
    """Give the function from pixels back to values that two labelled ticks define."""
    place = math.log10 if log else float
    (a, va), (b, vb) = (ticks_at[0], ticks_at[-1])
    va, vb = place(va), place(vb)
    return lambda at: (10 ** (va + (at - a) * (vb - va) / (b - a))) if log else va + (at - a) * (vb - va) / (b - a)


def tick_labels(svg: str, across: bool) -> list[tuple[float, float]]:
    """Give (pixel, number) of the numbers along an axis."""
    found = []
    for t in parsed(svg).iter(f"{SVG}text"):
        if t.get("class") == "muted" and re.fullmatch(r"-?[\d,.]+", words(t)):
            wanted = "middle" if across else "end"
            if t.get("text-anchor") == wanted:
                at = float(t.get("x", 0)) if across else float(t.get("y", 0)) - 13 * 0.35
                found.append((at, float(words(t).replace(",", ""))))
    return found


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 0.3)), min_size=1, max_size=6))
@settings(max_examples=SOME, deadline=None)
def test_dots_stand_at_their_values(rows: list[tuple[float, float]]) -> None:
    svg = interval_plot([Interval(f"r{i}", v, max(0, v - d), min(1, v + d)) for i, (v, d) in enumerate(rows)],
                        title="t", axis="x")  # fmt: skip
    read = reader_of(tick_labels(svg, across=True))
    dots = [read(float(c.get("cx", 0))) for c in parsed(svg).iter(f"{SVG}circle")]
    assert dots == pytest.approx([v for v, _ in rows], abs=0.004)
    bars = [e for e in parsed(svg).iter(f"{SVG}line") if e.get("class") == "ldot"]
    ends = [(read(float(e.get("x1", 0))), read(float(e.get("x2", 0)))) for e in bars]
    assert [low for low, _ in ends] == pytest.approx([max(0, v - d) for v, d in rows], abs=0.004)
    assert [high for _, high in ends] == pytest.approx([min(1, v + d) for v, d in rows], abs=0.004)
    assert [f"{v:.3f}" for v, _ in rows] == [t for t in shown(svg) if re.fullmatch(r"\d\.\d{3}", t)][-len(rows) :]


@pytest.mark.parametrize("log_x", [False, True])
def test_curve_points_stand_at_their_values(log_x: bool) -> None:
    points = [(50, 0.42), (1243, 0.93), (200, 0.61), (0, 0.2), (math.nan, 0.5), (400, math.nan)]
    svg = curve_plot([Series("s", points)], title="t", x_axis="n", y_axis="f1", log_x=log_x)
    x, y = reader_of(tick_labels(svg, across=True), log_x), reader_of(tick_labels(svg, across=False))
    dots = [(x(float(c.get("cx", 0))), y(float(c.get("cy", 0)))) for c in parsed(svg).iter(f"{SVG}circle")][:-1]
    wanted = sorted(p for p in points if all(map(math.isfinite, p)) and (p[0] > 0 or not log_x))
    assert len(dots) == len(wanted)
    for (a, b), (c, d) in zip(dots, wanted, strict=True):
        assert a == pytest.approx(c, rel=0.02, abs=3)
        assert b == pytest.approx(d, abs=0.01)
    assert ("1 point(s) at x = 0 or below are not shown" in " ".join(shown(svg))) is log_x


def test_matrix_holds_its_numbers() -> None:
    svg = matrix_plot([[0.9, 0.1], [0.25, 0.75]], ["a", "b"], ["a", "b"], title="t")
    assert [t for t in shown(svg) if re.fullmatch(r"0\.\d\d", t)] == ["0.90", "0.10", "0.25", "0.75"]
    cells = [e.get("class", "").split()[0] for e in parsed(svg).iter(f"{SVG}rect") if e.get("class", "")[:1] == "c"]
    assert cells == ["c8", "c1", "c2", "c7"]
    counts = matrix_plot([[1243, 0], [0, 0]], ["a", "b"], ["a", "b"], title="t")
    assert [t for t in shown(counts) if re.fullmatch(r"[\d,]+", t)] == ["1,243", "0", "0", "0"]


def test_bars_are_as_long_as_their_values() -> None:
    svg = bar_plot(["a", "b"], {"kept": [30, 0], "dropped": [10, math.nan]}, title="t", axis="rows")
    bars = [float(e.get("width", 0)) for e in parsed(svg).iter(f"{SVG}rect") if e.get("class", "")[:1] == "p"]
    kept, dropped, *_ = [w for w in bars if w not in (22.0,)][1:]  # the paper first, the legend's own last
    assert kept / dropped == pytest.approx(3, rel=0.01)
    assert {"40", "0", "30", "10"} <= set(shown(svg))
    assert "0.2" not in shown(bar_plot(["a"], {"x": [1]}, title="t", axis="rows"))
    assert "0.2" in shown(bar_plot(["a"], {"x": [1]}, title="t", axis="dollars", digits=1))
    assert "–" in shown(bar_plot(["a", "b"], {"x": [1, math.nan]}, title="t", axis="y"))


def test_histogram_counts_every_row() -> None:
    svg = histogram_plot({"a": [0.0, 0.04, 0.5, 1.0, 2.0, math.nan]}, title="t", axis="x", bins=10, limits=(0, 1))
    assert "a (5 rows)" in shown(svg)
    y = reader_of(tick_labels(svg, across=False))
    area = next(e for e in parsed(svg).iter(f"{SVG}polygon"))
    heights = [float(p.split(",")[1]) for p in area.get("points", "").split()][1:-1:2]
    assert [y(h) for h in heights] == pytest.approx([0.4, 0, 0, 0, 0, 0.2, 0, 0, 0, 0.4], abs=0.01)


def test_reliability_bins() -> None:
    right = [0.95, 0.05]
    bins = reliability_bins(reliability([1, 0, 0, 1], [right, right[::-1], [1.0, 0.0], [0.09, 0.91]], bins=10))
    assert [(b.n, round(b.accuracy, 3)) for b in bins] == [(4, 0.5)]
    assert bins[0].confidence == pytest.approx((0.95 + 0.95 + 1.0 + 0.91) / 4)
    assert bins[0][3:] == wilson(2, 4)
    svg = reliability_plot({"a": bins, "b": [Bin(0.2, 0.4, 1, 0.1, 0.6)]}, title="t")
    x, y = reader_of(tick_labels(svg, across=True)), reader_of(tick_labels(svg, across=False))
    dot = next(parsed(svg).iter(f"{SVG}circle"))
    assert x(float(dot.get("cx", 0)) + 2.5) == pytest.approx(0.9525, abs=0.004)
    assert y(float(dot.get("cy", 0))) == pytest.approx(0.5, abs=0.004)


def test_nothing_to_show_is_said() -> None:
    nan = math.nan
    for svg in (
        interval_plot([], title="t", axis="x"),
        interval_plot([Interval("a", nan, nan, nan)], title="t", axis="x"),
        curve_plot([], title="t", x_axis="x", y_axis="y"),
        curve_plot([Series("s", [(1, nan), (nan, 2), (0, 1)])], title="t", x_axis="x", y_axis="y", log_x=True),
        matrix_plot([], [], [], title="t"),
        reliability_plot({}, title="t"),
        bar_plot([], {}, title="t", axis="x"),
        histogram_plot({"a": []}, title="t", axis="x"),
    ):
        assert any("nothing to show" in t for t in shown(svg))
        assert not list(parsed(svg).iter(f"{SVG}circle"))


@given(st.lists(st.tuples(*[st.one_of(st.floats(), st.integers(-10, 10).map(float))] * 4), max_size=4), st.booleans())
@settings(max_examples=SOME, deadline=None)
def test_any_number_makes_a_picture(points: list[tuple[float, ...]], log_x: bool) -> None:
    small = [tuple(v if not math.isfinite(v) or abs(v) < 1e100 else 1.0 for v in p) for p in points]
    for svg in (
        curve_plot([Series("s", small), Series("t", small[:1])], title="t", x_axis="x", y_axis="y", log_x=log_x),
        interval_plot([Interval("a", *p[:3]) for p in small], title="t", axis="x"),
        matrix_plot(list(small), [str(i) for i in range(len(small))], ["a", "b", "c", "d"], title="t"),
        bar_plot([str(i) for i in range(len(small))], {"a": [p[0] for p in small]}, title="t", axis="x"),
        histogram_plot({"a": [p[0] for p in small]}, title="t", axis="x"),
    ):
        for element in parsed(svg).iter():
            for name, value in element.attrib.items():
                assert name == "class" or "nan" not in value
                assert name == "class" or "inf" not in value


def test_simulated_is_said_in_every_picture() -> None:
    for svg in every_plot("a title", "a caption", "a toy"):
        assert "Simulated: a toy" in shown(svg)
        assert "Simulated: a toy" in (parsed(svg).find(f"{SVG}desc").text or "")
        assert "a caption" in shown(svg)
    for svg in (plot for section in sample_report.sections() for plot in section.plots):
        assert any(t.startswith("Simulated: ") for t in shown(svg))


# --- it can be read -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_contrast(colours: dict[str, str]) -> None:
    for text in ("ink", "muted", "s0"):  # text 4.5, what is drawn 3 (WCAG 2.2, AA)
        assert contrast(colours[text], colours["paper"]) >= 4.5
    assert contrast(colours["ink"], colours["soft"]) >= 4.5
    assert contrast(colours["ink"], colours["grid"]) >= 4.5  # code
    for name in ("mark", "dot", "edge", *(f"s{i}" for i in range(6))):
        assert contrast(colours[name], colours["paper"]) >= 3
    for i in range(6):
        assert contrast(readable_on(colours[f"p{i}"]), colours[f"p{i}"]) >= 4.5
    for level in range(LEVELS):
        cell = shade("light" if colours is LIGHT else "dark", level)
        assert contrast(readable_on(cell), cell) >= 4.5
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


# what is left of linear red, green and blue without one kind of cones (Machado, Oliveira and Fernandes, 2009)
EYES = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colour: str, eyes: str) -> np.ndarray:
    """Give a colour in CIE L*a*b* (D65) as such eyes see it; 2 is a difference one can just see."""
    channels = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.array(EYES[eyes]) @ linear, 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    xyz /= [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", list(EYES))
@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
def test_colours_differ_for_all_eyes(colours: dict[str, str], eyes: str) -> None:
    for kind in "sp":
        seen = [lab(colours[f"{kind}{i}"], eyes) for i in range(6)]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 12


def test_shades_grow_evenly() -> None:
    for ramp, paper in (("light", LIGHT["paper"]), ("dark", DARK["paper"])):
        far = [contrast(shade(ramp, level), paper) for level in range(LEVELS)]
        assert far == sorted(far)
        assert far[-1] > 3


def test_what_shares_a_colour_differs_otherwise() -> None:
    svg = curve_plot([Series(f"s{i}", [(1, 0.1 * i), (2, 0.1 * i + 0.05)]) for i in range(12)], title="t", x_axis="x",
                     y_axis="y")  # fmt: skip
    looks = {(e.get("class"), e.get("stroke-dasharray")) for e in parsed(svg).iter(f"{SVG}polyline")}
    assert len(looks) == 12


@given(st.text(max_size=60), st.floats(20, 400), st.integers(1, 4))
@settings(max_examples=200, deadline=None)
def test_text_fits(text: str, width: float, most: int) -> None:
    lines = wrapped(text, width, 13, most=most)
    assert 1 <= len(lines) <= most
    assert all(text_width(line) <= width + 1e-6 or line == "…" for line in lines)
    if not any("…" in line for line in lines):
        assert "".join("".join(lines).split()) == "".join(clean(text).split())
    assert shortened(text, 1e9) == text


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
@settings(max_examples=200, deadline=None)
def test_ticks_are_round_and_inside(low: float, span: float) -> None:
    high = low + span
    if high <= low or span < abs(low) * 1e-9:
        return
    found = ticks(low, high)
    assert 1 <= len(found) <= 8
    assert all(low - span * 1e-6 <= t <= high + span * 1e-6 for t in found)
    assert found == sorted(set(found))


def test_log_ticks() -> None:
    assert log_ticks(45, 1300) == [50, 100, 200, 500, 1000]
    assert log_ticks(1, 1e5) == [1, 10, 100, 1000, 10000, 100000]
    assert log_ticks(40, 160) == [40, 50, 60, 80, 100, 150]


def test_numbers() -> None:
    assert [number(v) for v in (0.12345, 0.0, 1e-5, math.nan, math.inf, -math.inf)] == [
        "0.123", "0.000", "1.0e-05", "–", "∞", "-∞",
    ]  # fmt: skip


@pytest.mark.parametrize("at", range(13))
def test_no_text_touches_another_in_the_sample(at: int) -> None:
    plots = [plot for section in sample_report.sections() for plot in section.plots]
    assert len(plots) == 13
    assert_no_text_touches(plots[at])


names = st.text("abcdefgh_ -MW", min_size=1, max_size=70).filter(lambda t: t.strip() != "")


@given(st.lists(names, min_size=1, max_size=8, unique=True), names, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=SOME, deadline=None)
def test_long_names_touch_nothing(many: list[str], title: str, a: float, b: float) -> None:
    told = {"title": title * 3, "caption": title * 4, "simulated": title * 2}
    k = len(many)
    lines = [Reference(many[0], a), Reference(title, b, vertical=True)]
    points = [(0.0, 0.0), (1.0, 1.0)]
    assert_no_text_touches(interval_plot([Interval(n, a, a - 0.1, a + 0.1) for n in many], axis=title, **told))
    assert_no_text_touches(matrix_plot([[a] * k] * k, many, many, row_axis=many[0], column_axis=title, **told))
    assert_no_text_touches(bar_plot(many, {n: [a * 1000] * k for n in many[:3]}, axis=title, **told))
    assert_no_text_touches(
        curve_plot([Series(n, points) for n in many], x_axis=title, y_axis=many[0], lines=lines, **told)
    )


# --- tables, files --------------------------------------------------------------------------------------------------
def test_numbers_stand_to_the_right() -> None:
    rows = [["a", 1, 0.5, "0.710 (0.670-0.750)", "< 0.001", "$3.20", "12%", "x1", "1.0e-05", None]]
    assert Table([*"abcdefghij"], rows).alignment() == "lrrrrrrlrr"
    assert Table(["a", "b"], []).alignment() == "ll"
    assert Table(["a", "b"], [[1, 2]], align="rl").alignment() == "rl"


def test_markdown_table_reads_in_a_terminal() -> None:
    table = markdown_table(["what", "share"], [["gold_200", 0.5], ["a|b", 1], ["p < 0.05, <b>", 2e-9]], align="lr")
    assert table.splitlines() == [
        "| what           |   share |",
        "|----------------|--------:|",
        "| gold_200       |   0.500 |",
        "| a\\|b           |       1 |",
        "| p < 0.05, \\<b> | 2.0e-09 |",
    ]
    assert md_escaped("a [link](x) and *this* and `co*de`") == "a [link]\\(x) and \\*this\\* and `co*de`"


def test_report_is_for_its_owner_and_whole(tmp_path: Path) -> None:
    made = sample_report.write(tmp_path / "new")
    assert made == tmp_path / "new" / "report.html"
    assert {f.name for f in made.parent.iterdir()} == {"report.html", "report.md"}
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in made.parent.iterdir())
    assert stat.S_IMODE(made.parent.stat().st_mode) == 0o700
    text = made.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    with pytest.raises(OutputError, match="exists"):
        write_report(made, "t", [])  # a file stands where the folder should be


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = write_report(tmp_path, "first", [])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_report(tmp_path, "second", [])
    assert "first" in made.read_text(encoding="utf-8")
    assert {f.name for f in tmp_path.iterdir()} == {"report.html", "report.md"}


def test_page_is_laid_out_for_all() -> None:
    reader = Reader(page("A report", sample_report.sections(), simulated="a toy"))
    tags = [tag for tag, _ in reader.found]
    assert tags.count("h1") == 1
    assert ("html", {"lang": "en"}) in reader.found
    assert {a.get("scope") for tag, a in reader.found if tag == "th"} == {"col", "row"}
    targets = {a["id"] for _, a in reader.found if "id" in a}
    linked = {(a["href"] or "")[1:] for tag, a in reader.found if tag == "a"}
    assert linked == targets
    assert len(targets) == len([a["id"] for _, a in reader.found if "id" in a])  # no id twice
    assert all(a.get("role") == "img" and a.get("aria-label") for tag, a in reader.found if tag == "svg")
    assert any("Simulated: a toy" in text for text in reader.of("p"))
