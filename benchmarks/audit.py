"""Benchmark of the privacy audit: time and memory by number of rows, and detection rates of disguised copies.

    python benchmarks/audit.py [--notes 100000] [--gold 10000] [--open FOLDER] [--premises FOLDER]
                               [--out docs/results/audit.md]

All notes are artificial: texts of about 1,000 characters, each joined from several notes of the artificial clinic,
whose sentences are mostly set phrases, with its own vital signs. Every size runs in its own process, to measure its
peak memory. `--open` takes the folder of MTS-Dialog and measures clean and copied rows of it too, and its turns as
short texts; `--premises` takes the folder of SDOH-NLI, whose premises are short texts too.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from hf_synth.demo.clinic import write_notes
from hf_synth.reports.page import markdown_table
from hf_synth.task.task import Task

TASK = Task.from_columns("notes", text_columns="text", label_column="label", labels=("no", "yes"), access="open")
LENGTH = 1_000
LOOK_ALIKE = str.maketrans("aeopcx", "аеорсх")


def texts(n: int, seed: int) -> Iterator[str]:
    """Write texts of LENGTH characters, some thousand at a time."""
    rng, written = random.Random(f"audit-{seed}"), 0
    while written < n:
        block = min(2_000, n - written)
        notes = [note.text for note in write_notes(5 * block, seed=1_000_000 * seed + written)]
        rng.shuffle(notes)
        for i in range(block):
            pressure, rate = f"{rng.randint(90, 170)}/{rng.randint(50, 100)}", rng.randint(50, 120)
            vitals = f"T {rng.uniform(36, 39):.1f}, BP {pressure}, HR {rate}."
            yield "\n".join([*notes[5 * i : 5 * i + 5], vitals])[-LENGTH:]
        written += block


def write(path: Path, n: int, seed: int, source: str) -> None:
    from datasets import Dataset

    def rows() -> Iterator[dict[str, Any]]:
        for i, text in enumerate(texts(n, seed)):
            yield TASK.gold_row(f"{source}-{seed}-{i}", None, i % 2, text) | {"source": source}

    Dataset.from_generator(rows, features=TASK.gold_features(), cache_dir=str(path.parent / "cache")).to_parquet(path)


def measure(folder: Path, synthetic: str, gold: str) -> dict[str, Any]:
    """Run one audit; return seconds, CPU seconds by part, and peak memory."""
    from hf_synth.gold.adoption import read_dataset
    from hf_synth.privacy import audit as privacy
    from hf_synth.privacy import overlap, repetition

    parts: dict[str, float] = {}

    def timed(name: str, owner: Any, attribute: str) -> None:
        inner: Callable[..., Any] = getattr(owner, attribute)

        def outer(*args: Any, **more: Any) -> Any:
            start = time.thread_time()
            try:
                return inner(*args, **more)
            finally:
                parts[name] = parts.get(name, 0.0) + time.thread_time() - start

        setattr(owner, attribute, outer)

    timed("index of gold", privacy, "index_gold")
    timed("overlap", overlap.Index, "reach")
    timed("identifiers", privacy, "identifiers_in")
    timed("repetition", repetition.Repeats, "add")
    timed("repetition", repetition.Repeats, "find")
    timed("closeness", privacy, "closest")
    rows, known, held_out = (read_dataset(folder / f"{name}.parquet") for name in (synthetic, gold, "held_out"))
    idle = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.perf_counter(), time.process_time()
    findings = privacy.audit(TASK, rows, gold=known, held_out=held_out)
    return {
        "rows": len(rows), "gold": len(known), "seconds": time.perf_counter() - start,
        "cpu": time.process_time() - cpu, "parts": parts, "idle_mb": idle / 1024,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "figures": dict(findings.figures),
        "characters": sum(map(len, rows["text"])),
    }  # fmt: skip


def measure_in_process(folder: Path, synthetic: str, gold: str) -> dict[str, Any]:
    """Run `measure` in a new process."""
    command = [sys.executable, __file__, "--measure", str(folder), synthetic, gold]
    environment = {**os.environ, "OMP_NUM_THREADS": "2"}
    process = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    figures: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    print(f"{figures['rows']:,} rows: {figures['seconds']:.1f} s, {figures['peak_mb']:.0f} MB", file=sys.stderr)
    return figures


# --- detection of copies ----------------------------------------------------------------------------------------------
def disguises(rng: random.Random, text: str, words: list[str]) -> dict[str, str]:
    """Return copies of a text, one for each disguise that the audit detects."""

    def changed(original: list[str]) -> str:
        replaced = list(original)
        for i in rng.sample(range(len(replaced)), round(0.06 * len(replaced))):
            replaced[i] = rng.choice(words)
        return " ".join(replaced)

    sentences = re.split(r"(?<=[.;:?!])\s+|\n+", text)
    rng.shuffle(sentences)
    return {
        "verbatim": text,
        "upper case, other signs and spaces": re.sub(r"\s+", "  ", text.upper().replace(".", " ;").replace(",", " -")),
        "look-alikes and invisible characters": text.translate(str.maketrans("aeopcx", "аеорсх")).replace(
            " ", "\u200b "
        ),
        "words cut by hyphens": re.sub(r"(\w{3})(\w{2,})", r"\1-\n\2", text),
        "no spaces": re.sub(r"\s+", "", text),
        "other numbers": re.sub(r"\d", lambda _: str(rng.randrange(10)), text),
        "6% of words changed": changed(text.split()),
        "sentences in another order": " ".join(sentences),
        "another order and 6% changed": changed(" ".join(sentences).split()),
    }


def spans(rng: random.Random, text: str, host: str) -> dict[str, str]:
    """Return texts with 40 words of another text inserted."""
    words, rest = text.split(), host.split()
    start, at = rng.randrange(len(words) - 39), rng.randrange(len(rest) + 1)
    span = words[start : start + 40]
    cut = [re.sub(r"(\w{3})(\w{2,})", r"\1-\n\2", w) for w in span]
    return {
        "40 words of gold in another text": " ".join([*rest[:at], *span, *rest[at:]]),
        "40 words of gold, cut by hyphens": " ".join([*rest[:at], *cut, *rest[at:]]),
        "40 words of gold in two halves": " ".join([*span[20:], *rest, *span[:20]]),
    }


def detection(gold: list[str], clean: list[str], *, at_least: int = 40, copies: int = 500) -> list[list[object]]:
    """Count the rows that are detected as copies, among clean ones and each kind of planted ones."""
    from hf_synth.privacy.overlap import Index

    rng = random.Random(0)
    index = Index.of((str(i), (text,)) for i, text in enumerate(gold))
    words = [w for text in clean for w in text.split()]
    planted: dict[str, list[str]] = {"clean": clean}
    for i, text in enumerate([t for t in gold if len(t.split()) >= at_least][:copies]):
        for name, copy in (disguises(rng, text, words) | spans(rng, text, clean[i % len(clean)])).items():
            planted.setdefault(name, []).append(copy)
    rows: list[list[object]] = []
    for name, texts_of_kind in planted.items():
        reach = index.reach([(text,) for text in texts_of_kind])
        detected = reach.same | reach.spans() | reach.near()
        rows.append([name, len(texts_of_kind), int(detected.sum()), f"{detected.mean():.1%}"])
    return rows


def open_texts(folder: Path) -> tuple[list[str], list[str]]:
    """Read dialogues of MTS-Dialog: train, and those of validation and test that are no exact copy of one."""
    from hf_synth.privacy.folding import digest

    def read(*names: str) -> list[str]:
        dialogues = []
        for name in names:
            with (folder / f"MTS-Dialog-{name}.csv").open(encoding="utf-8", newline="") as file:
                dialogues += [row["dialogue"] for row in csv.DictReader(file)]
        return dialogues

    train = read("TrainingSet")
    known = {digest((text,)) for text in train}
    others = read("ValidationSet", "TestSet-1-MEDIQA-Chat-2023")
    return train, [text for text in others if digest((text,)) not in known]


# --- short texts ------------------------------------------------------------------------------------------------------
SIZES = {4: 4, 6: 6, 8: 8, 12: 12, 16: 16, 24: 27, 40: 47}  # words, at least and at most: long ones are rare
LENGTH_BANDS = {"4 to 7": (4, 7), "8 to 11": (8, 11), "12 to 15": (12, 15), "16 to 23": (16, 23), "24 to 39": (24, 39),
                "40 and more": (40, 10_000)}  # fmt: skip
GREETINGS = ("Hello.", "Good morning, doctor.", "Dear nurse,", "Hi there,", "Good afternoon to you all.", "Thank you.")
ONES = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
IN_WORDS = dict(enumerate([*ONES, *TEENS, *(f"{ten} {one}".strip() for ten in TENS for one in ("", *ONES))], 1))
IN_DIGITS = {word: str(number) for number, word in IN_WORDS.items() if number > 1}  # "one" is often no number
Text = tuple[str, str]  # group, text


def turns_of(folder: Path) -> list[Text]:
    """Read the turns of MTS-Dialog, without the speaker's name, by dialogue."""
    turns = []
    for name in ("TrainingSet", "ValidationSet", "TestSet-1-MEDIQA-Chat-2023"):
        with (folder / f"MTS-Dialog-{name}.csv").open(encoding="utf-8", newline="") as file:
            for i, row in enumerate(csv.DictReader(file)):
                lines = (re.sub(r"^\s*[A-Z]\w*(?: \w+)?\s*:\s*", "", line) for line in row["dialogue"].splitlines())
                turns += [(f"{name} {i}", line.strip()) for line in lines if line.strip()]
    return turns


