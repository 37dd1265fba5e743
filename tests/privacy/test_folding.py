"""Folding and its hashes: properties that hold for any text."""

from __future__ import annotations

import random
import time
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.privacy.closeness import auc, closest
from hf_synth.privacy.folding import Units, digest, fold, words_of
from hf_synth.privacy.identifiers import identifiers_in
from hf_synth.privacy.overlap import LETTERS, WINDOW, Index
from hf_synth.privacy.repetition import Repeats

ANY = st.text(max_size=200)
WORDS = st.lists(st.text("abcdefghij", min_size=1, max_size=6), min_size=1, max_size=60)


@settings(deadline=None)
@given(ANY)
def test_folding_is_done_once(text: str) -> None:
    once = fold(text)
    assert fold(once) == once
    assert digest((text,)) == digest((once,))


@settings(deadline=None)
@given(ANY)
def test_ascii_stays_and_nothing_unseen_is_left(text: str) -> None:
    plain = "".join(c for c in text if c.isascii() and c not in "<&%\\")  # these begin tags and escapes
    assert fold(plain) == plain
    assert all(c.isascii() or c.isalnum() for c in fold(text))
    assert not any(unicodedata.category(c) in ("Cf", "Mn", "Me") for c in fold(text) if not c.isascii())


@settings(deadline=None)
@given(ANY)
def test_patterns_and_units_take_any_text(text: str) -> None:
    identifiers_in(text)
    words_of(text)
    units = Units.of([text, "", text])
    assert units.n == 3
    assert units.in_order()[0] == units.in_order()[2]
    assert units.in_any_order(numbers=False)[0] == units.in_any_order(numbers=False)[2]


@settings(deadline=None)
@given(WORDS, st.randoms())
def test_hashes_see_words_and_nothing_between(words: list[str], rng: random.Random) -> None:
    signs = "".join(w.upper() + rng.choice([" ", ", ", "\u200b; ", "\n\n-", "\u00a0"]) for w in words)
    units = Units.of([" ".join(words), signs, " ".join(rng.sample(words, len(words)))])
    assert units.in_order()[0] == units.in_order()[1]
    assert len(set(units.in_any_order(numbers=True).tolist())) == 1
    assert len(set(units.lengths().tolist())) == 1


@settings(deadline=None)
@given(st.lists(ANY, max_size=6), st.integers(1, 5))
def test_windows_are_the_same_wherever_they_stand(texts: list[str], size: int) -> None:
    together = Units.of(texts)
    hashes, valid = together.windows(size)
    alone = [Units.of([text]).windows(size) for text in texts]
    assert hashes[valid].tolist() == [h for found, ok in alone for h in found[ok].tolist()]
    assert all(ok.all() for _, ok in alone)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 70), st.integers(0, 40), st.integers(0, 40), st.integers(0, 2**32))
def test_runs_and_containment_are_counted_exactly(span: int, before: int, after: int, seed: int) -> None:
    rng = random.Random(seed)
    gold = [f"g{rng.randrange(16**9):x}" for _ in range(80)]
    start = rng.randrange(81 - span)
    own = [f"h{rng.randrange(16**9):x}" for _ in range(before + after)]
    words = [*own[:before], *gold[start : start + span], *own[before:]]
    reach = Index.of([("g", (" ".join(gold),))]).reach([(" ".join(words),)])
    windows = max(0, span - WINDOW + 1)
    assert reach.runs[0] == (span if windows else 0)
    assert reach.matches[0] == windows
    assert reach.share[0] == pytest.approx(windows / max(1, len(words) - WINDOW + 1))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 300), st.integers(0, 2**32))
def test_runs_of_letters_are_counted_exactly(span: int, seed: int) -> None:
    rng = random.Random(seed)
    gold = "".join(rng.choices("abcdefghijklm", k=400))
    start = rng.randrange(401 - span)
    text = "zzz" + " 7-".join(gold[start : start + span]) + "yyy"
    reach = Index.of([("g", (gold,))]).reach([(text,)])
    assert reach.letter_runs[0] == (span if span >= LETTERS else 0)
    assert reach.letters[0] == max(0, span - LETTERS + 1)


def test_no_gold_and_no_rows() -> None:
    nothing = Index.of([])
    assert nothing.reach([]).runs.tolist() == []
    assert nothing.reach([("some text",), ("",)]).group.tolist() == [-1, -1]
    assert Index.of([("g", ("",))]).reach([("",)]).same.tolist() == [False]
    assert Repeats().find()[0].tolist() == []


# --- closeness ------------------------------------------------------------------------------------------------------

SAMPLES = st.lists(st.integers(-5, 5), min_size=1, max_size=40)


