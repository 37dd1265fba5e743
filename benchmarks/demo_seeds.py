"""Scores of the demo over several seeds: artificial notes, a simulated LLM, a tiny encoder.

    python benchmarks/demo_seeds.py --seeds 3 --out /tmp/demo-seeds

Each seed has its own notes, encoder, synthetic notes, corrector, policy and models. Writes `seeds.json` (the JSON
object of the demo for each seed) and `demo_seeds.md`, the page of docs/results.
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
HEAD = """# The demo over several seeds

Measured by `benchmarks/demo_seeds.py`. **Simulated**: artificial notes, a simulated LLM and a tiny encoder. This shows
that the software works, and nothing of a clinical benefit. Each seed has its own notes, encoder, synthetic notes,
corrector, policy and models.

"Raw" are notes with the LLM's labels as they are. Shares of right labels: `llm` as the LLM was asked for, `argmax` if
a model trained on gold alone labels every note, `corrected` after correction with a dropped note counted as wrong,
`kept` on the notes that correction did not drop. `yield` is the share of those notes. Seconds are those of the whole
demo.

"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    runs = []
    for seed in range(args.seeds):
        options = ["--seed", str(seed), "--out", str(args.out / str(seed))]
        command = [sys.executable, "-m", "hf_synth.cli", "demo", *options]
        process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        runs.append(json.loads(process.stdout.splitlines()[-1]))
    (args.out / "seeds.json").write_text(json.dumps(runs, indent=1) + "\n")
    text = HEAD + summary(runs)
    (args.out / "demo_seeds.md").write_text(text + "\n")
    print(text)


def summary(runs: list[dict]) -> str:
    seeds = [f"seed {i}" for i in range(len(runs))]
    rows = []
    for arm, name in ARMS.items():
        values = [run["scores"][arm]["macro_f1"] for run in runs]
        intervals = [run["scores"][arm]["ci95"] for run in runs]
        cells = [f"{v:.3f} ({lo:.3f}-{hi:.3f})" for v, (lo, hi) in zip(values, intervals, strict=True)]
        rows.append([name, *cells, sum(values) / len(values)])
    labels = []
    for name in ("llm", "argmax", "corrected", "kept", "yield"):
        shares = [run["label_accuracy"][name] for run in runs]
        labels.append([f"labels right: {name}", *(f"{share:.3f}" for share in shares), sum(shares) / len(shares)])
    policies = [["policy chosen by auto", *(run["policy"] for run in runs), ""]]
    seconds = [["seconds", *(str(run["seconds"]) for run in runs), ""]]
    return markdown_table(["macro-F1 on 1,000 test notes (95% CI)", *seeds, "mean"], rows + labels + policies + seconds)


if __name__ == "__main__":
    main()