def premises_of(folder: Path) -> list[Text]:
    """Read the distinct premises of SDOH-NLI."""
    premises: dict[str, None] = {}
    for name in ("train", "validation", "test"):
        with (folder / f"sdoh_nli_{name}.csv").open(encoding="utf-8", newline="") as file:
            premises |= {row["premise"]: None for row in csv.DictReader(file)}
    return [(text, text) for text in premises]


def halves(texts: list[Text], seed: int) -> tuple[list[Text], list[str]]:
    """Divide texts by group: a half is gold; the texts of the other half that equal no text of gold are rows."""
    from hf_synth.privacy.folding import digest

    groups = sorted({group for group, _ in texts})
    random.Random(seed).shuffle(groups)
    chosen = set(groups[: len(groups) // 2])
    gold = [item for item in texts if item[0] in chosen]
    known = {digest((text,)) for _, text in gold}
    return gold, [text for group, text in texts if group not in chosen and digest((text,)) not in known]


def invented_texts(n: int, sizes: tuple[int, ...], seed: int) -> list[Text]:
    """Write texts of nonsense words, each of its own group: no two of them resemble each other."""
    rng = random.Random(f"invented-{seed}")
    syllables = [a + b for a in "bdklmnprstv" for b in "aeiou"]
    words = ["".join(rng.choices(syllables, k=rng.randint(1, 3))) for _ in range(2_000)]
    return [(f"{size} {i}", " ".join(rng.choices(words, k=size))) for size in sizes for i in range(n)]


def ways(rng: random.Random, text: str, words: list[str]) -> dict[str, str]:
    """Return short copies of a text, one for each way; signs and numbers only where the text has them."""
    own, first = text.split(), rng.random() < 0.5
    changed, anywhere = list(own), list(own)
    changed[0 if first else -1] = rng.choice(words)
    anywhere[rng.randrange(len(own))] = rng.choice(words)
    greeting = rng.choice(GREETINGS)
    signs = re.sub(r"&|\band\b", lambda m: "and" if m[0] == "&" else "&", text)
    numbers = re.sub(r"\b[1-9]\d?\b", lambda m: IN_WORDS[int(m[0])], text)
    if numbers == text:
        longest_first = sorted(IN_DIGITS, key=len, reverse=True)
        numbers = re.sub(rf"\b(?:{'|'.join(longest_first)})\b", lambda m: IN_DIGITS[m[0]], text)
    copies = {
        "verbatim": text,
        "first or last word changed": " ".join(changed),
        "first or last word dropped": " ".join(own[1:] if first else own[:-1]),
        "a greeting before": f"{greeting} {text}",
        "a word after": f"{text} {rng.choice(words)}",
        "any one word changed": " ".join(anywhere),
        "a greeting, and any one word changed": " ".join([greeting, *anywhere]),
    }
    return copies | {
        name: copy for name, copy in {"and as &, & as and": signs, "numbers in words or digits": numbers}.items()
        if copy != text
    }  # fmt: skip


def short_copies(golds: list[list[Text]], *, most: int = 300) -> list[list[object]]:
    """Count planted copies that are caught, by way and number of words; gold that three groups share is left out."""
    from hf_synth.privacy.folding import digest
    from hf_synth.privacy.overlap import Index

    caught: dict[str, dict[int, list[bool]]] = {}
    for seed, texts in enumerate(golds):
        rng = random.Random(seed)
        index = Index.of((group, (text,)) for group, text in texts)
        groups: dict[bytes, set[str]] = {}
        for group, text in texts:
            groups.setdefault(digest((text,)), set()).add(group)
        words = [w for _, text in texts for w in text.split()]
        own = {digest((t,)): t for _, t in texts if len(groups[digest((t,))]) < 3}
        for least, longest in SIZES.items():
            chosen = [t for t in own.values() if least <= len(t.split()) <= longest]
            rng.shuffle(chosen)
            planted: dict[str, list[str]] = {}
            for text in chosen[:most]:
                for name, copy in ways(rng, text, words).items():
                    planted.setdefault(name, []).append(copy)
            for name, rows in planted.items():
                reach = index.reach([(row,) for row in rows])
                hits = (reach.same | reach.spans() | reach.near()).tolist()
                caught.setdefault(name, {}).setdefault(least, []).extend(hits)
    return [
        [name, *(f"{sum(by[size])} / {len(by[size])}" if size in by else "–" for size in SIZES)]
        for name, by in caught.items()
    ]


def short_clean(texts: list[Text], splits: int) -> list[list[object]]:
    """Count clean rows of 4 words or more that an audit withholds as copies, over several halves."""
    from datasets import Dataset

    from hf_synth.privacy.audit import audit
    from hf_synth.privacy.findings import COPIED

    def rows_of(items: list[Text], source: str) -> Dataset:
        rows = [TASK.gold_row(f"{source}{i}", g, 0, t) | {"source": source} for i, (g, t) in enumerate(items)]
        return Dataset.from_list(rows, features=TASK.gold_features())

    withheld: list[tuple[int, bool]] = []
    for seed in range(splits):
        gold, clean = halves(texts, seed)
        rows = rows_of([(str(i), text) for i, text in enumerate(clean)], "synthetic")
        findings = audit(TASK, rows, gold=rows_of(gold, "gold"))
        hits = [bool(set(flags) & set(COPIED)) for flags in findings.row_flags]
        withheld += zip((len(text.split()) for text in clean), hits, strict=True)
    bands = {**LENGTH_BANDS, "all of 4 and more": (4, 10_000)}
    found = {name: [hit for n, hit in withheld if low <= n <= high] for name, (low, high) in bands.items()}
    return [[name, len(hits), sum(hits), f"{sum(hits) / max(1, len(hits)):.2%}"] for name, hits in found.items()]


def pieces_caught(texts: list[Text], others: list[str], *, copies: int = 20) -> list[list[object]]:
    """Count pieces of texts of gold that are caught when their rows stand among clean ones."""
    from datasets import Dataset

    from hf_synth.privacy.audit import audit
    from hf_synth.privacy.findings import COPIED

    def rows_of(items: list[str], source: str) -> Dataset:
        rows = [TASK.gold_row(f"{source}{i}", None, 0, t) | {"source": source} for i, t in enumerate(items)]
        return Dataset.from_list(rows, features=TASK.gold_features())

    rng, counts = random.Random(0), []
    gold = rows_of([text for _, text in texts], "gold")
    chosen = rng.sample([text for _, text in texts if len(text.split()) >= 60], copies)
    for size in (4, 5, 7, 9, 11, 13):
        planted = [" ".join(t.split()[i : i + size]) for t in chosen for i in range(0, len(t.split()), size)]
        planted = [piece for piece in planted if len(piece.split()) >= 4]
        findings = audit(TASK, rows_of([*planted, *others], "synthetic"), gold=gold)
        hits = [bool(set(flags) & set(COPIED)) for flags in findings.row_flags]
        n = len(planted)
        counts.append([size, f"{sum(hits[:n])} / {n}", f"{sum(hits[n:])} / {len(others)}"])
    return counts


def short_texts(args: argparse.Namespace) -> str:
    """Measure short texts: copies of invented ones, and of the real ones of the folders, which are clean rows too."""
    header = ["copy", *(f"{size} words" for size in SIZES)]
    invented = invented_texts(300, tuple(SIZES), 1)
    parts = [INVENTED.format(copies=markdown_table(header, short_copies([invented])))]
    sources = {}
    if args.open:
        sources["turns of MTS-Dialog, by dialogue"] = turns_of(args.open), 2
    if args.premises:
        sources["premises of SDOH-NLI"] = premises_of(args.premises), 16
    for name, (texts, splits) in sources.items():
        clean = markdown_table(["words", "clean rows", "withheld", "share"], short_clean(texts, splits))
        copies = markdown_table(header, short_copies([halves(texts, seed)[0] for seed in range(splits)]))
        parts.append(REAL.format(name=name, clean=clean, splits=splits, copies=copies))
    long = [(f"{i}", text) for i, (_, text) in enumerate(invented_texts(300, (70,), 2))]
    cut = [["invented, 70 words", *row] for row in pieces_caught(long, [text for _, text in invented])]
    if args.open:
        gold, clean_turns = halves(turns_of(args.open), 0)
        dialogues: dict[str, list[str]] = {}
        for group, text in gold:
            dialogues.setdefault(group, []).append(text)
        whole = [(group, " ".join(turns)) for group, turns in dialogues.items()]
        cut += [["dialogues of MTS-Dialog", *row] for row in pieces_caught(whole, clean_turns)]
    return "".join(parts) + PIECES.format(
        rows=markdown_table(["gold", "words of a piece", "caught / planted", "clean rows withheld"], cut)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notes", type=int, default=100_000)
    parser.add_argument("--gold", type=int, default=10_000)
    parser.add_argument("--open", type=Path, help="folder of MTS-Dialog")
    parser.add_argument("--premises", type=Path, help="folder of SDOH-NLI")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--measure", nargs=3, metavar=("FOLDER", "SYNTHETIC", "GOLD"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.measure:
        print(json.dumps(measure(Path(args.measure[0]), *args.measure[1:])))
        return
    with tempfile.TemporaryDirectory(prefix="hf_synth-audit-") as name:
        folder = Path(name)
        write(folder / "held_out.parquet", args.gold // 10, 3, "gold")
        figures = []
        for part in (4, 2, 1):
            write(folder / f"s{part}.parquet", args.notes // part, 1, "synthetic")
            write(folder / f"g{part}.parquet", args.gold // part, 2, "gold")
            figures.append(measure_in_process(folder, f"s{part}", f"g{part}"))
    text = report(figures, args)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


def report(runs: list[dict[str, Any]], args: argparse.Namespace) -> str:
    whole = runs[-1]
    timing = markdown_table(
        ["synthetic rows", "gold rows", "Mchars", "seconds", "CPU seconds", "CPU µs a row", "peak MB", "MB before"],
        [[f"{f['rows']:,}", f"{f['gold']:,}", f"{f['characters'] / 1e6:.0f}", f"{f['seconds']:.1f}", f"{f['cpu']:.1f}",
          f"{1e6 * f['cpu'] / f['rows']:.0f}", f"{f['peak_mb']:.0f}", f"{f['idle_mb']:.0f}"] for f in runs],
    )  # fmt: skip
    rest = whole["cpu"] - sum(whole["parts"].values())
    parts = markdown_table(
        ["part", "CPU seconds"], [[n, f"{s:.1f}"] for n, s in [*whole["parts"].items(), ("the rest", rest)]]
    )
    header = ["row", "rows", "detected", "share"]
    gold, clean = list(texts(2_000, 5)), list(texts(2_000, 6))
    through = markdown_table(header, detection(gold, clean))
    short_gold, short_clean = ([n.text for n in write_notes(n, seed=s)] for n, s in ((2_000, 7), (2_000, 8)))
    short = markdown_table(header, detection(short_gold, short_clean))
    dialogues = ""
    if args.open:
        rows = markdown_table(header, detection(*open_texts(args.open), at_least=60))
        dialogues = DIALOGUES.format(rows=rows)
    figures = ", ".join(f"{k} {v:g}" for k, v in whole["figures"].items())
    return TEXT.format(
        timing=timing, parts=parts, through=through, short=short, dialogues=dialogues + short_texts(args),
        figures=figures,
        cores=len(os.sched_getaffinity(0)), load=os.getloadavg()[0], length=LENGTH,
    )  # fmt: skip


DIALOGUES = """
## MTS-Dialog, dialogues of 60 words and more

Real, open text: train as gold. "Clean" are validation and test, without exact copies of dialogues in train; a few
others do share wording with it.

{rows}
"""
INVENTED = """
## Short texts: caught / planted, invented words

300 texts of gold of each length, of nonsense words: no two of them resemble each other. Texts of fewer than 4 words are
counted as too short, and only equal texts of gold are found in them.

{copies}
"""
REAL = """
## Short texts: {name}

Real, open text. Clean rows: half of the groups are gold, the others are rows; rows that equal a text of gold, apart
from case and signs, are left out. The rows of {splits} such halves are counted. No more than 1% may be withheld, and no
more than 2% of any length.

{clean}

Caught / planted, of up to 300 texts of each length (24 to 27 words, and 40 to 47) in the gold of each half, without
those that three groups share:

{copies}
"""
PIECES = """
## Notes cut into pieces over many rows

20 texts of gold, each cut into rows of so many words, among clean rows.

{rows}

## What is not caught

- Changed words in texts of 4 to 7 words: only some of those with rare words are told from other texts of their length,
  which differ in one word by chance. From 8 words on, texts that resemble those of another group of gold remain.
- More than one changed word in 8, and a changed word together with a greeting in texts of under 12 words.
- Texts that three groups of gold share, and pieces of them: they are set phrases.
- Pieces of a text of gold in rows that consist of other words for the most part, also where these are pieces of other
  texts, each below 24 words in a row and below the limits of windows; pieces of which all short rows contain less than
  60% together, or that stand in rows of more than 60 words; pieces of under 4 words.
- A short text of gold in a longer row: it has to be at least half of it, or leave six words.
- Gold in other words, or in a cipher or an encoding (base64, letters written as digits, quoted-printable, backwards).
  Escapes of HTML, JSON and addresses are resolved; comments and attributes of HTML are read as text.
- Some disguised copies: gold with words put in, left out, replaced or misspelt. [What share is found](copies.md), by
  disguise, strength and length.
"""
TEXT = """# Privacy audit: time, memory, and detection of copies

Measured by `benchmarks/audit.py`: one process, two threads. All notes of the first tables are **artificial**,
{length:,} characters each, joined from notes of the artificial clinic, with their own vital signs.

## Time and memory

CPU seconds are the work of an audit; seconds are its wall time on {cores} cores with a load of {load:.1f} at the end,
of which 1 is the benchmark's own.

{timing}

CPU seconds of the largest audit by part:

{parts}

Its figures: {figures}.

## Detected copies: long notes

2,000 gold notes of {length:,} characters, 2,000 clean ones by the same program with another seed, and 500 copies of
each kind.

{through}

## Detected copies: short notes

2,000 notes of the artificial clinic, about 370 characters each. Nearly all their sentences are set phrases that three
or more notes share, which the audit leaves out: too little of such a note remains to distinguish some disguises from
chance.

{short}
{dialogues}"""
if __name__ == "__main__":
    main()
