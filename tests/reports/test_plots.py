"""Pictures: values are where they belong, all texts are there and harmless, and the colours can be told apart."""

from __future__ import annotations

import itertools
import math
import re
import xml.etree.ElementTree as ET
from concurrent.futures import ThreadPoolExecutor
from importlib import resources

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import sample_report
from support.svg_checks import HOSTILE, SVG, assert_harmless_svg, assert_no_text_touches, every_plot, parsed, shown

from hf_synth.evaluation.calibration import reliability, reliability_bins
from hf_synth.evaluation.statistics import wilson
from hf_synth.reports import plots
from hf_synth.reports.canvas import NARROW, text_width, wrapped
from hf_synth.reports.flat_svg import ON_PARTS, PALETTE
from hf_synth.reports.page import clean

SOME = 10  # examples of each property
texts = st.one_of(st.sampled_from(HOSTILE), st.text(max_size=40), st.lists(st.sampled_from(HOSTILE)).map("".join))


# --- text -----------------------------------------------------------------------------------------------------------
@given(texts, texts, texts)
@settings(max_examples=SOME, deadline=None)
def test_no_text_gets_out_of_a_picture(a: str, b: str, c: str) -> None:
    for svg in every_plot(a, b, c):
        assert_harmless_svg(svg)
        svg.encode("utf-8")
        assert parsed(svg).find(f"{SVG}title").text in (clean(a).replace("\r\n", "\n").replace("\r", "\n"), None)


def test_texts_stand_as_they_are() -> None:
    for svg in every_plot(r"$\frac{1}{2}$", "<b>$x_1$</b>", "患者 – Grüße"):
        joined = " ".join(shown(svg))
        assert r"$\frac{1}{2}$" in joined
        assert "<b>$x_1$</b>" in joined
        assert "患者 – Grüße" in ET.tostring(parsed(svg), encoding="unicode")


def test_what_is_cut_can_be_read_whole() -> None:
    name = "a_very_long_name_" * 12
    (text,) = (t for t in parsed(plots.bar_plot([name], {"x": [1]}, title="t", axis="x")).iter(f"{SVG}text") if len(t))
    assert "…" in (text.text or "")
    assert text[0].text == name


@given(st.text(max_size=60), st.floats(20, 400), st.integers(1, 4))
@settings(max_examples=100, deadline=None)
def test_text_fits(text: str, width: float, most: int) -> None:
    lines = wrapped(clean(text), width, 13, most=most)
    assert len(lines) <= most
    assert all(text_width(line) <= width + 1e-6 or line == "…" for line in lines)
    if not any("…" in line for line in lines):
        assert "".join("".join(lines).split()) == "".join(clean(text).split())


def test_every_picture_says_simulated() -> None:
    for svg in every_plot("a title", "a caption", "a toy"):
        (stamp,) = (t for t in parsed(svg).iter(f"{SVG}text") if t.text == "SIMULATED")
        assert [t.text for t in stamp.iter(f"{SVG}title")] == ["a toy"]
        assert (parsed(svg).find(f"{SVG}desc").text or "").startswith("Simulated. ")
        assert "a caption" in shown(svg)


def test_a_picture_without_values_says_so() -> None:
    nan = math.nan
    for svg in (
        plots.interval_plot([], title="t", axis="x"),
        plots.interval_plot([plots.Interval("a", nan, nan, nan)], title="t", axis="x"),
        plots.curve_plot([], title="t", x_axis="x", y_axis="y"),
        plots.curve_plot(
            [plots.Series("s", [(1, nan), (nan, 2), (0, 1)])], title="t", x_axis="x", y_axis="y", log_x=True
        ),
        plots.matrix_plot([], [], [], title="t"),
        plots.reliability_plot({}, title="t"),
        plots.bar_plot([], {}, title="t", axis="x"),
        plots.histogram_plot({"a": []}, title="t", axis="x"),
    ):
        assert any("nothing to show" in t for t in shown(svg))
        assert [e.get("class") for e in parsed(svg).iter(f"{SVG}path")] == ["fill-paper"]


