"""Shards and Ray beside one process: seconds, and what spreading the work costs.

    python benchmarks/cluster.py --rows 2000 --block-rows 250

A toy encoder with a random head reads short notes, so that the figures are of the blocks and not of a model. With
--ray, Ray is timed too (needs hf_synth[ray]): once where a single block is missing, which is its start-up with the
merge, and once where all are missing. The difference is the work on the other blocks.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from support.cluster_rows import files_of, make_journey

from hf_synth.cli.cli import main
from hf_synth.task import arrow


def timed(*words: str) -> tuple[float, float]:
    """Run a verb in this process; return wall and CPU seconds."""
    wall, cpu = time.perf_counter(), time.process_time()
    with contextlib.redirect_stdout(io.StringIO()):
        code = main([*words, "--quiet"])
    if code not in (0, 1):
        raise SystemExit(f"{' '.join(words)} ended with {code}")
    return time.perf_counter() - wall, time.process_time() - cpu


def measure(rows: int, shards: int, *, ray: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="k") as folder:
        work = make_journey(Path(folder), rows)
        inputs = [str(work / "gold"), str(work / "synthetic")]
        given = ["--corrector", str(work / "model"), "--split", "validation", "--method", "posterior"]
        print(f"{rows:,} rows, blocks of {arrow.BLOCK_ROWS:,}, {os.getloadavg()[0]:.1f} processes waiting")
        for verb, more in (("correct", given), ("audit", [])):
            command = [verb, *inputs, *more, "--out", str(work / verb)]
            timed(*command)  # imports, caches
            one = timed(*command)
            whole = files_of(work / verb)
            parts = [timed(*command, "--shard", f"{i}/{shards}") for i in range(shards)]
            merged = timed("merge", str(work / verb))
            same = files_of(work / verb) == whole
            walls = ", ".join(f"{wall:.1f}" for wall, _ in parts)
            total = sum(cpu for _, cpu in [*parts, merged])
            print(f"{verb}: one process {one[0]:.1f} s; shards {walls} s, merge {merged[0]:.1f} s")
            print(f"  CPU {one[1]:.1f} s in one process, {total:.1f} s in {shards} shards; same bytes: {same}")
            if ray:
                on_ray = [*command, "--engine", "ray", "--workers", "2"]
                whole_run, _ = timed(*on_ray)
                timed(*command, "--shard", "0/1")
                found = sorted((work / verb / ".hf_synth" / "blocks").glob("*/*.parquet"))
                found[0].unlink()
                start, _ = timed(*on_ray)
                rest, local = whole_run - start, one[0] * (len(found) - 1) / len(found)
                print(f"  Ray with two workers {whole_run:.1f} s: start-up, one block and merge {start:.1f} s,")
                print(f"  the other {len(found) - 1} blocks {rest:.1f} s (one process: {local:.1f} s, merge included)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--block-rows", type=int, default=250)
    parser.add_argument("--shards", type=int, default=3)
    parser.add_argument("--ray", action="store_true")
    options = parser.parse_args()
    arrow.BLOCK_ROWS = options.block_rows
    measure(options.rows, options.shards, ray=options.ray)
