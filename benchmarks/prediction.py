"""`predict_proba` beside `transformers.pipeline`, and beside what the processor can do.

    python benchmarks/prediction.py [--rows 192] [--rounds 3] [--out docs/results/prediction.md]
    python benchmarks/prediction.py --tiny          # a toy model; its figures say nothing

The model has the sizes of MiniLM-L6 (width 384, 6 layers) and random weights; texts are random words, 140 tokens on
average before one in 50 is made 512 long. Every setting reads the same texts with the same model on one thread.

Seconds are CPU seconds, so that other work on the machine changes them little; all settings take turns, and each
figure is the median of its rounds. The share of the processor is that of the matrix products which the tokens need,
padding not counted, in the rate of large matrix products of the same type, measured in the same process.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # before torch is imported

import numpy as np
from random_models import TASK, forward_flops, matmul_rate, rows_of, text_lengths, timed, write_encoder

from hf_synth.reports.page import markdown_table

OURS, HALF = "predict_proba", "predict_proba, bfloat16"
UNSORTED = "pipeline, batch 16"
EXACT, UNSORTED_EXACT, PEAK, UNSORTED_HALF = 1.05, 2.5, 0.85, 2.5  # what is asked of it
SAME = 1e-4  # largest difference of a probability that counts as exact


def config_of(*, tiny: bool) -> Any:
    from transformers import BertConfig

    if tiny:
        return BertConfig(
            vocab_size=200, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
            max_position_embeddings=64, initializer_range=0.2,
        )  # fmt: skip
    return BertConfig(hidden_size=384, intermediate_size=1_536, num_hidden_layers=6, num_attention_heads=12)


def settings_of(model: Path, rows: Any, lengths: list[int]) -> dict[str, Callable[[], Any]]:
    """Return what is compared, by name: each returns probabilities in the order of rows and of the task's labels."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

    from hf_synth.models.inference import predict_proba

    texts, order = rows["text"][:], np.argsort(lengths, kind="stable")
    back = np.argsort(order, kind="stable")
    tokenizer = AutoTokenizer.from_pretrained(model)
    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    half = AutoModelForSequenceClassification.from_pretrained(model).bfloat16().eval()

    def by_pipeline(batch: int, *, in_order: bool, halved: bool = False) -> Callable[[], Any]:
        classify = pipeline("text-classification", model=half if halved else network, tokenizer=tokenizer, device="cpu")
        given = [texts[i] for i in order] if in_order else texts

        def run() -> Any:
            found = classify(given, batch_size=batch, top_k=None, truncation=True)
            probs = np.array([[{one["label"]: one["score"] for one in row}[k] for k in TASK.labels] for row in found])
            return probs[back] if in_order else probs

        return run

    def ours(**how: Any) -> Callable[[], Any]:
        return lambda: predict_proba(TASK, model, rows, device="cpu", **how)

    return {
        OURS: ours(),
        HALF: ours(dtype="bfloat16"),
        "predict_proba, 8,192 tokens a batch": ours(tokens_per_batch=8_192),
        "predict_proba, bfloat16, 2,048 tokens a batch": ours(dtype="bfloat16", tokens_per_batch=2_048),
        "pipeline, batch 1": by_pipeline(1, in_order=False),
        "pipeline, batch 1, sorted by length": by_pipeline(1, in_order=True),
        UNSORTED: by_pipeline(16, in_order=False),
        "pipeline, batch 16, sorted by length": by_pipeline(16, in_order=True),
        "pipeline, batch 64, sorted by length": by_pipeline(64, in_order=True),
        "pipeline, bfloat16, batch 16, sorted by length": by_pipeline(16, in_order=True, halved=True),
    }