def test_no_text_touches_another_in_the_sample() -> None:
    for plot in (plot for section in sample_report.sections() for plot in section.plots):
        assert_no_text_touches(plot)
        assert_no_text_touches(plot.narrow)
        assert parsed(plot.narrow).get("width") == str(NARROW)
        assert "SIMULATED" in shown(plot)
        assert len(plot) < 60_000


names = st.text("abcdefgh_ -MW", min_size=1, max_size=70).filter(lambda t: t.strip() != "")


@given(st.lists(names, min_size=1, max_size=8, unique=True), names, st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=SOME, deadline=None)
def test_long_names_touch_nothing(many: list[str], title: str, a: float, b: float) -> None:
    words = {"title": title * 3, "caption": title * 4, "simulated": title * 2}
    k = len(many)
    lines = [plots.Reference(many[0], a), plots.Reference(title, b, vertical=True)]
    points = [(0.0, 0.0), (1.0, 1.0)]
    curves = [plots.Series(n, points) for n in many]
    assert_no_text_touches(
        plots.interval_plot([plots.Interval(n, a, a - 0.1, a + 0.1) for n in many], axis=title, **words)
    )
    assert_no_text_touches(plots.matrix_plot([[a] * k] * k, many, many, row_axis=many[0], column_axis=title, **words))
    assert_no_text_touches(plots.bar_plot(many, {n: [a * 1000] * k for n in many[:3]}, axis=title, **words))
    assert_no_text_touches(plots.curve_plot(curves, x_axis=title, y_axis=many[0], lines=lines, **words))


# --- values are where they belong -----------------------------------------------------------------------------------
def numbers(text: str | None) -> list[float]:
    return [float(n) for n in re.findall(r"-?\d+\.?\d*", text or "")]


def drawn(svg: str, kind: str) -> list[ET.Element]:
    """Return the shapes of one kind of artist."""
    return [e for e in parsed(svg).iter(f"{SVG}path") if kind in e.get("class", "").split()]


def values(svg: str, places: list[tuple[float, float]], log_x: bool = False) -> np.ndarray:
    """Return the values at places in pixels, (N, 2), by the grid and its numbers."""
    grid = [numbers(e.get("d")) for e in drawn(svg, "stroke-grid")]
    ticks = [t for t in parsed(svg).iter(f"{SVG}text") if t.get("class") == "fill-muted"]
    points = np.array(places, float)
    for axis, anchor in enumerate(("middle", "end")):
        pixels = [line[axis] for line in grid if line[axis] == line[axis + 2]]
        marks = [float((t.text or "").replace(",", "")) for t in ticks if t.get("text-anchor") == anchor]
        if len(marks) > 1:
            scale = np.log10 if log_x and not axis else np.asarray
            points[:, axis] = np.polynomial.Polynomial.fit(pixels, scale(marks), 1)(points[:, axis])
    return np.column_stack([10 ** points[:, 0] if log_x else points[:, 0], points[:, 1]])


def markers(svg: str, kind: str) -> list[tuple[float, float]]:
    pairs = [numbers(e.get("transform")) for e in drawn(svg, kind) if e.get("transform")]
    return [(x, y) for x, y in pairs]


@given(st.lists(st.tuples(st.floats(0.01, 0.99), st.floats(0, 0.3)), min_size=1, max_size=6))
@settings(max_examples=SOME, deadline=None)
def test_dots_stand_at_their_values(rows: list[tuple[float, float]]) -> None:
    intervals = [plots.Interval(f"r{i}", v, max(0, v - d), min(1, v + d)) for i, (v, d) in enumerate(rows)]
    svg = plots.interval_plot(intervals, title="t", axis="x")
    assert values(svg, markers(svg, "dot"))[:, 0] == pytest.approx([v for v, _ in rows], abs=0.004)
    ends = np.array([numbers(e.get("d")) for e in drawn(svg, "interval")])
    assert values(svg, ends[:, :2])[:, 0] == pytest.approx([max(0, v - d) for v, d in rows], abs=0.004)
    assert values(svg, ends[:, 2:])[:, 0] == pytest.approx([min(1, v + d) for v, d in rows], abs=0.004)
    assert [f"{v:.3f}" for v, _ in rows] == [t for t in shown(svg) if re.fullmatch(r"\d\.\d{3}", t)][-len(rows) :]


