"""Experiment on the artificial clinic: order of the arms, and gold equivalence of 200 gold notes with synthetic ones.

    python benchmarks/clinic_grid.py --out out --processes 2

Parts (--parts): `encoder`, 60 cells of a fine-tuned tiny encoder; `linear`, the same 60 on the linear head; `ratios`,
the grid "paper" on the linear head; `assess`, the answer of `assess` for each seed before the study.

Artificial notes, a simulated LLM, an encoder made on the spot: this shows that the software works, and no clinical
benefit. Seeds 0-4 each have their own gold subset, exemplars (its first fifth), generation, correction and training;
test rows are the same for all. The encoder is made once, from unlabelled notes of another clinic and simulated notes
for that one: it saw no text of the gold, the test or any cell. Everything is stored in --out: the same command
continues a killed run. Writes `clinic_grid.md`, and report.html in each folder.
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

        results = {}
        clinic = with_fields(GRIDS["clinic"], {"ratios": [RATIO]})
        if "encoder" in args.parts:
            own = with_fields(clinic, {"base_models": [str(encoder(task, llm, out / "encoder"))]})
            results["Fine-tuned tiny encoder"] = study("cells", own, args=DEMO_ARGS)
        if "linear" in args.parts:
            results["Linear head on frozen features"] = study("linear", clinic)
        if "ratios" in args.parts:
            results["Ratio curve, linear head"] = study("ratios", GRIDS["paper"])
        assessments = assess_pilots(task, gold, simulator, args.seeds) if "assess" in args.parts else None
    text = summary(task, results, assessments)
    (out / "clinic_grid.md").write_text(text + "\n", encoding="utf-8")
    print(text)
    print(json.dumps({"seconds": round(time.perf_counter() - started, 1)}))


def encoder(task, llm, folder: Path) -> Path:
    """Train the encoder on unlabelled texts of another clinic."""
    from hf_synth.demo.encoder import make_encoder
    from hf_synth.generation.generation import generate
    from hf_synth.gold.gold import load_gold, subset
    from hf_synth.task.columns import MANIFEST

    if (folder / MANIFEST).is_file():
        return folder
    other = load_gold(task, notes_seed=OTHER_CLINIC)["train"]
    written = generate(task, subset(task, other, 200, seed=0), llm, 1_600, seed=OTHER_CLINIC)
    return make_encoder([*other["text"], *(t for t in written["text"] if t)], folder, seed=0)


def assess_pilots(task, gold, simulator, seeds) -> list[list[object]]:
    """Call `assess` for a pilot of the simulator, and for one whose labels are drawn at random."""
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
        for name, synthetic in (("simulator", pilot), ("labels at random", useless)):
            result = assess(task, synthetic, gold=own, seed=seed)
            rows.append([seed, name, result.decision, f"{result.certainty:.0%}", result.rows or "", result.why])
    return rows


def summary(task, results, assessments) -> str:
    from hf_synth.experiments.report import report_sections
    from hf_synth.reports.page import markdown, markdown_table

    parts = [
        "# The clinic's grid",
        "**Simulated**: artificial notes, a simulated LLM. This shows that the software works, and no clinical "
        "benefit. Written by `benchmarks/clinic_grid.py`; parts that were run: "
        f"{', '.join([*results, *(['assess'] if assessments else [])]).lower()}.",
    ]
    titles = {"Gold equivalence", "Score by training mix", "Ratio curve", "Differences", "Rare classes"}
    titles |= {"What correction did"}
    for name, result in results.items():
        sections = [s for s in report_sections(task, result) if s.title in titles]
        hours = sum(r["cpu_seconds"] + r["cpu_seconds_correct"] for r in result.rows) / 3600
        counts = f"{len(result.rows)} cells, {len(result.failed)} failed, {hours:.2f} CPU hours"
        body = markdown(name, sections).split("\n", 1)[1].replace("\n## ", "\n### ")
        parts += [f"## {name}", f"{counts} (shared corrections counted in each cell that uses them).", body.strip()]
    if assessments:
        head = ["seed", "pilot of 400 rows", "decision", "certainty", "rows to generate", "why"]
        parts += ["## Assessment before the study", markdown_table(head, assessments)]
    return "\n\n".join(parts)


if __name__ == "__main__":
    main()
