"""Reports: no text from outside gets out of its place in HTML and Markdown, and files are whole."""

from __future__ import annotations

import math
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import sample_report
from support.svg_checks import HOSTILE, TAGS, Reader, every_plot

from hf_synth.errors import OutputError
from hf_synth.reports.page import (
    Lead,
    Section,
    Table,
    Tile,
    clean,
    lead_markdown,
    markdown,
    markdown_table,
    md_escaped,
    number,
    page,
    write_report,
)

texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(max_size=40),
    st.lists(st.sampled_from(HOSTILE), max_size=4).map("".join),
)
SOME = 10  # examples of each property


PAGE_TAGS = {"html", "head", "meta", "title", "style", "body", "header", "h1", "p", "dl", "dt", "dd", "nav", "ol", "li",
             "a", "main", "section", "h2", "ul", "figure", "div", "table", "caption", "thead", "tbody", "tr", "th",
             "td", "code", "details", "summary", "strong", "span", "b", "pre"}  # fmt: skip


@given(texts, texts, texts)
@settings(max_examples=SOME, deadline=None)
def test_no_text_gets_out_of_a_page(a: str, b: str, c: str) -> None:
    sections = [
        Section(a, b, note=c, tables=[Table([a, b], [[b, c], [c, 0.5]], c)]),
        Section(b, c, every_plot(a, b, c)),
    ]
    lead = Lead(b, "bad", (a, b, c), [Tile(a, b, c, "good")], [c], [(a, b)])
    text = page(a, sections, simulated=b, facts=[(c, a)])
    text.encode("utf-8")
    folded = [replace(section, folded=True) for section in sections[:1]]
    led = page(a, folded, simulated=c, facts=[(b, c)], lead=lead)
    reader = Reader(text)
    assert not reader.open
    assert not Reader(led).open
    reader.tags += Reader(led).tags
    assert not reader.comments
    assert {tag for tag, _ in reader.tags} <= PAGE_TAGS | TAGS
    for _, attributes in reader.tags:
        assert not [name for name in attributes if name.startswith("on")]
        assert not {"src", "action", "srcset", "data", "xlink:href", "style"} & set(attributes)
        assert re.fullmatch(r"#s\d+", attributes.get("href") or "#s1")
    assert "".join(reader.of("h1")) == clean(a).replace("`", "") or "`" in a


def test_a_lead_is_said_before_all_else() -> None:
    alarm = ("1 of 2 failed", "Because.", "hf-synth 'a b' `c`")
    tiles = [Tile("0.7", "score", "0.6 to 0.8"), Tile("3", "rows")]
    lead = Lead("It works.", "good", alarm, tiles, ["A point."], [("Do it", "hf-synth x")])
    hidden = Section("Notes", "a note of somebody", private=True)
    text = markdown("T", [hidden, Section("S", "more", folded=True)], simulated="a toy", facts=[("n", 1)], lead=lead)
    assert text == (
        "# T\n\nIt works.\n\n> **1 of 2 failed**\n>\n> Because.\n>\n> ``hf-synth 'a b' `c` ``\n\n"
        "- score: 0.7 (0.6 to 0.8)\n- rows: 3\n\n- A point.\n\nWhat to do next:\n\n- Do it: `hf-synth x`\n\n"
        "> **Simulated:** a toy\n\n- n: 1\n\n## S\n\nmore\n"
    )
    assert text.startswith(f"# T\n\n{lead_markdown(lead)}")
    seen = page("T", [hidden, Section("S", "more", folded=True)], simulated="a toy", facts=[("n", 1)], lead=lead)
    order = ["It works.", "1 of 2 failed", "Simulated: a toy", "0.6 to 0.8", "A point.", "hf-synth x", "a note of"]
    assert [seen.index(words) for words in order] == sorted(seen.index(words) for words in order)
    assert "<nav" not in seen
    assert '<details class="part"><summary><h2 id="s2">S</h2></summary>' in seen
    assert seen.count("Simulated: ") == 1


def test_a_table_that_is_too_wide_for_a_phone_is_a_list_there() -> None:
    small = Table(["label", "rows"], [["grade_0", 12], ["grade_1", 7]])
    assert not small.is_wide()
    assert Table([f"column {i}" for i in range(6)], [["a", *[0.5] * 5]]).is_wide()
    assert Table(["label", "why"], [["a", "word " * 20]]).is_wide()
    assert Table(["name", "n"], [["x" * 60, 1]]).is_wide()
    assert Table(["name", "worth"], [["x", "at most 40 gold rows, the fewest of all"]]).is_wide() is False
    assert Table(["name", "worth"], [["x", "at most 40 gold rows, the fewest that were measured"]]).is_wide()
    assert not Table(["a"], []).is_wide()
    text = page("t", [Section("s", tables=[Table(["a", "<b>"], [["x", "word " * 20]])])])
    assert 'class="wide stack"' in text
    assert 'data-name="&lt;b&gt;"' in text
    assert 'class="wide stack"' not in page("t", [Section("s", tables=[small])])