@pytest.mark.parametrize("log_x", [False, True])
def test_curve_points_stand_at_their_values(log_x: bool) -> None:
    points = [(50, 0.42), (1243, 0.93), (200, 0.61), (0, 0.2), (math.nan, 0.5), (400, math.nan)]
    svg = plots.curve_plot([plots.Series("s", points)], title="t", x_axis="n", y_axis="f1", log_x=log_x)
    wanted = sorted(p for p in points if all(map(math.isfinite, p)) and (p[0] > 0 or not log_x))
    assert values(svg, markers(svg, "curve"), log_x) == pytest.approx(np.array(wanted), rel=0.01, abs=0.6)
    assert ("1 point(s) at x = 0 or below are not shown" in " ".join(shown(svg))) is log_x


def test_lines_to_compare_with_are_named() -> None:
    lines = [
        plots.Reference("all gold", 0.9),
        plots.Reference("here", 5, vertical=True),
        plots.Reference("x", math.nan),
    ]
    svg = plots.curve_plot([plots.Series("s", [(1, 0.2), (9, 0.8)])], title="t", x_axis="n", y_axis="f1", lines=lines)
    flat, tall = (numbers(e.get("d")) for e in drawn(svg, "reference"))
    assert values(svg, [(0, flat[1])])[0, 1] == pytest.approx(0.9, abs=0.004)
    assert values(svg, [(tall[0], 0)])[0, 0] == pytest.approx(5, abs=0.02)
    assert {"all gold", "here", "s"} <= set(shown(svg))


def test_log_axes_are_marked_at_round_numbers() -> None:
    for low, high, wanted in ((50, 1243, "50 100 200 500 1,000"), (1, 1e5, "1 10 100 1,000 10,000 100,000"),
                              (44, 145, "40 50 60 80 100 150")):  # fmt: skip
        svg = plots.curve_plot(
            [plots.Series("s", [(low, 0.5), (high, 0.5)])], title="t", x_axis="n", y_axis="y", log_x=True
        )
        assert " ".join(t for t in shown(svg)).startswith(wanted)


def test_matrix_holds_its_numbers() -> None:
    svg = plots.matrix_plot([[0.9, 0.1], [0.25, 0.75]], ["a", "b"], ["a", "b"], title="t")
    assert [t for t in shown(svg) if re.fullmatch(r"0\.\d\d", t)] == ["0.90", "0.10", "0.25", "0.75"]
    shades = {
        level: len(shape.get("d", "").split("M")) - 1
        for level in range(plots.LEVELS)
        for shape in drawn(svg, f"level{level}")
    }
    assert shades == {1: 1, 2: 1, 7: 1, 8: 1}
    assert drawn(svg, "same")[0].get("d", "").count("M") == 2
    counts = plots.matrix_plot([[1243, 0], [0, math.nan]], ["a", "b"], ["a", "b"], title="t")
    assert [t for t in shown(counts) if re.fullmatch(r"[\d,–]+", t)] == ["1,243", "0", "0", "–"]


def test_bars_are_as_long_as_their_values() -> None:
    svg = plots.bar_plot(["a", "b"], {"kept": [30, 0], "dropped": [10, math.nan]}, title="t", axis="rows")
    kept, dropped = (max(xs) - min(xs) for e in drawn(svg, "part") if (xs := numbers(e.get("d"))[::2]))
    assert kept / dropped == pytest.approx(3, rel=0.01)
    assert {"40", "0", "30", "10"} <= set(shown(svg))
    assert "0.2" not in shown(plots.bar_plot(["a"], {"x": [1]}, title="t", axis="rows"))
    assert "0.2" in shown(plots.bar_plot(["a"], {"x": [1]}, title="t", axis="dollars", digits=1))
    assert "1e+57" in shown(plots.bar_plot(["a"], {"x": [1e57]}, title="t", axis="rows"))
    assert "–" in shown(plots.bar_plot(["a", "b"], {"x": [1, math.nan]}, title="t", axis="y"))


