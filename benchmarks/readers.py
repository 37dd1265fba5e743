"""Rows per second and peak memory of every reader, on generated files of the original size, without any note.

    python benchmarks/readers.py                 # all: some minutes, about 3 GB of disk for a while
    python benchmarks/readers.py mednli obesity  # some
    python benchmarks/readers.py --scale 0.1     # a tenth of the rows

Each task is read in its own process, once to the end of its stream and once into its cache (Linux only). Memory is the
peak of anonymous memory; pages of mapped files do not count. "above" is the memory beyond that of the imports. Compare
figures of one run only, not those of two machines.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.sax.saxutils import escape

WORDS = [
    f"{a}{b}" for a in ("lan", "mor", "tes", "ri", "vo", "ka", "pel", "su") for b in ("ter", "na", "lo", "dim", "s")
]


def text(rng: random.Random, words: int) -> str:
    return " ".join(rng.choices(WORDS, k=words))


def table(path: Path, header: list[str], rows: Iterator[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerow(header)
        csv.writer(file).writerows(rows)


def mednli(folder: Path, scale: float, rng: random.Random) -> None:
    for name, n in (("train", 11_232), ("dev", 1_395), ("test", 1_422)):
        with (folder / f"mli_{name}_v1.jsonl").open("w") as file:
            for i in range(int(n * scale)):
                label = ("entailment", "contradiction", "neutral")[i % 3]
                parse = f"(ROOT {text(rng, 120)})"
                row = {"pairID": f"{name}{i}", "sentence1": text(rng, 20), "sentence2": text(rng, 8)}
                parses = {"sentence1_parse": parse, "sentence2_parse": parse}
                file.write(json.dumps(row | {"gold_label": label} | parses) + "\n")


def ap_reasoning(folder: Path, scale: float, rng: random.Random) -> None:
    relations = ("Direct", "Indirect", "Neither", "Not Relevant")
    for name, n in (("train", 4_633), ("dev", 597), ("n2c2_track3_test", 667)):
        rows = ([str(i // 8), text(rng, 60), text(rng, 50), relations[i % 4]] for i in range(int(n * scale)))
        table(folder / f"{name}.csv", ["HADM ID", "Assessment", "Plan Subsection", "Relation"], rows)


def problem_summary(folder: Path, scale: float, rng: random.Random) -> None:
    header = ["File ID", "Assessment", "Summary", "Subjective Sections", "Objective Sections"]
    for name, n in (("Train", 768), ("Test", 237)):
        rows = ([str(i), text(rng, 80), text(rng, 12), text(rng, 200), text(rng, 500)] for i in range(int(n * scale)))
        table(folder / f"BioNLP2023-1A-{name}.csv", header, rows)


def mts_dialog(folder: Path, scale: float, rng: random.Random) -> None:
    for name, n in (("TrainingSet", 1_201), ("ValidationSet", 100), ("TestSet-1-MEDIQA-Chat-2023", 200)):
        rows = ([str(i), "GENHX", text(rng, 80), text(rng, 200)] for i in range(int(n * scale)))
        table(folder / f"MTS-Dialog-{name}.csv", ["ID", "section_header", "section_text", "dialogue"], rows)


def medqa(folder: Path, scale: float, rng: random.Random) -> None:
    here = folder / "questions" / "US"
    here.mkdir(parents=True)
    for name, n in (("train", 10_178), ("dev", 1_272), ("test", 1_273)):
        with (here / f"{name}.jsonl").open("w") as file:
            for i in range(int(n * scale)):
                options = {x: f"{text(rng, 4)} {x}" for x in "ABCDE"}
                row = {"question": text(rng, 120), "options": options, "answer": options["B"], "answer_idx": "B"}
                file.write(json.dumps(row | {"meta_info": "step1", "id": i}) + "\n")


def obesity(folder: Path, scale: float, rng: random.Random) -> None:
    diseases = ["Asthma", "CAD", "CHF", "Depression", "Diabetes", "Gallstones", "GERD", "Gout"]
    diseases += ["Hypercholesterolemia", "Hypertension", "Hypertriglyceridemia", "OA", "Obesity", "OSA", "PVD"]
    diseases += ["Venous Insufficiency"]
    for name, n in (("training", 730), ("test", 507)):
        n = int(n * scale)
        docs = "".join(f'<doc id="{i}"><text>{escape(text(rng, 1_100))}</text></doc>' for i in range(n))
        (folder / f"obesity_patient_records_{name}.xml").write_text(f"<root><docs>{docs}</docs></root>")
        judged = ""
        for disease in diseases:
            marks = "".join(f'<doc id="{i}" judgment="{"YNQU"[i % 4]}"/>' for i in range(n))
            judged += f'<disease name="{disease}">{marks}</disease>'
        judged = f'<diseaseset><diseases source="textual">{judged}</diseases></diseaseset>'
        (folder / f"obesity_standoff_annotations_{name}.xml").write_text(judged)


def medication(folder: Path, scale: float, rng: random.Random) -> None:
    for name, n in (("train", 350), ("dev", 50), ("test", 100)):
        here = folder / "data" / name
        here.mkdir(parents=True)
        for i in range(max(1, int(n * scale))):
            note, lines = "", []
            for k in range(18):
                note += text(rng, 50) + " "
                lines.append(f"T{k}\tDisposition {len(note)} {len(note) + 9}\tmadeupine\nE{k}\tDisposition:T{k}")
                note += "madeupine\n"
            (here / f"{i}.txt").write_text(note)
            (here / f"{i}.ann").write_text("\n".join(lines))


def medication_2009(folder: Path, scale: float, rng: random.Random) -> None:
    for i in range(100, 100 + int(1_249 * scale)):
        (folder / str(i)).write_text(text(rng, 1_000))
        if i < 361:
            line = 'm="madeupine" 1:1 1:1||do="5 mg" 1:2 1:3||mo="po" 1:4 1:4||f="nm"||du="nm"||r="nm"||ln="list"\n'
            (folder / f"{i}_gold.entries").write_text(line * 35)


def emrqa(folder: Path, scale: float, rng: random.Random) -> None:
    """Write a data.json of 1 GB: five subsets, notes of 100 lines, 400 questions each with five wordings."""
    left = int((1 << 30) * scale)
    with (folder / "data.json").open("w") as file:
        file.write('{"data": [')
        for k, title in enumerate(("medications", "relations", "obesity", "smoking", "risk")):
            file.write(("," if k else "") + '{"title": "' + title + '", "paragraphs": [')
            notes, written = 0, 0
            while written < left // 5:
                lines = [text(rng, 10) + "\n" for _ in range(100)]
                place = {"answer_start": [5, 1], "evidence": lines[4], "evidence_start": 5}
                qas = [
                    {
                        "question": [text(rng, 9) for _ in range(5)],
                        "id": [[text(rng, 9), text(rng, 9)]],
                        "answers": [place | {"text": text(rng, 2), "answer_entity_type": "single"}],
                    }
                    for _ in range(400)
                ]
                note = json.dumps({"note_id": f"{k}-{notes}", "context": lines, "qas": qas})
                written += file.write(("," if notes else "") + note)
                notes += 1
            file.write("]}")
        file.write("]}")


WRITERS: dict[str, tuple[str, Callable[[Path, float, random.Random], None]]] = {
    "mednli:pair": ("mednli", mednli),
    "ap_reasoning:pair": ("ap_reasoning", ap_reasoning),
    "problem_summary:note": ("problem_summary", problem_summary),
    "mts_dialog:section": ("mts_dialog", mts_dialog),
    "medqa:five": ("medqa", medqa),
    "obesity:textual": ("obesity", obesity),
    "medication:event": ("medication", medication),
    "medication_2009": ("medication_2009", medication_2009),
    "emrqa:medications": ("emrqa", emrqa),
}


def own_memory() -> float:
    """Return the anonymous memory of this process in MB."""
    match = re.search(r"RssAnon:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(match[1]) / 1024 if match else 0.0


def read(name: str, folder: Path, cached: bool) -> None:
    """Read a task and print rows, seconds and memory; called in a new process."""
    from datasets import IterableDataset

    from hf_synth.gold.gold import as_streaming_dataset, load_gold, task_builder
    from hf_synth.task.scripts import load_task

    task = load_task(name)
    task_builder(task)
    if not cached:  # datasets imports torch when a stream is first read
        list(IterableDataset.from_generator(lambda: iter([{"x": 1}])))
    before = peak = own_memory()
    finished = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not finished.wait(0.01):
            peak = max(peak, own_memory())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    if cached:
        count = sum(len(rows) for rows in load_gold(task, folder).values())
    else:
        count = sum(1 for rows in as_streaming_dataset(task, folder).values() for _ in rows)
    seconds = time.perf_counter() - start
    finished.set()
    watcher.join()
    print(json.dumps({"rows": count, "seconds": seconds, "above": peak - before, "peak": peak}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("tasks", nargs="*", help="names without config (default: all)")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--read", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read[0], Path(args.read[1]), args.read[2] == "cached")
        return
    print("| task | files | rows | stream rows/s | MB/s | above, MB | cached rows/s | above, MB | in all, MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (short, write) in WRITERS.items():
        if args.tasks and short not in args.tasks:
            continue
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place) / "source"
            folder.mkdir()
            write(folder, args.scale, random.Random(short))
            size = sum(f.stat().st_size for f in folder.rglob("*") if f.is_file()) / (1 << 20)
            figures = []
            for how in ("stream", "cached"):
                command = [sys.executable, __file__, "--read", name, str(folder), how]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                figures.append(json.loads(output.splitlines()[-1]))
            stream, cached = figures
            print(
                f"| {name} | {size:,.0f} MB | {stream['rows']:,} | {stream['rows'] / stream['seconds']:,.0f} | "
                f"{size / stream['seconds']:,.1f} | {stream['above']:,.0f} | "
                f"{cached['rows'] / cached['seconds']:,.0f} | {cached['above']:,.0f} | {cached['peak']:,.0f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
