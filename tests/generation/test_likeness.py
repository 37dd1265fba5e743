"""Figures of likeness are 1 for gold itself, and each kind of difference shows in one of them.

Were a figure wrong, gold held against gold would fall outside the range of its own halves: that is tested first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from hf_synth.generation.likeness import MEANINGS, Likeness, likeness, likeness_line
from hf_synth.privacy.closeness import closest
from hf_synth.task.task import Task

TASK = Task.from_columns("notes", text_columns="text", label_column="label", labels=("a", "b"), access="restricted")
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyz"))
_RNG = np.random.default_rng(7)
VOCABULARY = np.array(["".join(_RNG.choice(_LETTERS, _RNG.integers(3, 11))) for _ in range(1_200)])
_SHARE = 1 / (10 + np.arange(len(VOCABULARY)))


def slip(word: str, rng: np.random.Generator) -> str:
    if len(word) < 6:
        return word
    i = int(rng.integers(1, len(word) - 2))
    return word[:i] + word[i + 1] + word[i] + word[i + 2 :]


def texts_of(n: int, seed: int, *, slips: float = 0.02) -> list[str]:
    """Write texts of words by their frequency, a few of them misspelt."""
    rng = np.random.default_rng([11, seed])
    texts = []
    for _ in range(n):
        words = rng.choice(VOCABULARY, int(rng.integers(20, 60)), p=_SHARE / _SHARE.sum())
        texts.append(" ".join(slip(w, rng) if rng.random() < slips else w for w in words))
    return texts


def rows(texts: list[str], source: str = "gold", *, each: int = 1) -> Dataset:
    made = [
        TASK.gold_row(f"{source}-{i}", f"p{i // each}", i % 2, text) | {"source": source}
        for i, text in enumerate(texts)
    ]
    return Dataset.from_list(made, features=TASK.gold_features())


GOLD = texts_of(160, 0)


def compared(texts: list[str], gold: list[str] = GOLD) -> dict[str, float]:
    found = likeness(TASK, rows(texts, "synthetic"), rows(gold))
    assert not found.why
    return {f.name: f.ratio for f in found.figures}


def test_gold_is_as_like_gold_as_gold_is_to_itself() -> None:
    """Fresh texts of the same source: nearly all ratios are near 1, and within the range of the halves."""
    figures = [
        f for seed in range(1, 7) for f in likeness(TASK, rows(texts_of(100, seed), "synthetic"), rows(GOLD)).figures
    ]
    assert {f.name for f in figures} == set(MEANINGS)
    assert np.mean([f.inside for f in figures]) >= 0.9
    for name in MEANINGS:
        ratios = [f.ratio for f in figures if f.name == name]
        assert abs(np.mean(ratios) - 1) < (0.35 if name in ("misspelt", "new_words") else 0.05), (name, ratios)
        assert all(f.low <= 1 <= f.high for f in figures if f.name == name)


@pytest.mark.parametrize(
    ("name", "change", "expected"),
    [
        ("distance", lambda i: GOLD[i], (0.0, 0.02)),
        ("words", lambda i: f"{ALIKE[i]} {ALIKE[(i + 1) % 100]}", (1.8, 2.2)),
        ("spread", lambda i: ALIKE[i % 5], (0.0, 0.2)),
        ("mattr", lambda i: " ".join(ALIKE[i].split()[:6] * 6), (0.0, 0.85)),
        ("misspelt", lambda i: " ".join(slip(w, np.random.default_rng(i)) if k % 5 == 0 else w
                                        for k, w in enumerate(ALIKE[i].split())), (3.0, 40.0)),
        ("misspelt", lambda i: CLEAN[i], (0.0, 0.3)),
        ("new_words", lambda i: ALIKE[i] + " " + " ".join(f"zz{i}x{k}" for k in range(8)), (2.0, 40.0)),
    ],
)  # fmt: skip
def test_each_figure_shows_what_it_is_for(
    name: str, change: Callable[[int], str], expected: tuple[float, float]
) -> None:
    low, high = expected
    assert low <= compared([change(i) for i in range(100)])[name] <= high


ALIKE, CLEAN = texts_of(100, 9), texts_of(100, 9, slips=0.0)


def test_words_in_another_order_are_no_longer_the_sequences_of_gold() -> None:
    rng = np.random.default_rng(0)
    gold = [" ".join(VOCABULARY[j * 12 : j * 12 + 12]) for j in rng.integers(0, 12, 120)]  # twelve set phrases
    ordered = [gold[i] for i in rng.integers(0, 120, 100)]
    shuffled = [" ".join(rng.permutation(text.split())) for text in ordered]
    assert compared(ordered, gold).get("spread", 1.0) == pytest.approx(1, abs=0.1)
    assert compared(shuffled, gold)["spread"] > 4


def test_too_little_is_not_compared() -> None:
    few = likeness(TASK, rows(ALIKE, "synthetic"), rows(GOLD, each=8))  # 20 patients
    assert (few.figures, few.why) == ((), "it needs gold of 40 patients (or notes) or more, and gold has 20")
    assert likeness_line(few.to_json()) == str(few) == f"not compared: {few.why}"
    short = likeness(TASK, rows(ALIKE[:19], "synthetic"), rows(GOLD))
    assert short.why == "it needs 20 synthetic texts or more, and there are 19"
    other = likeness(TASK, rows(ALIKE, "gold"), rows(GOLD)).why
    assert other.endswith(f"there are 0 ({len(ALIKE)} rows are of another source and are left out)")
    assert likeness(TASK, rows(["", *ALIKE[:19]], "synthetic"), rows(GOLD)).why


def test_rows_of_one_patient_are_not_compared_with_each_other() -> None:
    """Two notes of one patient repeat each other: gold would seem nearer to itself than two patients are."""
    pairs = [text for text in GOLD[:60] for _ in range(2)]
    assert likeness(TASK, rows(ALIKE, "synthetic"), rows(pairs, each=2)).figures[-1].ratio == pytest.approx(1, abs=0.05)
    groups = np.arange(6) // 2
    assert closest(pairs[:6], pairs[:6]).max() < 1e-5
    assert closest(pairs[:6], pairs[:6], groups=(groups, groups)).min() > 0.1


def test_a_manifest_has_numbers_alone() -> None:
    found = likeness(TASK, rows(ALIKE, "synthetic"), rows(GOLD))
    plain = json.loads(json.dumps(found.to_json()))
    assert set(plain["figures"]) == set(MEANINGS)
    assert all(r == round(r, 2) for f in plain["figures"].values() for r in (f["ratio"], *f["halves"]))
    assert likeness_line(plain) == str(found)
    assert likeness(TASK, rows(ALIKE, "synthetic"), rows(GOLD)) == found, "the same seed, the same figures"
    for broken in (None, {}, {"figures": {"words": {}}, "rows": 1}, {"figures": [], "rows": 1}, "text"):
        assert likeness_line(broken) == ""
    assert "secret" not in likeness_line({"figures": {"secret": plain["figures"]["words"]}, "rows": 1})
    assert Likeness(why="few").to_json() == {"why": "few"}


def test_pairs_and_words_of_no_letters_are_read() -> None:
    pair = replace(TASK, text_columns=("a", "b"))
    made = [pair.gold_row(f"r{i}", None, 0, t, "12 / 7") for i, t in enumerate(GOLD)]
    gold = Dataset.from_list(made, features=pair.gold_features())
    synthetic = gold.remove_columns("source").add_column("source", ["synthetic"] * len(gold))
    assert {f.name: f.ratio for f in likeness(pair, synthetic, gold).figures}["distance"] == 0
    empty = rows(["..."] * 60)
    assert likeness(TASK, rows(["!?"] * 30, "synthetic"), empty).figures is not None
