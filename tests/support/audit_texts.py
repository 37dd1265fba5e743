"""Texts for tests of the audit: notes of nonsense words between set phrases, and the disguises of a copy."""

from __future__ import annotations

import random
import re

from datasets import Dataset

from hf_synth.privacy.findings import COPIED, Findings
from hf_synth.task.task import Task

CANARY = "zebrafinch-7741-quokka"
WORDS = [a + b + c for a in ("ba", "ke", "lo", "mi", "su", "ta") for b in ("lin", "mor", "pa", "vex") for c in "aeiou"]
PHRASES = [
    "The patient was seen today in clinic for follow up after radiation therapy to the chest wall.",
    "Review of systems is otherwise negative in detail except as noted in the history above.",
    "All questions were answered and the patient agrees with the plan as outlined at this visit.",
    "Medications and allergies were reviewed with the patient and updated in the chart this morning.",
    "Lungs are clear to auscultation on both sides without wheezes or rales or rhonchi today.",
    "Return to clinic in one week or sooner for fever or trouble swallowing or new pain.",
]
TASK = Task.from_columns("notes", text_columns="text", label_column="label", labels=("no", "yes"), access="open")
PAIR = Task.from_columns(
    "pairs", text_columns=("premise", "hypothesis"), label_column="label", labels=("no", "yes"), access="open"
)


def note(rng: random.Random) -> str:
    """Write a note that no other shares, with set phrases between its sentences that many share."""
    parts = []
    for phrase in rng.sample(PHRASES, 4):
        parts += [" ".join(rng.choices(WORDS, k=rng.randint(12, 20))).capitalize() + ".", phrase]
    return " ".join(parts)


def notes(n: int, seed: int) -> list[str]:
    rng = random.Random(seed)
    return [note(rng) for _ in range(n)]


def rows_of(task: Task, texts: list[str], source: str = "gold", **more: object) -> Dataset:
    rows = [task.gold_row(f"{source}-{i}", None, i % 2, t) | {"source": source} | more for i, t in enumerate(texts)]
    return Dataset.from_list(rows, features=task.gold_features())


def pairs_of(left: list[str], right: list[str], source: str = "gold") -> Dataset:
    rows = [
        PAIR.gold_row(f"{source}-{i}", None, 0, a, b) | {"source": source}
        for i, (a, b) in enumerate(zip(left, right, strict=True))
    ]
    return Dataset.from_list(rows, features=PAIR.gold_features())


def changed(rng: random.Random, text: str, share: float = 0.06) -> str:
    words = text.split()
    for i in rng.sample(range(len(words)), round(share * len(words))):
        words[i] = rng.choice(WORDS)
    return " ".join(words)


def hyphenated(text: str) -> str:
    return re.sub(r"(\w{3})(\w{2,})", r"\1-\n\2", text)


def shuffled(rng: random.Random, text: str) -> str:
    sentences = re.split(r"(?<=\.) ", text)
    rng.shuffle(sentences)
    return " ".join(sentences)


def numbered(rng: random.Random, text: str) -> str:
    """Put a number after every fourth word."""
    return " ".join(f"{w} {rng.randrange(10_000)}" if i % 4 == 0 else w for i, w in enumerate(text.split()))


LOOK_ALIKE = str.maketrans("aeopcxABEHKMOPTX", "аеорсхАВЕНКМОРТХ")
WIDE = {i: i + 0xFEE0 for i in range(0x21, 0x7F)}
DISGUISES = {
    "verbatim": lambda rng, t: t,
    "case": lambda rng, t: t.upper(),
    "punctuation": lambda rng, t: t.replace(" ", ", ").replace(".", " ;--"),
    "whitespace": lambda rng, t: t.replace(" ", "\u00a0\n\t"),
    "no whitespace": lambda rng, t: t.replace(" ", ""),
    "letters apart": lambda rng, t: " ".join(t),
    "zero width": lambda rng, t: "\u200b".join(t),
    "soft hyphens": lambda rng, t: "\u00ad".join(t),
    "combining marks": lambda rng, t: t.replace("a", "a\u0301").replace("e", "e\u0308"),
    "look-alikes": lambda rng, t: t.translate(LOOK_ALIKE),
    "wide letters": lambda rng, t: t.translate(WIDE),
    "hyphens": lambda rng, t: hyphenated(t),
    "6% of words": changed,
    "order": shuffled,
    "order and 6% of words": lambda rng, t: changed(rng, shuffled(rng, t)),
    "numbers put in": numbered,
}


def copied(found: Findings) -> list[bool]:
    """Return whether each row has a flag of a copy."""
    return [bool(set(flags) & set(COPIED)) for flags in found.row_flags]