def test_histogram_counts_every_row() -> None:
    svg = plots.histogram_plot({"a": [0.0, 0.04, 0.5, 1.0, 2.0, math.nan]}, title="t", axis="x", bins=10, limits=(0, 1))
    assert "a (5 rows)" in shown(svg)
    steps = numbers(drawn(svg, "stairs")[0].get("d"))
    heights = values(svg, list(zip(steps[::2], steps[1::2], strict=True)))
    shares = [heights[np.isclose(heights[:, 0], b / 10 + 0.1, atol=0.001)][0, 1] for b in range(10)]
    assert shares == pytest.approx([0.4, 0, 0, 0, 0, 0.2, 0, 0, 0, 0.4], abs=0.005)


def test_reliability_bins() -> None:
    right = [0.95, 0.05]
    bins = reliability_bins(reliability([1, 0, 0, 1], [right, right[::-1], [1.0, 0.0], [0.09, 0.91]], bins=10))
    assert [(b.n, round(b.accuracy, 3)) for b in bins] == [(4, 0.5)]
    assert bins[0].confidence == pytest.approx((0.95 + 0.95 + 1.0 + 0.91) / 4)
    assert bins[0][3:] == wilson(2, 4)
    svg = plots.reliability_plot({"a": bins, "b": [plots.Bin(0.2, 0.4, 1, 0.1, 0.6)]}, title="t")
    (x, y), *_ = markers(svg, "curve")
    assert values(svg, [(x + 2.5, y)])[0] == pytest.approx([0.9525, 0.5], abs=0.002)


@given(st.lists(st.tuples(*[st.one_of(st.floats(), st.integers(-10, 10).map(float))] * 4), max_size=4), st.booleans())
@settings(max_examples=SOME, deadline=None)
def test_any_number_makes_a_picture(points: list[tuple[float, ...]], log_x: bool) -> None:
    small = [tuple(v if not math.isfinite(v) or abs(v) < 1e100 else 1.0 for v in p) for p in points]
    for svg in (
        plots.curve_plot(
            [plots.Series("s", small), plots.Series("t", small[:1])], title="t", x_axis="x", y_axis="y", log_x=log_x
        ),
        plots.interval_plot([plots.Interval("a", *p[:3]) for p in small], title="t", axis="x"),
        plots.matrix_plot(list(small), [str(i) for i in range(len(small))], ["a", "b", "c", "d"], title="t"),
        plots.bar_plot([str(i) for i in range(len(small))], {"a": [p[0] for p in small]}, title="t", axis="x"),
        plots.histogram_plot({"a": [p[0] for p in small]}, title="t", axis="x"),
    ):
        for element in parsed(svg).iter(f"{SVG}path"):
            assert "nan" not in element.get("d", "") + element.get("transform", "")
            assert "inf" not in element.get("d", "") + element.get("transform", "")


# --- bytes ----------------------------------------------------------------------------------------------------------
def test_a_picture_is_the_same_each_time_and_in_threads() -> None:
    import matplotlib

    before = dict(matplotlib.rcParams)
    with ThreadPoolExecutor(4) as pool:
        several = list(pool.map(lambda _: every_plot("a", "b", "c"), range(4)))
    matplotlib.rcParams["lines.linewidth"] = 9  # somebody's own setting
    try:
        assert [every_plot("a", "b", "c")] * 4 == several
    finally:
        matplotlib.rcParams["lines.linewidth"] = before["lines.linewidth"]
    assert dict(matplotlib.rcParams) == before


