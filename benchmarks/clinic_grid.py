"""The clinic's grid: does the paper's order appear, and what are 200 gold notes with synthetic ones worth in gold?

    python benchmarks/clinic_grid.py --out out --processes 2

Parts (--parts): `encoder`, 60 cells of a fine-tuned tiny encoder; `linear`, the same 60 on the linear head; `ratios`,
the paper's first experiments on the linear head; `assess`, what `assess` says of each seed before any of it.

Artificial notes, a simulated LLM, an encoder made on the spot: this shows that the software works, and nothing of a
clinical benefit. Seeds 0-4 each have a gold subset, exemplars (the first fifth of it, the paper's choice), generation,
correction and training of their own; test rows are the same for all. The encoder is made once, from unlabelled notes
of another clinic and what the simulator wrote for that one: it saw no text of the gold, the test or any cell. All is
kept in --out: after a kill the same command goes on. Written: `clinic_grid.md`, and report.html in each folder.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

OTHER_CLINIC = 1_000_003  # seed of notes that no cell meets
RATIO = 4.0  # synthetic notes for each gold note
SEEDS = (0, 1, 2, 3, 4)
PARTS = ("linear", "ratios", "assess", "encoder")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()

    from hf_synth.demo.encoder import DEMO_ARGS
    from hf_synth.demo.simulator import running_simulator
    from hf_synth.experiments.experiment import experiment
    from hf_synth.experiments.grid import GRIDS, with_fields
    from hf_synth.generation.exemplars import choose_exemplars
    from hf_synth.generation.generation import generate
    from hf_synth.gold.gold import load_gold
    from hf_synth.llm.llm import LLM
    from hf_synth.task.folders import private_folder
    from hf_synth.task.scripts import load_task

    task, out = load_task("clinic"), private_folder(args.out)
    gold = load_gold(task)
    started = time.perf_counter()
    with running_simulator(seed=0) as url:
        llm = LLM("simulator", base_url=url, journal=out / "journal.sqlite")

        def simulator(own, n, seed):
            return generate(task, choose_exemplars(task, own, "first"), llm, n, seed=seed)

        def study(name, grid, **more):
            return experiment(
                task,
                {"simulator": simulator},
                gold=gold,
                grid=with_fields(grid, {"seeds": args.seeds}),
                out=out / name,
                processes=args.processes,
                say=lambda line: print(line, flush=True),
                **more,
            )

        found = {}
        clinic = with_fields(GRIDS["clinic"], {"ratios": [RATIO]})
        if "encoder" in args.parts:
            own = with_fields(clinic, {"base_models": [str(encoder(task, llm, out / "encoder"))]})
            found["Fine-tuned tiny encoder"] = study("cells", own, args=DEMO_ARGS)
        if "linear" in args.parts:
            found["Linear head on frozen features"] = study("linear", clinic)
        if "ratios" in args.parts:
            found["Ratio curve, linear head"] = study("ratios", GRIDS["paper"])
        judged = assessed(task, gold, simulator, args.seeds) if "assess" in args.parts else None
    text = summary(task, found, judged)
    (out / "clinic_grid.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(json.dumps({"seconds": round(time.perf_counter() - started, 1)}))


def encoder(task, llm, folder: Path) -> Path:
    """Make the encoder from unlabelled texts of another clinic."""
    from hf_synth.demo.encoder import make_encoder
    from hf_synth.generation.generation import generate
    from hf_synth.gold.gold import load_gold, subset
    from hf_synth.task.columns import MANIFEST

    if (folder / MANIFEST).is_file():
        return folder
    other = load_gold(task, notes_seed=OTHER_CLINIC)["train"]
    written = generate(task, subset(task, other, 200, seed=0), llm, 1_600, seed=OTHER_CLINIC)
    return make_encoder([*other["text"], *(t for t in written["text"] if t)], folder, seed=0)


def assessed(task, gold, simulator, seeds) -> list[list[object]]:
    """Ask `assess` before the study: a pilot of the simulator, and one whose labels are drawn at random."""
    import numpy as np

    from hf_synth.experiments.assessment import assess
    from hf_synth.gold.gold import subset

    rows = []
    for seed in seeds:
        own = subset(task, gold["train"], 200, seed=seed)
        pilot = simulator(own, 400, seed)
        pilot = pilot.filter(lambda s: s != "rejected", input_columns="label_status")
        drawn = np.random.default_rng(seed).integers(0, len(task.labels), len(pilot)).tolist()
        useless = pilot.remove_columns(["llm_label"]).add_column("llm_label", drawn)
        useless = useless.cast_column("llm_label", pilot.features["llm_label"])
        for name, given in (("simulator", pilot), ("labels at random", useless)):
            made = assess(task, given, gold=own, seed=seed)
            rows.append([seed, name, made.decision, f"{made.certainty:.0%}", made.rows or "", made.why])
    return rows


def summary(task, found, judged) -> str:
    from hf_synth.experiments.report import report_sections
    from hf_synth.reports.page import markdown, markdown_table

    parts = [
        "# The clinic's grid",
        "**Simulated**: artificial notes, a simulated LLM. This shows that the software works, and nothing of a "
        "clinical benefit. Written by `benchmarks/clinic_grid.py`; parts that were run: "
        f"{', '.join([*found, *(['assess'] if judged else [])]).lower()}.",
    ]
    kept = ("Gold equivalence", "Order of the arms", "Ratio curve", "Differences", "Rare classes",
            "What correction did")  # fmt: skip
    for name, made in found.items():
        sections = [s for s in report_sections(task, made) if s.title in kept]
        hours = sum(r["cpu_seconds"] + r["cpu_seconds_correct"] for r in made.rows) / 3600
        told = f"{len(made.rows)} cells, {len(made.failed)} failed, {hours:.2f} CPU hours (shared corrections counted "
        body = markdown(name, sections).split("\n", 1)[1].replace("\n## ", "\n### ")
        parts += [f"## {name}", f"{told}in each cell that uses them).", body.strip()]
    if judged:
        head = ["seed", "pilot of 400 rows", "decision", "certainty", "about rows", "why"]
        parts += ["## What assess said before", markdown_table(head, judged)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
