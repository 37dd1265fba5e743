"""False alarms and detection rates of two patterns: names after a title, and phone numbers of seven digits.

    python benchmarks/identifiers.py MTS_DIALOG_FOLDER --out docs/results/identifiers.md      # seconds

MTS-Dialog (arXiv 2301.12984, CC BY 4.0) is real, open text: its sections and dialogues are searched. All matches were
read one by one; `NO_NAMES` are those that are nobody's name. Then forms are planted in the same texts. The notes of the
artificial clinic hold no name and no number, so that each match there is a false one.
"""

from __future__ import annotations

import argparse
import csv
import random
import re
import sys
from collections import Counter
from pathlib import Path

from hf_synth.demo.clinic import write_notes
from hf_synth.privacy.identifiers import identifiers_in

KINDS = ("titled_name", "phone")
NO_NAMES = {"Mr. Sample", "Mister Sample", "Doctor F. Also"}  # of the matches in MTS-Dialog, read one by one
MATCH = re.compile(r"\b(?:Drs?|Mrs?|Ms|Doctor|Miss|Mister|Nurse)\b\.?\s(?:[A-Z]\. ?)?[A-Z][a-z][\w'-]*")
NAMES = ("Patel", "Nguyen", "O'Brien", "de la Cruz", "McAllister", "Ng", "M\u00fcller", "Smith-Jones")
FORMS = {
    "Dr. NAME": ("titled_name", "{title} {name}", ("Dr.", "Mr.", "Mrs.", "Ms.", "Prof.")),
    "Doctor NAME, Miss NAME": ("titled_name", "{title} {name}", ("Doctor", "Miss", "Nurse", "Mister")),
    "dr NAME, DR. NAME": ("titled_name", "{title} {name}", ("dr", "Dr", "mr", "mrs.")),
    "a name without a title": ("titled_name", "{name}", ("",)),
    "555-0141": ("phone", "{area}-{line}", ("",)),
    "call 555 0141": ("phone", "{title} {area} {line}", ("call", "phone", "text", "reach me at")),
    "555 0141, without a word": ("phone", "{area} {line}", ("",)),
}


def mts_texts(folder: Path) -> list[str]:
    """Return the sections and dialogues of MTS-Dialog."""
    texts = []
    for file in sorted(folder.glob("*.csv")):
        with file.open(encoding="utf-8-sig", newline="") as opened:
            texts += [row[column] for row in csv.DictReader(opened) for column in ("section_text", "dialogue")]
    return texts


def found_in(texts: list[str]) -> list[str]:
    """Return a row for each kind: texts with a match, and how many of them hold nothing but false ones."""
    rows = []
    for kind in KINDS:
        hits = [text for text in texts if kind in identifiers_in(text)]
        matches = [set(MATCH.findall(text)) for text in hits]
        false = sum(bool(words) and words <= NO_NAMES for words in matches) if kind == "titled_name" else len(hits)
        rows.append(f"| {kind} | {len(texts):,} | {len(hits)} | {false} |")
    return rows


def planted(texts: list[str], each: int, rng: random.Random) -> list[str]:
    """Return a row for each form: how many of the planted ones are found."""
    clean = [text for text in texts if not {*KINDS} & identifiers_in(text)]
    rows = []
    for what, (kind, form, titles) in FORMS.items():
        found = 0
        for _ in range(each):
            words = rng.choice(clean).split(" ")
            area, line = str(rng.randint(200, 999)), f"{rng.randint(0, 9999):04d}"
            name = rng.choice(NAMES)
            planted = form.format(title=rng.choice(titles), name=name, area=area, line=line)
            words.insert(rng.randint(0, len(words)), planted)
            found += kind in identifiers_in(" ".join(words))
        rows.append(f"| {what} | {each} | {found} |")
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="folder of MTS-Dialog")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--show", action="store_true", help="print all matches of MTS-Dialog, for a person to read")
    args = parser.parse_args()
    texts = mts_texts(args.folder)
    if args.show:
        hits = [text for text in texts if "titled_name" in identifiers_in(text)]
        print(Counter(match for text in hits for match in MATCH.findall(text)), file=sys.stderr)
    clinic = [note.text for note in write_notes(2_000, seed=1)]
    lines = [
        "# Identifiers: names after a title, and phone numbers of seven digits",
        "",
        "Measured by `benchmarks/identifiers.py`, which says how.",
        "",
        "## False alarms",
        "",
        "MTS-Dialog: real, open text. All matches of names were read one by one.",
        "",
        "| kind | texts | with a match | of these, with false ones alone |",
        "|---|---|---|---|",
        *found_in(texts),
        "",
        "Artificial notes of the clinic, in which nothing is a name or a number:",
        "",
        "| kind | texts | with a match | of these, with false ones alone |",
        "|---|---|---|---|",
        *(f"| {kind} | {len(clinic):,} | {n} | {n} |" for kind in KINDS
          for n in [sum(kind in identifiers_in(text) for text in clinic)]),
        "",
        "## What is found",
        "",
        "Forms planted at a random place in texts of MTS-Dialog. A name without a title is out of reach, and seven",
        "digits with a space need a word such as \"call\" before them.",
        "",
        "| form | planted | found |",
        "|---|---|---|",
        *planted(texts, 500, random.Random(0)),
    ]  # fmt: skip
    page = "\n".join(lines) + "\n"
    print(page)
    if args.out:
        args.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
