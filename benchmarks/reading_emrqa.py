"""Speed of reading emrQA, compared in one run with reading its JSON alone: MB/s of CPU time, ratios, memory.

    python benchmarks/reading_emrqa.py              # 215 MB in data.json, one of its five subsets is wanted
    python benchmarks/reading_emrqa.py --mb 1024 --order last --subset file

The file is generated: five subsets, notes of 100 lines, 400 questions each with five wordings; nothing in it is a note.
Each reading is a process of its own, three times in turn; the median counts. Compare ratios, not figures of two
machines: `ijson` is `ijson.items` over the notes, and does nothing with them.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import readers

READINGS = ("ijson", "stream", "cache")
SUBSETS = ("medications", "relations", "obesity", "smoking", "risk")


def write(path: Path, megabytes: int, order: str, subsets: tuple[str, ...]) -> None:
    """Write a data.json, or the file of one subset, with titles before or behind the notes."""
    rng = random.Random(0)
    with path.open("w") as file:
        file.write('{"data": [' if len(subsets) > 1 else "")
        for k, title in enumerate(subsets):
            file.write(("," if k else "") + "{" + (f'"title": "{title}", ' if order == "first" else ""))
            file.write('"paragraphs": [')
            notes, written = 0, 0
            while written < megabytes * (1 << 20) // len(subsets):
                note = json.dumps(paragraph(rng, f"{k}-{notes}"))
                written += file.write(("," if notes else "") + note)
                notes += 1
            file.write("]" + (f', "title": "{title}"' if order == "last" else "") + "}")
        file.write("]}" if len(subsets) > 1 else "")


def paragraph(rng: random.Random, id: str) -> dict[str, object]:
    lines = [readers.text(rng, 10) + "\n" for _ in range(100)]
    place = {"answer_start": [5, 1], "evidence": lines[4], "evidence_start": 5}
    qas = [
        {
            "question": [readers.text(rng, 9) for _ in range(5)],
            "id": [[readers.text(rng, 9), readers.text(rng, 9)]],
            "answers": [place | {"text": readers.text(rng, 2), "answer_entity_type": "single"}],
        }
        for _ in range(400)
    ]
    return {"note_id": id, "context": lines, "qas": qas}


def read(how: str, folder: Path) -> None:
    """Read the file in one way; print rows, CPU seconds and the peak of memory beyond that of the imports."""
    import ijson
    from datasets import IterableDataset

    from hf_synth.gold.gold import as_streaming_dataset, task_builder
    from hf_synth.task.scripts import load_task

    task = load_task("emrqa:medications")
    task_builder(task)
    list(IterableDataset.from_generator(lambda: iter([{"x": 1}])))  # datasets imports torch at the first stream
    before, started = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    if how == "ijson":
        path = next(folder.glob("*.json"))
        place = "data.item.paragraphs.item" if path.name == "data.json" else "paragraphs.item"
        with path.open("rb") as file:
            count = sum(1 for _ in ijson.items(file, place, use_float=True))
    elif how == "stream":
        count = sum(1 for _ in as_streaming_dataset(task, folder)["rows"])
    else:
        builder = task_builder(task)(config_name=task.config, data_dir=str(folder))
        builder.download_and_prepare()
        count = sum(info.num_examples for info in builder.info.splits.values())
    seconds = time.process_time() - started
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    print(json.dumps({"rows": count, "seconds": seconds, "above": above}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--mb", type=int, default=215)
    parser.add_argument("--order", choices=("first", "last"), default="first", help="titles before or behind the notes")
    parser.add_argument("--subset", choices=("one-of-five", "file"), default="one-of-five")
    parser.add_argument("--times", type=int, default=3)
    parser.add_argument("--read", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.read:
        read(args.read[0], Path(args.read[1]))
        return
    with tempfile.TemporaryDirectory() as place:
        name, subsets = ("data.json", SUBSETS) if args.subset == "one-of-five" else ("medication-qa.json", SUBSETS[:1])
        write(Path(place, name), args.mb, args.order, subsets)
        size = Path(place, name).stat().st_size / 1e6
        found: dict[str, list[dict[str, float]]] = {how: [] for how in READINGS}
        for _ in range(args.times):
            for how in READINGS:
                command = [sys.executable, __file__, "--read", how, place]
                output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[how].append(json.loads(output.splitlines()[-1]))
                for cached in Path(place).glob(".hf_synth/cache/*"):
                    subprocess.run(["rm", "-r", str(cached)], check=True)
        print("| | rows | MB/s | x ijson | rows/s | MB above |\n|---|---|---|---|---|---|")
        seconds = {how: statistics.median(run["seconds"] for run in runs) for how, runs in found.items()}
        for how, runs in found.items():
            print(
                f"| {how} | {runs[0]['rows']:,} | {size / seconds[how]:.1f} | {seconds['ijson'] / seconds[how]:.2f} | "
                f"{runs[0]['rows'] / seconds[how]:,.0f} | {max(run['above'] for run in runs):,.0f} |"
            )


if __name__ == "__main__":
    main()