def test_texts_of_one_column_look_alike() -> None:
    """On a phone a short note was bold among longer ones."""
    notes = Table(["note", "now"], [["word " * 20, "low"], ["Two words.", "low"]])
    assert page("t", [Section("s", tables=[notes])]).count('<th scope="row" class="long">') == 2
    assert 'class="long"' not in page("t", [Section("s", tables=[Table(["a"], []), Table(["a", "b"], [["x", 1]])])])


def test_numbers_of_a_picture_are_folded_beneath_it() -> None:
    table = Table(["a", "b"], [["x", 1]])
    with_plot = page("t", [Section("s", plots=every_plot("a", "b", "c")[:1], tables=[table])])
    assert with_plot.index("<svg") < with_plot.index('<details class="numbers">') < with_plot.index("<table>")
    assert "<details" not in page("t", [Section("s", tables=[table])])


def test_a_cell_with_code_stays_one_piece_in_a_list() -> None:
    """On a phone a cell is a grid of its name and its content: each piece of code would be a further one."""
    text = page("t", [Section("s", tables=[Table(["what", "why"], [["a", "9 `copy`, 6 `near`"], ["b", "none"]])])])
    assert 'data-name="why"><span>9 <code>copy</code>, 6 <code>near</code></span></td>' in text
    assert 'data-name="why">none</td>' in text


def test_code_is_the_only_mark() -> None:
    reader = Reader(page("A", [Section("B", "take `<b>` and <b> and **this**, and x`\ny")]))
    assert reader.of("code") == ["<b>"]
    assert "".join(t for w, t in reader.texts if w == "p") == "take  and <b> and **this**, and x`\ny"


@example("a", "b", "__0__")
@given(texts, texts, texts)
@settings(max_examples=SOME, deadline=None)
def test_markdown_reads_as_text(a: str, b: str, c: str) -> None:
    markdown_it = pytest.importorskip("markdown_it")
    rows = [[b, c], [c, 0.5]]
    text = markdown(a, [Section(b, c, note=a, tables=[Table([a, b], rows, c)])], simulated=b, facts=[(c, a)])
    lead = Lead(a, "bad", (), [Tile(b, c, a)], [c], [])
    led = markdown_it.MarkdownIt("commonmark").parse(markdown("t", [], lead=lead))
    assert [t.tag for t in led if t.type == "heading_open"] == ["h1"]
    assert not [t for t in led if t.type in ("fence", "code_block", "html_block", "hr", "table_open")]
    tokens = markdown_it.MarkdownIt("commonmark").enable("table").parse(text)
    inner = [t for token in tokens for t in (token.children or [])]
    kinds = {t.type for t in inner}
    assert kinds <= {"text", "text_special", "code_inline", "softbreak", "strong_open", "strong_close"}, kinds
    assert sum(t.type == "strong_open" for t in inner) <= 1  # "Simulated:"
    assert [t.tag for t in tokens if t.type == "heading_open"] == ["h1", "h2"]
    assert not [t for t in tokens if t.type in ("fence", "code_block", "html_block", "hr")]
    assert sum(t.type == "table_open" for t in tokens) == 1
    assert sum(t.type in ("td_open", "th_open") for t in tokens) == 6
    for kind, wanted in (("tr_open", b), ("heading_open", a)):
        assert kind
        plain = "".join(t.content for t in inner)
        assert " ".join(clean(wanted).replace("`", "").split()) in " ".join(plain.replace("`", "").split())


def test_numbers() -> None:
    assert [number(v) for v in (0.12345, 0.0, 1e-5, math.nan, math.inf, -math.inf)] == [
        "0.123", "0.000", "1.0e-05", "–", "∞", "-∞",
    ]  # fmt: skip


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
    file = sample_report.write(tmp_path / "new")
    assert file == tmp_path / "new" / "report.html"
    assert {f.name for f in file.parent.iterdir()} == {"report.html", "report.md"}
    assert all(stat.S_IMODE(f.stat().st_mode) == 0o600 for f in file.parent.iterdir())
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    text = file.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    with pytest.raises(OutputError, match="exists"):
        write_report(file, "t", [])  # a file stands where the folder should be


def test_a_report_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_report(tmp_path, "first", [])

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(OutputError, match="disk is full"):
        write_report(tmp_path, "second", [])
    assert "first" in file.read_text(encoding="utf-8")
    assert {f.name for f in tmp_path.iterdir()} == {"report.html", "report.md"}


def test_page_is_laid_out_for_all() -> None:
    reader = Reader(page("A report", sample_report.sections(), simulated="a toy"))
    assert sum(t.startswith("Simulated: ") for _, t in reader.texts) == 1
    assert [tag for tag, _ in reader.tags].count("h1") == 1
    assert ("html", {"lang": "en"}) in reader.tags
    assert {a.get("scope") for tag, a in reader.tags if tag == "th"} == {"col", "row"}
    ids = [a["id"] for _, a in reader.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {(a["href"] or "")[1:] for tag, a in reader.tags if tag == "a"} == {f"s{i}" for i in range(1, 7)} <= {*ids}
    assert all(a.get("role") == "img" and a.get("aria-labelledby") for tag, a in reader.tags if tag == "svg")
    assert any("Simulated: a toy" in text for text in reader.of("p"))
