"""Benchmark of the check for copies of gold: shares found by disguise and strength, and honest rows that are held.

    python benchmarks/copies.py --open FOLDER [--written FOLDER ...] [--gold 1000] [--copies 200] [--out FILE.md]

Gold are notes and dialogues of MTS-Dialog (`--open`, the folder of its tables: real, open text) and notes of the
artificial clinic. Copies of gold are disguised in many ways, each at several strengths. Honest rows are notes of other
patients with the same section, notes that an LLM wrote from such gold (`--written`: a folder of `generate`, or any
folder above some), and other notes of the artificial clinic. A copy that is not found leaves the site; an honest row
that is held is lost.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from hf_synth.demo.clinic import write_notes
from hf_synth.privacy.folding import digest
from hf_synth.privacy.overlap import Index
from hf_synth.reports.page import markdown_table

FILLERS = (
    "also", "then", "clearly", "today", "really", "perhaps", "again", "indeed", "rather", "quite", "overall",
    "currently", "notably", "basically", "still", "actually", "generally", "somewhat", "likely", "further",
    "moreover", "thus", "here", "now", "certainly", "apparently", "essentially", "often", "usually",
    "otherwise", "simply", "mostly",
)  # fmt: skip
LOOK_ALIKE = str.maketrans("aeopcxi", "аеорсхі")
FOLDERS = ("TrainingSet", "ValidationSet", "TestSet-1-MEDIQA-Chat-2023")
Disguise = Callable[[random.Random, str, list[str]], str]


# --- disguises: each takes a text and the words of other notes --------------------------------------------------------
def inserted(every: int, *, own: bool = False) -> Disguise:
    """Insert a filler word after every so many words; `own`: a word of other notes."""

    def disguise(rng: random.Random, text: str, words: list[str]) -> str:
        out: list[str] = []
        for i, word in enumerate(text.split(), 1):
            out += [word, rng.choice(words if own else FILLERS)] if i % every == 0 else [word]
        return " ".join(out)

    return disguise


def replaced(share: float, *, own: bool = True) -> Disguise:
    """Replace a share of the words by words of other notes, or by words that gold does not have."""

    def disguise(rng: random.Random, text: str, words: list[str]) -> str:
        out = text.split()
        for i in rng.sample(range(len(out)), round(share * len(out))):
            out[i] = rng.choice(words) if own else f"{rng.choice(FILLERS)[:3]}{out[i][::-1].strip('.,;:')}"
        return " ".join(out)

    return disguise


def dropped(share: float) -> Disguise:
    def disguise(rng: random.Random, text: str, words: list[str]) -> str:
        out = text.split()
        gone = set(rng.sample(range(len(out)), round(share * len(out))))
        return " ".join(word for i, word in enumerate(out) if i not in gone)

    return disguise


def misspelt(share: float) -> Disguise:
    """Change a letter in a share of the words of four letters and more."""

    def disguise(rng: random.Random, text: str, words: list[str]) -> str:
        def typo(match: re.Match[str]) -> str:
            word = match[0]
            if rng.random() >= share:
                return word
            at = rng.randrange(len(word))
            return word[:at] + rng.choice("abcdefghijklmnopqrstuvwxyz") + word[at + 1 :]

        return re.sub(r"[A-Za-z]{4,}", typo, text)

    return disguise


def swapped(every: int) -> Disguise:
    """Swap every so manyth word with the next."""

    def disguise(rng: random.Random, text: str, words: list[str]) -> str:
        out = text.split()
        for i in range(0, len(out) - 1, every):
            out[i], out[i + 1] = out[i + 1], out[i]
        return " ".join(out)

    return disguise


def renumbered(rng: random.Random, text: str, words: list[str]) -> str:
    return re.sub(r"\d", lambda _: str(rng.randrange(10)), text)


def reordered(rng: random.Random, text: str, words: list[str]) -> str:
    sentences = re.split(r"(?<=[.;:?!])\s+|\n+", text)
    rng.shuffle(sentences)
    return " ".join(sentences)


def then(*steps: Disguise) -> Disguise:
    def disguise(rng: random.Random, text: str, words: list[str]) -> str:
        for step in steps:
            text = step(rng, text, words)
        return text

    return disguise


def within(share: float) -> Disguise:
    """Put the text among words of other notes, of which it is a share."""

    def disguise(rng: random.Random, text: str, words: list[str]) -> str:
        more = round(len(text.split()) * (1 / share - 1))
        at = rng.randrange(more + 1)
        start = rng.randrange(max(1, len(words) - more))
        host = words[start : start + more]
        return " ".join([*host[:at], text, *host[at:]])

    return disguise


def hyphenated(rng: random.Random, text: str, words: list[str]) -> str:
    return re.sub(r"(\w{3})(\w{2,})", r"\1-\n\2", text)


DISGUISES: dict[str, Disguise] = {
    "verbatim": lambda rng, text, words: text,
    "upper case, other signs, wide spaces": lambda rng, text, words: re.sub(
        r"\s+", " \u00a0", text.upper().replace(".", " ;")
    ),
    "look-alike letters": lambda rng, text, words: text.translate(LOOK_ALIKE),
    "words cut by hyphens": hyphenated,
    "no spaces": lambda rng, text, words: re.sub(r"\s+", "", text),
    "other numbers": renumbered,
    "sentences in another order": reordered,
}
for _every in (8, 4, 3, 2, 1):
    DISGUISES[f"a filler after every {_every} words"] = inserted(_every)
for _every in (4, 2):
    DISGUISES[f"a word of other notes after every {_every} words"] = inserted(_every, own=True)
for _share in (0.1, 0.25, 0.33, 0.5):
    DISGUISES[f"{_share:.0%} of words replaced by unknown ones"] = replaced(_share, own=False)
for _share in (0.1, 0.25, 0.33, 0.5):
    DISGUISES[f"{_share:.0%} of words replaced by those of other notes"] = replaced(_share)
for _share in (0.1, 0.25, 0.5):
    DISGUISES[f"{_share:.0%} of words dropped"] = dropped(_share)
for _share in (0.1, 0.25, 0.5, 1.0):
    DISGUISES[f"{_share:.0%} of words misspelt"] = misspelt(_share)
for _every in (6, 3, 2):
    DISGUISES[f"every word of {_every} swapped with the next"] = swapped(_every)
DISGUISES |= {
    "fillers (4), 25% replaced, other order and numbers": then(
        renumbered, reordered, inserted(4), replaced(0.25, own=False)
    ),
    "fillers (4), look-alikes and hyphens": then(
        inserted(4), lambda rng, text, words: text.translate(LOOK_ALIKE), hyphenated
    ),
    "fillers (3), half of a longer row": then(inserted(3), within(0.5)),
    "fillers (3), a quarter of a longer row": then(inserted(3), within(0.25)),
}


# --- texts ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Texts:
    """Gold, and honest rows by where they come from."""

    name: str
    gold: list[str]
    honest: dict[str, list[str]]


def open_texts(folder: Path, column: str, n: int, written: Iterable[str] = ()) -> Texts:
    """Read texts of MTS-Dialog: n of the training set as gold, and the others as honest rows, unless gold has them."""
    rows: list[tuple[str, str, str]] = []
    for name in FOLDERS:
        with (folder / f"MTS-Dialog-{name}.csv").open(encoding="utf-8", newline="") as file:
            rows += [(name, row["section_header"], row[column]) for row in csv.DictReader(file)]
    rng = random.Random(0)
    training = [row for row in rows if row[0] == FOLDERS[0]]
    rng.shuffle(training)
    gold = training[:n]
    known = {digest((text,)) for *_, text in gold}
    sections = {section for _, section, _ in gold}
    others = [r for r in [*training[n:], *(r for r in rows if r[0] != FOLDERS[0])] if digest((r[2],)) not in known]
    honest = {"other patients, same sections": [text for _, section, text in others if section in sections]}
    if fresh := [text for text in written if digest((text,)) not in known]:
        honest["written by an LLM from gold of this kind"] = fresh
    return Texts(f"MTS-Dialog, {column}", [text for *_, text in gold], honest)


def clinic_texts(n: int) -> Texts:
    gold, others = ([note.text for note in write_notes(n, seed=seed)] for seed in (7, 8))
    known = {digest((text,)) for text in gold}
    return Texts("artificial clinic", gold, {"other notes": [t for t in others if digest((t,)) not in known]})


def written_texts(folders: Iterable[Path]) -> list[str]:
    """Read the distinct rows that an LLM wrote in folders of `generate`."""
    import pyarrow.parquet as pq

    texts: dict[str, None] = {}
    for folder in folders:
        for file in sorted(folder.rglob("train.parquet")):
            table = pq.read_table(file)
            if "source" in table.column_names and "text" in table.column_names:
                rows = zip(table["text"].to_pylist(), table["source"].to_pylist(), strict=True)
                texts |= {text: None for text, source in rows if text and source == "synthetic"}
    return list(texts)


# --- figures ----------------------------------------------------------------------------------------------------------
LENGTHS = {"12 to 23 words": (12, 23), "24 to 59 words": (24, 59), "60 words and more": (60, 100_000)}


def held(index: Index, rows: list[str]) -> list[bool]:
    reach = index.reach([(row,) for row in rows])
    hits: list[bool] = (reach.same | reach.spans() | reach.near()).tolist()
    return hits


def length_of(text: str) -> str | None:
    n = len(text.split())
    return next((name for name, (low, high) in LENGTHS.items() if low <= n <= high), None)


def measure(texts: Texts, copies: int) -> str:
    """Return a section of the page: copies found by the length of the text of gold, and honest rows that are held."""
    index = Index.of((str(i), (text,)) for i, text in enumerate(texts.gold))
    groups: dict[str, list[str]] = {name: [] for name in LENGTHS}
    for text in dict.fromkeys(texts.gold):
        if length := length_of(text):
            groups[length].append(text)
    groups = {name: found[:copies] for name, found in groups.items() if len(found) >= 20}
    words = [word for rows in texts.honest.values() for text in rows for word in text.split()]
    table: list[list[object]] = []
    for name, disguise in DISGUISES.items():
        cells = []
        for chosen in groups.values():
            rng = random.Random(name)
            found = held(index, [disguise(rng, text, words) for text in chosen])
            cells.append(f"{sum(found) / len(found):.0%}")
        table.append([name, *cells])
    honest: list[list[object]] = []
    for name, rows in texts.honest.items():
        hits = held(index, rows)
        honest.append([name, f"{len(rows):,}", f"{sum(hits):,}", f"{sum(hits) / max(1, len(rows)):.1%}"])
    return SECTION.format(
        name=texts.name, gold=len(texts.gold), copies=markdown_table(["copy", *groups], table),
        sizes=", ".join(f"{len(chosen)} of {name}" for name, chosen in groups.items()),
        honest=markdown_table(["honest rows", "rows", "held", "share"], honest),
    )  # fmt: skip


SECTION = """
## {name}, {gold:,} rows of gold

Share of the copies found, of {sizes}:

{copies}

{honest}
"""
TEXT = """# Disguised copies of gold

Measured by `benchmarks/copies.py`. Each copy is a text of gold in a disguise. A row counts as found where `audit` would
withhold it and `generate` would reject it. Honest rows copy nothing; those that are held are lost.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=Path, required=True, help="folder of MTS-Dialog")
    parser.add_argument("--written", type=Path, nargs="*", default=[], help="folders with notes of an LLM")
    parser.add_argument("--gold", type=int, nargs="+", default=[1_000, 100, 20], help="rows of gold")
    parser.add_argument("--copies", type=int, default=200, help="copies of each disguise, strength and length")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    written = written_texts(args.written)
    parts = [TEXT]
    for n in args.gold:
        for texts in (
            open_texts(args.open, "section_text", n, written),
            open_texts(args.open, "dialogue", n),
            clinic_texts(n),
        ):
            parts.append(measure(texts, args.copies))
            print(parts[-1], flush=True)
    if args.out:
        args.out.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
