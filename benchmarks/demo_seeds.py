"""Run the demo over several seeds and say what came out: artificial notes, a simulated LLM, a tiny encoder.

    python benchmarks/demo_seeds.py --seeds 3 --out /tmp/demo-seeds

Everything is made anew for each seed: notes, encoder, synthetic notes, corrector, policy, models. Written: `seeds.json`
(the demo's own object for each seed) and `seeds.md` (the table that the README shows).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from hf_synth.reports.page import markdown_table

ARMS = {
    "gold_200": "200 gold",
    "gold_1243": "1,243 gold",
    "synthetic_raw": "synthetic, raw",
    "synthetic_corrected": "synthetic, corrected",
    "gold_200_plus_raw": "200 gold + raw",
    "gold_200_plus_corrected": "200 gold + corrected",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    found = []
    for seed in range(args.seeds):
        command = [
            sys.executable,
            "-m",
            "hf_synth.cli",
            "demo",
            "--seed",
            str(seed),
            "--out",
            str(args.out / str(seed)),
        ]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found.append(json.loads(done.stdout.splitlines()[-1]))
    (args.out / "seeds.json").write_text(json.dumps(found, indent=1) + "\n")
    table = summary(found)
    (args.out / "seeds.md").write_text(table + "\n")
    print(table)


def summary(found: list[dict]) -> str:
    seeds = [f"seed {i}" for i in range(len(found))]
    rows = []
    for arm, name in ARMS.items():
        values = [f["scores"][arm]["macro_f1"] for f in found]
        intervals = [f["scores"][arm]["ci95"] for f in found]
        cells = [f"{v:.3f} ({lo:.3f}-{hi:.3f})" for v, (lo, hi) in zip(values, intervals, strict=True)]
        rows.append([name, *cells, sum(values) / len(values)])
    labels = [
        [f"labels right: {name}", *(f"{f['label_accuracy'][name]:.3f}" for f in found),
         sum(f["label_accuracy"][name] for f in found) / len(found)]
        for name in ("llm", "argmax", "corrected", "kept", "yield")
    ]  # fmt: skip
    policies = [["policy chosen by auto", *(f["policy"] for f in found), ""]]
    seconds = [["seconds", *(str(f["seconds"]) for f in found), ""]]
    return markdown_table(["macro-F1 on 1,000 test notes (95% CI)", *seeds, "mean"], rows + labels + policies + seconds)


if __name__ == "__main__":
    main()