def test_ids_are_a_pictures_own() -> None:
    ids = [e.get("id") for plot in every_plot("a", "b", "c") for e in parsed(plot).iter() if "id" in e.attrib]
    assert len(ids) == len(set(ids)) == 12
    for plot in every_plot("a", "b", "c"):
        root = parsed(plot)
        assert root.get("role") == "img"
        assert root.get("aria-labelledby", "").split() == [root[0].get("id"), root[1].get("id")]


# --- colours --------------------------------------------------------------------------------------------------------
MODES = [{name: pair[i] for name, pair in PALETTE.items()} for i in (0, 1)]


def rgb(colour: str) -> np.ndarray:
    return np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255


def linear(channels: np.ndarray) -> np.ndarray:
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: np.ndarray, other: np.ndarray) -> float:
    """Return the contrast of two colours between 1 and 21, as WCAG 2 defines it."""
    dim, bright = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) for c in (one, other))
    return (bright + 0.05) / (dim + 0.05)


@pytest.mark.parametrize("mode", MODES, ids=["light", "dark"])
def test_contrast(mode: dict[str, str]) -> None:
    colour = {name: rgb(value) for name, value in mode.items()}
    for text, ground in (("ink", "paper"), ("muted", "paper"), ("ink", "soft"), ("note", "soft"), ("note", "paper")):
        assert contrast(colour[text], colour[ground]) >= 4.5
    for name in ("mark", "edge", "muted", *(f"s{i}" for i in range(6))):
        assert contrast(colour[name], colour["paper"]) >= 3
    for i, text in enumerate(ON_PARTS):
        assert contrast(colour[text], colour[f"p{i}"]) >= 4.5
    shares = np.linspace(0.06, 1, plots.LEVELS)[:, None]
    shades = shares * colour["cell"] + (1 - shares) * colour["paper"]
    assert all(contrast(colour["ink"], shade) >= 4.5 for shade in shades)
    assert contrast(shades[-1], colour["paper"]) >= 3


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_contrast_of_a_page(scheme: int) -> None:
    css = resources.files("hf_synth.reports").joinpath("page.html").read_text(encoding="utf-8")
    rules = re.findall(r":root\{([^}]*--ink[^}]*)\}", css)
    colour = {name: rgb(value) for name, value in re.findall(r"--(\w+):(#\w{6})", rules[scheme])}
    texts = [(text, ground) for text in ("ink", "muted", "link", "good", "bad") for ground in ("paper", "plain")]
    texts += [("ink", "soft"), ("ink", "badsoft"), ("bad", "badsoft"), ("ink", "grid")]
    texts += [("paper", ground) for ground in ("good", "bad", "warn", "edge")]  # the signs in their circles
    assert [(a, b) for a, b in texts if contrast(colour[a], colour[b]) < 4.5] == []


# what is left of linear red, green and blue without one kind of cones (Machado, Oliveira and Fernandes, 2009)
EYES = {
    "all cones": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "no red": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "no blue": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


def lab(colour: str, eyes: str) -> np.ndarray:
    """Return a colour in CIE L*a*b* (D65) as such eyes see it; 2 is a difference one can just see."""
    seen = np.clip(np.array(EYES[eyes]) @ linear(rgb(colour)), 0, 1)
    xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
    xyz /= [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("eyes", list(EYES))
@pytest.mark.parametrize("mode", MODES, ids=["light", "dark"])
def test_colours_differ_for_all_eyes(mode: dict[str, str], eyes: str) -> None:
    for kind in "sp":
        seen = [lab(mode[f"{kind}{i}"], eyes) for i in range(6)]
        assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 12


def test_what_shares_a_colour_differs_otherwise() -> None:
    curves = [plots.Series(f"s{i}", [(1, 0.1 * i), (2, 0.1 * i + 0.05)]) for i in range(12)]
    svg = plots.curve_plot(curves, title="t", x_axis="x", y_axis="y")
    lines = [e for e in drawn(svg, "curve") if not e.get("transform")]
    assert len({(e.get("class"), e.get("stroke-dasharray")) for e in lines}) == len(lines) == 12
