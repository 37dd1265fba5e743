"""A job with progress, which a started process can import."""

from __future__ import annotations

import time

from hf_synth.reports.progress import stage


def count_slowly(n: int) -> int:
    """Count to n, a step in a tenth of a second."""
    with stage(total=n, unit="steps") as one:
        for _ in range(n):
            one.advance()
            time.sleep(0.1)
    return n
