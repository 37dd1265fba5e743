"""Benchmark of the check for copies of gold: shares found by disguise and strength, and honest rows that are held.

    python benchmarks/copies.py --open FOLDER [--written FOLDER ...] [--gold 1000 200 40] [--out FILE.md] [--further]

Gold are notes and dialogues of MTS-Dialog (`--open`, the folder of its tables: real, open text) and notes of the
artificial clinic. Copies of gold are disguised in many ways, each at several strengths. Honest rows are notes of other
patients with the same section, notes that an LLM wrote from such gold (`--written`: a folder of `generate`, or any
folder above some), and other notes of the artificial clinic. A copy that is not found leaves the site; an honest row
that is held is lost.
"""

from __future__ import annotations

import argparse
import base64
import codecs
import csv
import random
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hf_synth.demo.clinic import write_notes
from hf_synth.privacy.folding import digest
from hf_synth.privacy.overlap import Index
from hf_synth.reports.page import markdown_table

FILLERS = (
    "also", "then", "clearly", "today", "really", "perhaps", "again", "indeed", "rather", "quite", "overall",
    "currently", "notably", "basically", "still", "actually", "generally", "somewhat", "likely", "further", "moreover",
    "thus", "here", "now", "certainly", "apparently", "essentially", "often", "usually", "otherwise", "simply",
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


# --- further disguises, for the encodings and forms that a row may have -----------------------------------------------
_SHORT = {
    "patient": "pt", "history": "hx", "years": "yrs", "blood pressure": "bp", "without": "w/o", "with": "w/",
    "diagnosis": "dx", "treatment": "tx", "symptoms": "sx", "right": "rt", "left": "lt", "hypertension": "htn",
    "diabetes": "dm", "and": "&", "medications": "meds", "previous": "prev", "significant": "sig", "normal": "nl",
    "mother": "mo", "father": "fa", "the": "", "positive": "+", "negative": "-", "denies": "neg for",
}  # fmt: skip
_NAMES = ("Smith", "Meyer", "Ivanov", "Rossi", "Kowalski")
_DIGITS = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]


def replacing(pattern: str, by: str | Callable[[re.Match[str]], str], flags: int = 0) -> Disguise:
    return lambda rng, text, words: re.sub(pattern, by, text, flags=flags)


def abbreviated(rng: random.Random, text: str, words: list[str]) -> str:
    for word, short in _SHORT.items():
        text = re.sub(rf"\b{word}\b", short, text, flags=re.IGNORECASE)
    return text


def clauses_turned(rng: random.Random, text: str, words: list[str]) -> str:
    """Reverse the order of the clauses of each sentence."""
    sentences = re.split(r"(?<=[.;:?!])\s+|\n+", text)
    return " ".join(", ".join(re.split(r",\s*|\s+(?=(?:and|but|with|which|who)\s)", s)[::-1]) for s in sentences)


def wrapped(rng: random.Random, text: str, words: list[str]) -> str:
    """Cut lines of 34 characters, words with a hyphen."""
    plain = " ".join(text.split())
    return "\n".join(re.sub(r"(?<=[A-Za-z])\Z", "-", plain[i : i + 34]) for i in range(0, len(plain), 34))


