"""What Ctrl-C leaves: each verb prints what is kept, and the command that goes on."""

from __future__ import annotations

import contextlib
import shlex
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from hf_synth.cli import llms
from hf_synth.cli.config import without_secrets

NOTHING = "nothing was kept; run the same command again"


@contextlib.contextmanager
def on_stop(kept: Callable[[], str]) -> Iterator[None]:
    """Print on Ctrl-C within the context what is kept, and how to go on.

    Args:
        kept: returns the sentence. It is called after everything inside the context has ended.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(stop.args[0] if stop.args else kept()) from None


@contextlib.contextmanager
def keeping_answers(args: Namespace, beside: Path, also: str = "") -> Iterator[None]:
    """Print on Ctrl-C within the context how many new answers the journal keeps.

    Args:
        beside: the data next to which the journal lies, as for `llms.llm_of`, which must be opened inside.
        also: a further part of the sentence.
    """
    path = llms.journal_path(args, beside)
    before = _answers_in(path)

    def kept() -> str:
        new = _answers_in(path) - before
        answers = f"{new:,} {'answer' if new == 1 else 'answers'} kept in {path}" if new else "no answer had arrived"
        batch = "; the batch goes on at its provider, and is found again" if getattr(args, "batch", False) else ""
        return f"{answers}{batch}{also}; run the same command again to go on"

    with on_stop(kept):
        yield


def _answers_in(path: Path) -> int:
    """Count the answers of a journal; none where it cannot be read."""
    from hf_synth.errors import JournalError
    from hf_synth.llm.journal import Journal

    if not path.is_file():
        return 0
    try:
        with Journal(path, read_only=True) as journal:
            return len(journal)
    except JournalError:
        return 0


def command(args: Namespace, *more: str) -> str:
    """Return the command that is running, with more words; secrets are left out."""
    return shlex.join(["hf-synth", *without_secrets(args.argv), *more])
