"""Benchmark of the privacy audit: time and memory by number of rows, and detection rates of disguised copies.

    python benchmarks/audit.py [--notes 100000] [--gold 10000] [--open FOLDER] [--out docs/results/audit.md]

All notes are artificial: texts of about 1,000 characters, each joined from several notes of the artificial clinic,
whose sentences are mostly set phrases, with its own vital signs. Every size runs in its own process, to measure its
peak memory. `--open` takes the folder of MTS-Dialog and measures clean and copied rows of it too.
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--notes", type=int, default=100_000)
    parser.add_argument("--gold", type=int, default=10_000)
    parser.add_argument("--open", type=Path, help="folder of MTS-Dialog")
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
        timing=timing, parts=parts, through=through, short=short, dialogues=dialogues, figures=figures,
        cores=len(os.sched_getaffinity(0)), load=os.getloadavg()[0], length=LENGTH,
    )  # fmt: skip


DIALOGUES = """
## MTS-Dialog, dialogues of 60 words and more

Real, open text: train as gold. "Clean" are validation and test, without exact copies of dialogues in train; a few
others do share wording with it.

{rows}
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