FURTHER: dict[str, Disguise] = {
    "digits as words": replacing(r"\d", lambda match: f" {_DIGITS[int(match[0])]} "),
    "other names": lambda rng, text, words: re.sub(r"(?<=[a-z,] )[A-Z][a-z]+", lambda _: rng.choice(_NAMES), text),
    "clauses of each sentence in reverse order": clauses_turned,
    "usual abbreviations": abbreviated,
    "lines of 34 characters, words cut by hyphens": wrapped,
    "one row of a table": lambda rng, text, words: f"| {' | '.join(text.split())} |",
    "the first half alone": lambda rng, text, words: " ".join(text.split()[: len(text.split()) // 2]),
    "words in reverse order": lambda rng, text, words: " ".join(text.split()[::-1]),
    "a tag of HTML in every word": replacing(r"(\w{2})(\w+)", r"\1<wbr>\2"),
    "base64": lambda rng, text, words: base64.b64encode(text.encode()).decode(),
    "hexadecimal": lambda rng, text, words: text.encode().hex(),
    "decimal codes": lambda rng, text, words: " ".join(map(str, text.encode())),
    "ROT13": lambda rng, text, words: codecs.encode(text, "rot13"),
    "letters in reverse order": lambda rng, text, words: text[::-1],
    "digits for letters": lambda rng, text, words: text.translate(str.maketrans("aeios", "43105")),
    "vowels left out": replacing(r"(?<=\w)[aeiou]", ""),
    "a letter after every word": replacing(r"\b([A-Za-z]{2,})\b", r"\1x"),
}


# --- texts ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Texts:
    """Gold, and honest rows by where they come from."""

    name: str
    gold: list[str]
    honest: dict[str, list[str]]


def open_texts(folder: Path, column: str, n: int, seed: int, written: Iterable[str] = ()) -> Texts:
    """Draw n texts of MTS-Dialog as gold; the others with the same sections are honest rows, unless gold has them."""
    rows: list[tuple[str, str, str]] = []
    for name in FOLDERS:
        with (folder / f"MTS-Dialog-{name}.csv").open(encoding="utf-8", newline="") as file:
            rows += [(name, row["section_header"], row[column]) for row in csv.DictReader(file)]
    random.Random(seed).shuffle(rows)
    gold, others = rows[:n], rows[n:]
    known = {digest((text,)) for *_, text in gold}
    sections = {section for _, section, _ in gold}
    others = [row for row in others if digest((row[2],)) not in known]
    honest = {"other patients, same sections": [text for _, section, text in others if section in sections]}
    if fresh := [text for text in written if digest((text,)) not in known]:
        honest["written by an LLM from gold of this kind"] = fresh
    return Texts(f"MTS-Dialog, {column}", [text for *_, text in gold], honest)


def clinic_texts(n: int, seed: int) -> Texts:
    gold, others = ([note.text for note in write_notes(k, seed=2 * seed + i)] for i, k in enumerate((n, 1_000), 7))
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


def held(index: Index, rows: list[str]) -> tuple[int, int]:
    """Count the rows that are held; and those that are held for their skip-grams alone."""
    reach = index.reach([(row,) for row in rows])
    hits = reach.same | reach.spans() | reach.near()
    before = reach._replace(disguised=reach.disguised & False)
    return int(hits.sum()), int((hits & ~(before.same | before.spans() | before.near())).sum())


def measure(draws: list[Texts], copies: int, disguises: Mapping[str, Disguise] = DISGUISES) -> str:
    """Return a section of the page: copies found by the length of the text of gold, and honest rows that are held."""
    found: dict[str, dict[str, list[int]]] = {name: {length: [0, 0] for length in LENGTHS} for name in disguises}
    honest: dict[str, list[int]] = {}
    for texts in draws:
        index = Index.of((str(i), (text,)) for i, text in enumerate(texts.gold))
        words = [word for rows in texts.honest.values() for text in rows for word in text.split()]
        for length, (low, high) in LENGTHS.items():
            chosen = [text for text in dict.fromkeys(texts.gold) if low <= len(text.split()) <= high][:copies]
            for name, disguise in disguises.items() if chosen else ():
                rng = random.Random(name)
                hits, _ = held(index, [disguise(rng, text, words) for text in chosen])
                found[name][length][0] += hits
                found[name][length][1] += len(chosen)
        for name, rows in texts.honest.items():
            counts = honest.setdefault(name, [0, 0, 0])
            for k, n in enumerate((len(rows), *held(index, rows))):
                counts[k] += n
    sizes = {length: n for length in LENGTHS if (n := next(iter(found.values()))[length][1]) >= 20}
    table = [[name, *(f"{by[length][0] / by[length][1]:.0%}" for length in sizes)] for name, by in found.items()]
    held_rows = [
        [name, f"{n:,}", f"{hits:,}", f"{hits / n:.1%}", f"{more / n:.1%}"] for name, (n, hits, more) in honest.items()
    ]
    return SECTION.format(
        name=draws[0].name, gold=len(draws[0].gold), draws=len(draws),
        copies=markdown_table(["copy", *(f"{length} ({n:,})" for length, n in sizes.items())], table),
        honest=markdown_table(["honest rows", "rows", "held", "share", "for skip-grams alone"], held_rows),
    )  # fmt: skip


SECTION = """
## {name}, {gold:,} rows of gold

{draws} draws. Share of the copies found, by the length of the text of gold, with the number of texts:

{copies}

{honest}
"""
TEXT = """# Disguised copies of gold

Measured by `benchmarks/copies.py`. Each copy is a text of gold in a disguise. It counts as found where `audit` would
withhold it and `generate` would reject it. Honest rows are other notes; those that are held are lost.

The check looks for skip-grams of rarer words (`hf_synth/privacy/skip_grams.py`), besides windows of words and of
letters. Of texts of 24 words and more, windows alone find none with a filler after every fourth word, or with half of
the words replaced. Of the notes of other patients in MTS-Dialog that are held, some do repeat wording of gold, and some
use a form that fewer than three notes of gold have. Dialogues that are held repeat one dialogue of gold: they are parts
of one visit, or short ones with a word or two changed. A higher limit for skip-grams would keep two of the 17 at most.
Notes of an LLM that are held follow a note of gold with other words between.

## What is not found

- Most disguised copies of texts of under 24 words; from three words in ten replaced or left out on, also many of 24 to
  59 words: what is left of them is as near to gold as honest notes are.
- In texts of 60 words and more: half of the words replaced by those of other notes, in part, and a letter changed in
  every word, for the most part.
- Notes that consist of set phrases for the most part, as those of the artificial clinic do, with words of other notes
  between or many words replaced.
- A paraphrase: gold in other words, or in another language.
- Letters that are replaced, moved or left out in every word: ROT13, letters in reverse order, digits for letters, no
  vowels, a letter after every word. Base64, hexadecimal and decimal codes are read as what they stand for.
- Pieces of texts of under 24 words over several rows.

What is held, though it may be honest: reports of one form of 24 words and more that differ from a note of gold in
numbers alone, where fewer than three groups of gold have that form. They look like copies with other numbers. With one
or two notes of gold, every phrase counts as a copy.
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--open", type=Path, required=True, help="folder of MTS-Dialog")
    parser.add_argument("--written", type=Path, nargs="*", default=[], help="folders with notes of an LLM")
    parser.add_argument("--gold", type=int, nargs="+", default=[1_000, 200, 40], help="rows of gold")
    parser.add_argument("--draws", type=int, default=3, help="draws of gold")
    parser.add_argument("--copies", type=int, default=100, help="copies of each disguise, strength and length")
    parser.add_argument("--further", action="store_true", help="only further disguises, encodings among them")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    written = written_texts(args.written)
    parts = [] if args.further else [TEXT]
    for n in args.gold:
        seeds = range(args.draws)
        for draws in (
            [open_texts(args.open, "section_text", n, seed, written) for seed in seeds],
            [open_texts(args.open, "dialogue", n, seed) for seed in seeds],
            [clinic_texts(n, seed) for seed in seeds],
        ):
            parts.append(measure(draws, args.copies, FURTHER if args.further else DISGUISES))
            print(parts[-1], flush=True)
    if args.out:
        args.out.write_text("".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main()