@settings(deadline=None)
@given(SAMPLES, SAMPLES)
def test_the_auc_is_that_of_scikit_learn(above: list[int], below: list[int]) -> None:
    from sklearn.metrics import roc_auc_score

    found = auc(above, below)
    assert found.value == pytest.approx(roc_auc_score([1] * len(above) + [0] * len(below), above + below))
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.low < found.high
    turned = auc(below, above)
    assert (turned.value, turned.low, turned.high) == pytest.approx((1 - found.value, 1 - found.high, 1 - found.low))


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.0])
def test_the_interval_covers_the_truth(shift: float) -> None:
    from scipy.stats import norm

    rng, truth = np.random.default_rng(0), norm.cdf(shift / 2**0.5)
    found = [auc(rng.normal(shift, 1, 40), rng.normal(0, 1, 60)) for _ in range(400)]
    assert np.mean([a.low <= truth <= a.high for a in found]) > 0.92
    assert np.mean([a.high - a.low for a in found]) < 0.25


def test_no_sample_tells_nothing() -> None:
    assert (auc([], [1]).value, auc([], [1]).low, auc([1], []).high) == (0.5, 0.0, 1.0)


def test_distances_to_the_closest_row() -> None:
    gold = ["the red fox ran over the hill", "a blue whale sings below the ship", "two owls sat up all night"]
    rows = ["The RED fox, ran over the hill.", "a blue whale sings below the boat", "qqq www", ""]
    near = closest(rows, gold)
    assert near[0] == pytest.approx(0, abs=1e-5)
    assert 0.05 < near[1] < 0.6
    assert near[2:].tolist() == [1, 1]
    assert closest(["a"], []).tolist() == [1]
    assert closest([], gold).tolist() == []


@pytest.mark.parametrize(("written", "read"), [
    ("seen&nbsp;today", "seen today"),
    ("seen&#32;to&#x64;ay", "seen today"),
    ("seen&amp;amp;nbsp;today", "seen today"),
    ("s\\u0065en\\ntod\\x61y", "seen today"),
    ("s\\\\\\u0065en today", "seen today"),
    ("seen%20tod%61y", "seen today"),
    ("seen%2520today", "seen today"),
    ("caf%C3%A9", "cafe"),
    ("<b>seen</b> <br/><span class='x y'>today</span><!-- now -->", " seen    today   'x y'  now "),
    ("".join(chr(0xE0000 + ord(c)) for c in "seen today"), "seen today"),
    ("\uff06nbsp;seen", " seen"),
    ("BP <120 and HR >60, 98% on 2L & R&D; p<.05 for <a value of 3 and >2", None),
    ("5%ZZ, s\\p, &notaname;", None),
])  # fmt: skip
def test_escapes_are_read_as_what_they_stand_for(written: str, read: str | None) -> None:
    assert fold(written) == (written if read is None else read)


@pytest.mark.parametrize("bad", ["&amp;", "%25", "\\", "<!--", "<b a=b ", "<b a='", "&#", "\\u", "<b a= "])
def test_escapes_take_linear_time(bad: str) -> None:
    begin = time.process_time()
    fold(bad * 20_000)
    fold(bad[0] + bad[1:] * 20_000)
    assert time.process_time() - begin < 2


def test_copies_and_identifiers_in_escapes_are_found() -> None:
    """A generator may answer in HTML, or escape what it wrote once more: whoever shows the rows reads the note."""
    notes = [" ".join(f"w{chr(97 + (i * 7 + k) % 26)}{chr(97 + k)}q" for k in range(20)) for i in range(12)]
    index = Index.of((f"p{i}", (note,)) for i, note in enumerate(notes))
    for change in (
        lambda t: t.replace(" ", "&nbsp;"),
        lambda t: "".join(f"&#{ord(c)};" for c in t),
        lambda t: "".join(f"\\u{ord(c):04x}" for c in t),
        lambda t: "".join(f"%{ord(c):02x}" for c in t),
        lambda t: " ".join(f"<b>{w}</b>" for w in t.split()),
        lambda t: " ".join(f"{w[0]}<wbr>{w[1:]}" for w in t.split()),
        lambda t: "".join(chr(0xE0000 + ord(c)) for c in t),
        lambda t: f"Seen today. <!-- {t} --> Stable.",
        lambda t: f"Seen <span class='x' title=\"{t}\">today</span>.",
    ):
        reach = index.reach([(change(note),) for note in notes])
        assert (reach.same | reach.spans() | reach.near()).all()
    assert identifiers_in("write to jan&#46;doe&#64;example&#46;org") == {"email"}
    assert identifiers_in("MRN \\u0030\\u0030417723") == {"record_number"}
    assert not identifiers_in("98% on room air & R&D")
