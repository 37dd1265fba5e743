"""CPU time of tokenizing artificial notes: without the token cache, filling it, and reading it.

    python benchmarks/token_cache.py [--notes 4000] [--out docs/results/token_cache.md]

The tokenizer is the demo's (WordPiece of the tokenizers library); texts are simulated notes, joined to long ones for
the second row. The best of three runs counts.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from hf_synth import load_gold, load_task
from hf_synth.demo.encoder import make_encoder
from hf_synth.models.loading import load_tokenizer
from hf_synth.models.tokens import text_tokens
from hf_synth.reports.page import markdown_table


def seconds(work: Any) -> float:
    """Return the CPU seconds of the best of three runs."""
    best = float("inf")
    for _ in range(3):
        started = time.process_time()
        work()
        best = min(best, time.process_time() - started)
    return best


def measure(tokenizer: Any, texts: list[str], folder: Path) -> tuple[float, float, float, int]:
    """Return CPU seconds without a cache, filling one, and reading it; and its size in bytes."""
    plain = seconds(lambda: text_tokens(tokenizer, texts))
    started = time.process_time()
    text_tokens(tokenizer, texts, cache_dir=folder)
    fill = time.process_time() - started
    read = seconds(lambda: text_tokens(tokenizer, texts, cache_dir=folder))
    return plain, fill, read, sum(f.stat().st_size for f in folder.rglob("*.arrow"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--notes", type=int, default=4_000)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    from hf_synth.demo.clinic import write_notes

    gold = load_gold(load_task("clinic"))["train"]
    notes = [note.text for note in write_notes(args.notes, seed=0)]
    long = [" ".join(notes[i : i + 10]) for i in range(0, len(notes), 10)]
    with tempfile.TemporaryDirectory() as work:
        tokenizer = load_tokenizer(make_encoder(list(gold["text"]), Path(work) / "encoder", seed=0))
        rows = []
        for name, texts in (("notes", notes), ("ten notes in one", long)):
            plain, fill, read, size = measure(tokenizer, texts, Path(work) / f"cache-{len(rows)}")
            counts = [f"{len(texts):,}", f"{len(text_tokens(tokenizer, texts).flat):,}"]
            times = [f"{plain:.2f}", f"{fill:.2f}", f"{read:.3f}", f"{plain / read:.0f} x"]
            rows.append([name, *counts, *times, f"{size / 1e6:.1f} MB"])
    head = ["texts (simulated)", "number", "tokens", "no cache, s", "filling it, s", "reading it, s", "speed-up"]
    head += ["on disk"]
    table = markdown_table(head, rows)
    print(table)
    if args.out:
        how = "CPU seconds on one thread (`python benchmarks/token_cache.py`)."
        note = "The first cell of an experiment fills the cache, and all others read it."
        args.out.write_text(f"# CPU time of the token cache\n\n{how} {note}\n\n{table}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
