"""Gold among filler words, with words replaced, dropped or misspelt is found; honest notes and set phrases are not."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from support.audit_texts import PHRASES, TASK, hyphenated, rows_of, shuffled

from hf_synth.generation.gates import Gates
from hf_synth.generation.plan import Call, Pool
from hf_synth.privacy.audit import audit
from hf_synth.privacy.folding import Units
from hf_synth.privacy.overlap import Index

FILLERS = "also then clearly today really perhaps again indeed rather quite overall currently notably".split()  # noqa: SIM905
_SYLLABLES = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
_RNG = random.Random(0)
VOCABULARY = sorted({"".join(_RNG.choices(_SYLLABLES, k=3)) for _ in range(3_000)})
FREQUENCY = [1 / (i + 5) for i in range(len(VOCABULARY))]  # few words are common, most are rare


def notes(n: int, seed: int, words: int = 60) -> list[str]:
    """Write notes whose words are as frequent as those of a language, between set phrases."""
    rng = random.Random(seed)
    texts = []
    for _ in range(n):
        drawn = rng.choices(VOCABULARY, FREQUENCY, k=words)
        sentences = [" ".join(drawn[i : i + 12]).capitalize() + "." for i in range(0, words, 12)]
        texts.append(" ".join([*sentences, *rng.sample(PHRASES, 2), f"Dose {rng.randint(10, 99)} mg."]))
    return texts


GOLD, HONEST = notes(200, 1), notes(200, 2)


def filled(every: int) -> Callable[[random.Random, str], str]:
    def fill(rng: random.Random, text: str) -> str:
        return " ".join(w if i % every else f"{w} {rng.choice(FILLERS)}" for i, w in enumerate(text.split(), 1))

    return fill


def replaced(rng: random.Random, text: str) -> str:
    words = text.split()
    for i in rng.sample(range(len(words)), len(words) // 3):
        words[i] = f"syn{words[i]}"
    return " ".join(words)


def dropped(rng: random.Random, text: str) -> str:
    return " ".join(w for w in text.split() if rng.random() > 0.3)


def misspelt(rng: random.Random, text: str) -> str:
    return " ".join(w if rng.random() > 0.3 else f"{w[:2]}x{w[2:]}" for w in text.split())


def all_at_once(rng: random.Random, text: str) -> str:
    words = shuffled(rng, re.sub(r"\d", "7", text)).upper().split()
    words = [f"{w[:-1]}q" if rng.random() < 0.15 else w for w in words]
    return filled(4)(rng, " ".join(words).translate(str.maketrans("AEOC", "АЕОС")))  # Cyrillic


DISGUISES = {"every 4th": filled(4), "every 3rd": filled(3), "every 2nd": filled(2), "replaced": replaced,
             "dropped": dropped, "misspelt": misspelt, "all at once": all_at_once,
             "cut by hyphens": lambda rng, t: filled(4)(rng, t).replace("a", "a-\n"),
             "cut by other hyphens": lambda rng, t: hyphenated(filled(4)(rng, t)).replace("-", "\u2010")}  # fmt: skip


def held(index: Index, rows: list[str]) -> np.ndarray:
    reach = index.reach([(row,) for row in rows])
    return reach.same | reach.spans() | reach.near()


@pytest.fixture(scope="module")
def index() -> Index:
    return Index.of((str(i), (text,)) for i, text in enumerate(GOLD))


@pytest.mark.parametrize("how", DISGUISES)
def test_a_disguised_copy_is_found(how: str, index: Index) -> None:
    rng = random.Random(how)
    assert held(index, [DISGUISES[how](rng, text) for text in GOLD[:60]]).mean() >= 0.95


def test_honest_notes_are_not_held(index: Index) -> None:
    assert held(index, HONEST).mean() <= 0.005
    assert held(index, [filled(3)(random.Random(i), text) for i, text in enumerate(HONEST)]).mean() <= 0.005


def test_a_copy_in_half_of_a_longer_row_is_found(index: Index) -> None:
    rng = random.Random(3)
    rows = [f"{own} {filled(4)(rng, text)}" for own, text in zip(HONEST, GOLD, strict=True)]
    assert held(index, rows[:60]).mean() >= 0.95


def test_set_phrases_with_fillers_between_do_not_count(index: Index) -> None:
    rng = random.Random(4)
    assert not held(index, [filled(3)(rng, " ".join(rng.sample(PHRASES, 4))) for _ in range(50)]).any()


@pytest.mark.parametrize("n", [4, 20, 60])
def test_a_disguised_copy_is_found_in_little_gold(n: int) -> None:
    little = Index.of((str(i), (text,)) for i, text in enumerate(GOLD[:n]))
    rng = random.Random(5)
    assert held(little, [filled(4)(rng, text) for text in GOLD[:n]]).all()
    assert little.reach([(text,) for text in HONEST]).disguised.mean() <= 0.01


def test_a_patient_with_many_notes_holds_no_honest_row_and_hides_no_copy() -> None:
    many = notes(150, 6)
    gold = [("one patient" if i % 2 else str(i), text) for i, text in enumerate([*many, *many[:20], *GOLD[:150]])]
    large = Index.of((group, (text,)) for group, text in gold)
    assert held(large, HONEST).mean() <= 0.005
    rng = random.Random(7)
    copies = [filled(3)(rng, text) for text in [*many, *GOLD[:150]]]
    assert held(large, copies).mean() >= 0.95
    reach = large.reach([(copy,) for copy in copies])
    names = list(large.groups)
    right = [names[g] == group for g, (group, _) in zip(reach.linked_group, [*gold[:150], *gold[170:]], strict=True)]
    assert np.mean(right) >= 0.95


def test_the_order_of_gold_does_not_matter(index: Index) -> None:
    other = Index.of((str(i), (text,)) for i, text in reversed(list(enumerate(GOLD))))
    rows = [(filled(2)(random.Random(i), text),) for i, text in enumerate([*GOLD[:30], *HONEST[:30]])]
    a, b = index.reach(rows), other.reach(rows)
    assert (a.linked == b.linked).all()
    assert (a.disguised == b.disguised).all()


def test_generate_rejects_a_disguised_copy_as_it_comes() -> None:
    pool = Pool(TASK, rows_of(TASK, GOLD[:60]))
    rng = random.Random(8)
    rows = [{"text": text, "label": "no"} for text in [*(filled(4)(rng, t) for t in GOLD[:10]), *HONEST[:10]]]
    call = Call(0, (), ("no",), 1, ())
    faults = Gates(TASK, pool).faults(rows, [call] * len(rows))
    assert faults[:10] == ["copied"] * 10
    assert not {"copied", "duplicate"} & set(faults[10:])


def test_an_exemplar_that_is_half_rewritten_is_an_echo() -> None:
    gold = rows_of(TASK, GOLD)
    rng = random.Random(9)

    def half(text: str, own: str) -> str:
        words, others = text.split(), iter(2 * own.split())
        return " ".join(
            w if i % 12 < 8 else next(others) for i, w in enumerate(filled(3)(rng, " ".join(words)).split())
        )

    texts = [half(text, own) for text, own in zip(GOLD[:30], HONEST, strict=False)]
    rows = rows_of(TASK, texts, "synthetic")

    def echoes(ids: list[str]) -> int:
        shown = Dataset.from_dict({"seed_ids": [[id] for id in ids]})
        findings = audit(TASK, concatenate_datasets([rows, shown], axis=1), gold=gold)
        return sum("exemplar_echo" in flags for flags in findings.row_flags)

    assert echoes([f"gold-{i}" for i in range(30)]) >= 25
    assert echoes([f"gold-{i + 100}" for i in range(30)]) == 0


def test_texts_without_words_are_linked_to_nothing(index: Index) -> None:
    links = index.skip_grams.links(Units.of(["", "12 34", "a"]))
    assert links.linked.tolist() == [0, 0, 0]
    assert links.row.tolist() == [-1, -1, -1]
    assert not links.many.any()
    assert not Index.of([]).skip_grams.links(Units.of([GOLD[0]])).many.any()