def measure(n: int, rounds: int, *, tiny: bool) -> str:
    """Measure all settings; return the page."""
    import torch
    import transformers

    longest, mean = (48, 16) if tiny else (512, 140)
    lengths, config = text_lengths(n, mean=mean, longest=longest), config_of(tiny=tiny)
    rows = rows_of(lengths, config.vocab_size - 5)
    clock = time.process_time
    size, lasts = (128, 0.01) if tiny else (2_048, 1.0)
    kinds = {name: "bfloat16" if "bfloat16" in name else "float32" for name in (OURS, HALF)}
    rates = {kind: matmul_rate("cpu", kind, size=size, seconds=lasts, clock=clock) for kind in kinds.values()}
    seconds: dict[str, list[float]] = {}
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="prediction-") as folder:
        model = write_encoder(Path(folder) / "model", config, longest=longest)
        from transformers import AutoModelForSequenceClassification

        flops = forward_flops(AutoModelForSequenceClassification.from_pretrained(model), lengths)
        settings = settings_of(model, rows, lengths)
        for run in settings_of(model, rows.select(range(8)), lengths[:8]).values():  # what is loaded or made once
            run()
        for number in range(rounds):
            names = list(settings)
            for name in names[number % len(names) :] + names[: number % len(names)]:
                took, results[name] = timed(settings[name], "cpu", clock)
                seconds.setdefault(name, []).append(took)
        for kind, rate in rates.items():  # again, since a processor may slow down: the higher one counts
            rates[kind] = max(rate, matmul_rate("cpu", kind, size=size, seconds=lasts, clock=clock))
    speed = {name: n / statistics.median(took) for name, took in seconds.items()}
    best = max(
        (name for name in speed if name.startswith("pipeline") and "bfloat16" not in name), key=speed.__getitem__
    )
    reference = results[best]
    lines = []
    for name, value in speed.items():
        share = flops / n * value / rates["bfloat16" if "bfloat16" in name else "float32"]
        apart = float(np.abs(results[name] - reference).max())
        alike = float((results[name].argmax(1) == reference.argmax(1)).mean())
        lines.append(
            [name, f"{value:.1f}", f"{value / speed[best]:.2f}", f"{share:.0%}", f"{apart:.0e}", f"{alike:.3f}"]
        )
    head = ["setting", "rows a CPU second", "x the fastest pipeline", "share of the processor", "largest difference"]
    table = markdown_table([*head, "same label"], lines)
    parts = (__doc__ or "").split("\n\n")
    command = f"`python benchmarks/prediction.py --rows {n} --rounds {rounds}`"
    load = f"{command}, torch {torch.__version__}, transformers {transformers.__version__}; "
    load += f"{os.getloadavg()[0]:.1f} processes were waiting at the end, this one among them."
    measured = ", ".join(f"{rate / 1e9:,.0f} GFLOP/s in {kind}" for kind, rate in rates.items())
    text = ["# Prediction beside `transformers.pipeline`", *(" ".join(part.split()) for part in parts[2:4]), load]
    if tiny:
        text.append("**A toy model on toy texts: these figures show that the commands run, and nothing else.**")
    text += [
        f"Matrix products: {measured}. Tokens of the texts: {sum(lengths):,}, {sum(lengths) / n:.0f} on average.",
        table,
    ]
    share = flops / n * speed[OURS] / rates["float32"]
    exact = float(np.abs(results[OURS] - reference).max()) < SAME
    fast = speed[OURS] >= EXACT * speed[best] and speed[OURS] >= UNSORTED_EXACT * speed[UNSORTED]
    checks = [
        [f"float32: the same probabilities (< {SAME:g})", exact],
        [f"float32: {EXACT} x the fastest pipeline ({best}) and {UNSORTED_EXACT} x {UNSORTED} unsorted, or "
         f"{PEAK:.0%} of the processor", fast or share >= PEAK],
        [f"bfloat16: {UNSORTED_HALF} x the fastest pipeline in float32", speed[HALF] >= UNSORTED_HALF * speed[best]],
    ]  # fmt: skip
    if not tiny:
        text.append(markdown_table(["what is asked", "met"], [[what, "yes" if met else "no"] for what, met in checks]))
    return "\n\n".join(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tiny", action="store_true", help="a toy model: shows that everything runs")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text = measure(args.rows, args.rounds, tiny=args.tiny)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
