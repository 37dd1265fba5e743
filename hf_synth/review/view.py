"""What a page of a review shows."""

from __future__ import annotations

from dataclasses import dataclass

from hf_synth.review.agreement import Agreement
from hf_synth.review.sheets import Item, Noise

OPEN, AGAIN, DIFFERENT = "open", "unsure", "differ"  # queues of notes
QUEUES = (OPEN, AGAIN, DIFFERENT)


@dataclass(frozen=True)
class View:
    """What a page shows.

    Args:
        queue: the queue that the note is from.
        item: the note; None where the queue is empty.
        key: of the note in a form; it reveals nothing about the row.
        count: events of this reviewer: a form sends it back, so that a stale page changes nothing.
        answered, asked: notes of the sheet with an answer, and all.
        unsure: notes to look at again.
        differ: notes on which reviewers differ.
        reviewers: reviewers with decisions on disk.
        choices: the different answers to a note on which reviewers differ.
        comment: this reviewer's comment on the note.
        last: the last decision, as a sentence; empty without one.
        noise: the share of wrong labels; None while it cannot be estimated, or must not be shown.
        so_far: what would hold without a further answer; empty without a promise.
        may_stop: why no more answers are needed; empty where they are.
        ahead: how many notes may follow those that are asked for; empty where none can.
        shown: the label that the note has, where it may be shown before the answer; else empty.
        agreements: of each pair of reviewers, once the queue is empty.
    """

    queue: str
    item: Item | None
    key: str
    count: int
    answered: int
    asked: int
    unsure: int
    differ: int
    reviewers: int
    choices: tuple[str, ...] = ()
    comment: str = ""
    last: str = ""
    noise: Noise | None = None
    so_far: str = ""
    may_stop: str = ""
    ahead: str = ""
    shown: str = ""
    agreements: tuple[Agreement, ...] = ()
