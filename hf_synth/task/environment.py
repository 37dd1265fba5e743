"""Variables of the environment for processes that are started within a block."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


@contextmanager
def environment(own: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the length of a block; afterwards they are as they were.

    Example:
        >>> with environment({"OMP_NUM_THREADS": "1"}):
        ...     os.environ["OMP_NUM_THREADS"]
        '1'
    """
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
