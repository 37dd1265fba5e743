"""What the simulated LLM makes of definitions alone: notes of the facts of any task, and its opinion of a fact.

It says the wording of a fact as it stands, in a sentence of its own, and leaves out a share of the facts, as a real LLM
does. Where there are no facts either, it quotes the meaning of the label that was asked for.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence

from hf_synth.demo.clinic_facts import FACTS
from hf_synth.generation.fact_check import status

_LEFT_OUT = 0.2  # share of the facts asked for that a note does not state
_MISJUDGED = 0.1  # share of the questions about a fact that are answered at random
_FRAMES = ("The record says: {}.", "At this visit: {}.", "On review: {}.", "Today: {}.", "Noted: {}.")
_ASIDES = (
    "Medicines were reviewed.", "The chart was brought up to date.", "Hands were warm.", "Gait steady on the corridor.",
    "Sleep is fair.", "Lives with a friend.", "Walked in unaided.", "The next visit is in four weeks.",
    "Questions were answered.", "Vaccines are up to date.", "Reads the paper every morning.", "Hearing aids worn.",
)  # fmt: skip


def note_of(rng: random.Random, stated: Sequence[str], *, again: bool = False) -> str:
    """Write a note that states these wordings, but for those that are left out by error.

    Of a note that is asked for again half as many are.
    """
    left_out = _LEFT_OUT * (0.5 if again else 1.0)
    story = [rng.choice(_FRAMES).format(wording.rstrip(".")) for wording in stated if rng.random() >= left_out]
    story += rng.sample(_ASIDES, rng.randint(3, 6))
    rng.shuffle(story)
    opening = rng.choice(("Seen", "Reviewed", "Came in", "Visit")) + f" on day {rng.randint(1, 900)}."
    return " ".join([opening, *story])


def meanings_of(prompt: str) -> dict[str, str]:
    """Return the meanings of the labels that a prompt lists."""
    listed = re.search(r"(?m)^Labels:\n((?:- .*\n?)+)", prompt)
    return dict(re.findall(r"(?m)^- ([^:\n]+): (.+)$", listed[1])) if listed else {}


def opinion_of(rng: random.Random, prompt: str) -> str:
    """Judge one fact of a note by the rules for the clinic's facts; one answer in ten is drawn at random.

    A fact of another task is stated where its wording stands in the note.
    """
    found = re.search(r"Note:\n(.*)\n\nFact:\n([^:\n]+): ([^\n]+)\n", prompt, re.DOTALL)
    items = {item.name: item for item in FACTS.items}
    if found is None or rng.random() < _MISJUDGED:
        return rng.choice(("stated", "negated", "missing"))
    values = items[found[2]].values if found[2] in items else ()
    pattern = {wording: pattern for wording, _, pattern in values}.get(found[3], re.escape(found[3]))
    state = status(pattern, found[1], found[3]) if pattern else "missing"
    return state if state in ("stated", "missing") else "negated"


def grades_of(labels: Sequence[str], label: str) -> list[int]:
    """Return the grades that a label of an esophagitis task covers; none for any other task."""
    if set(labels) == {"none", "esophagitis"}:
        return [0] if label == "none" else [1, 2, 3]
    if labels and all(name.startswith("grade_") for name in labels):
        return [int(g) for g in re.findall(r"\d", label)]
    return []
