"""How well the check of facts finds facts that are missing from a note, or denied in it.

    python benchmarks/fact_check.py [--judge]

With `--judge` the same faults are shown to the simulated LLM, question by question, through `fact_judge.judge_facts`.
It answers by the rules, and one question in ten at random: the figure tests that questions and answers are put together
rightly, and says nothing of how well an LLM judges.

Notes of the facts of `clinic:facts` are put together from sentences of one of five sources: the clinic's phrases
and sentences for development, which the patterns were written against; held-out sentences, written before the patterns
by the same author; the simulator's sentences, which are of another author; and hard ones, written afterwards in search
of faults. Each note is asked for
one state of swallowing, a weight and a temperature. Some facts are planted wrong: left out, replaced by a sentence that
only mentions them (denied, earlier, possible, of another person, of another cause), or replaced by another value.
Printed: the share of planted faults that are found, and the share of facts stated as asked that are reported.
"""

from __future__ import annotations

import random
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from fact_check_sentences import DEVELOPMENT, HARD, HELD_OUT

from hf_synth.demo import clinic_language as clinic
from hf_synth.demo import simulator_language as simulator
from hf_synth.demo.clinic_facts import FACTS
from hf_synth.demo.simulator import Faults, answer
from hf_synth.evaluation.statistics import wilson
from hf_synth.generation.fact_check import check_facts
from hf_synth.generation.fact_judge import judge_facts
from hf_synth.llm.questions import Answer, Question
from hf_synth.task.scripts import load_task

NOTES, PLANTED = 200, 0.4
SWALLOWING, WEIGHT, TEMPERATURE = FACTS.items
KEYS = ("regular", "felt", "finding", "changed", "supplements", "fluids", "tube", "admitted")
WORDING = dict(zip(KEYS, (value[0] for value in SWALLOWING.values), strict=True))
POINTS = dict(zip(KEYS, (value[1] for value in SWALLOWING.values), strict=True))
_OF_CLINIC = {
    "felt": clinic.MILD, "finding": clinic.FINDING, "changed": clinic.SOFT, "supplements": clinic.SUPPLEMENT,
    "fluids": clinic.FLUIDS, "tube": clinic.TUBE, "admitted": clinic.ADMITTED,
}  # fmt: skip
_MENTIONED = (*clinic.HISTORY, *clinic.ELSEWHERE, *clinic.ADVICE)
Bank = dict[str, tuple[tuple[str, ...], tuple[str, ...]]]
CLINIC: Bank = {fact: (ways, _MENTIONED) for fact, ways in _OF_CLINIC.items()} | {
    fact: DEVELOPMENT[fact] for fact in ("lost", "fever")
}
_SIMULATED = {
    "felt": simulator.MILD, "finding": simulator.FINDING, "changed": simulator.SOFT,
    "supplements": simulator.SUPPLEMENT, "fluids": simulator.FLUIDS, "tube": simulator.TUBE,
    "admitted": simulator.ADMITTED,
}  # fmt: skip
_ONLY_SIMULATED = (
    *simulator.HISTORY,
    *simulator.ELSEWHERE,
    *(s for ways in simulator.CONSIDERED.values() for s in ways),
)
SIMULATOR: Bank = {fact: (ways, _ONLY_SIMULATED) for fact, ways in _SIMULATED.items()} | {
    fact: DEVELOPMENT[fact] for fact in ("lost", "fever")
}
BANKS: dict[str, Bank] = {
    "clinic": CLINIC, "development": DEVELOPMENT, "held out": HELD_OUT, "simulator": SIMULATOR, "hard": HARD,
}  # fmt: skip
_NOT_ASKED = ("kg", "weight", "fever", "kilo")
ASIDE = [s for s in (*clinic.SIDE, *clinic.EXAM, *clinic.PLAN) if not any(word in s.lower() for word in _NOT_ASKED)]


def note(rng: random.Random, bank: Bank) -> tuple[str, list[tuple[str, str, str]]]:
    """Return a note, and (fact, wording, what was planted) of each fact that it was asked for; "" for none."""
    sentences: list[str] = []
    asked = []
    key = rng.choice(KEYS)
    plant = _state(rng, bank, key, sentences, [k for k in KEYS[1:] if POINTS[k] != POINTS[key] and k != key])
    if key == "regular" and not plant:
        sentences.append(rng.choice(clinic.REGULAR))
    asked.append((SWALLOWING.name, WORDING[key], plant))
    for item, fact in ((WEIGHT, "lost"), (TEMPERATURE, "fever")):
        wanted = rng.random() < 0.5
        plant = _state(rng, bank, fact if wanted else "regular", sentences, [] if wanted else [fact])
        asked.append((item.name, item.values[int(wanted)][0], plant))
    sentences += rng.sample(ASIDE, rng.randint(2, 6))
    rng.shuffle(sentences)
    return " ".join(sentences), asked


def _state(rng: random.Random, bank: Bank, fact: str, sentences: list[str], others: list[str]) -> str:
    """Add the sentence of a fact, or plant a fault; return what was planted."""
    if rng.random() >= PLANTED:
        if fact != "regular":
            sentences.append(rng.choice(bank[fact][0]))
        return ""
    plants = (["other value"] if others else []) + ([] if fact == "regular" else ["left out", "mentioned"])
    if not plants:
        return ""
    plant = rng.choice(plants)
    if plant == "mentioned":
        sentences.append(rng.choice(bank[fact][1]))
    elif plant == "other value":
        sentences.append(rng.choice(bank[rng.choice(others)][0]))
    return plant


def measure(bank: Bank, *, seed: int = 0, notes: int = NOTES, show: bool = False) -> tuple[Counter[str], Counter[str]]:
    """Return the facts by what was planted ("" for none), and those of them that were reported."""
    rng = random.Random(f"fact check {seed}")
    total, reported = Counter[str](), Counter[str]()
    for _ in range(notes):
        text, asked = note(rng, bank)
        found = {lack.fact for lack in check_facts(FACTS, tuple((fact, wording) for fact, wording, _ in asked), text)}
        for fact, wording, plant in asked:
            total[plant] += 1
            reported[plant] += fact in found
            if show and (fact in found) != bool(plant):
                print(f"    {plant or 'stated'} | {wording} | {text}")
    return total, reported


class _Simulated:
    """The simulated LLM without a server; only what `judge_facts` uses of a `Chat`."""

    def stream(self, questions: Iterable[Question], **options: Any) -> Iterator[Answer]:
        """Yield the answers in order."""
        for question in questions:
            yield Answer(answer(question.messages, faults=Faults(refusal=0.0)), "ok", model="simulator")


def measure_judge(bank: Bank, *, seed: int = 0, notes: int = NOTES) -> tuple[Counter[str], Counter[str]]:
    """Return the facts with a pattern by what was planted, and those of them that the judge does not find stated."""
    rng = random.Random(f"fact check {seed}")
    made = [note(rng, bank) for _ in range(notes)]
    shown = [(tuple((fact, wording) for fact, wording, _ in asked), text) for text, asked in made]
    task = replace(load_task("clinic:facts"), facts=FACTS)
    total, reported = Counter[str](), Counter[str]()
    judged = judge_facts(task, _Simulated(), shown, access="open")  # type: ignore[arg-type]
    for (_, asked), found in zip(made, judged, strict=True):
        for fact, _, plant in asked:
            if fact in found:
                total[plant] += 1
                reported[plant] += found[fact] != "stated"
    return total, reported


def main() -> None:
    """Print a table of all sources."""
    print("| sentences | planted faults found | 95% interval | false alarms | 95% interval | by kind |")
    print("|---|---|---|---|---|---|")
    for name, bank in BANKS.items():
        show = "--show" in sys.argv and name in ("clinic", "development")
        total, reported = measure_judge(bank) if "--judge" in sys.argv else measure(bank, show=show)
        plants, found = total.total() - total[""], reported.total() - reported[""]
        hit, alarm = wilson(found, plants), wilson(reported[""], total[""])
        kinds = ", ".join(f"{kind} {reported[kind]}/{total[kind]}" for kind in sorted(filter(None, total)))
        print(
            f"| {name} | {found} of {plants} ({found / plants:.1%}) | {hit[0]:.1%} to {hit[1]:.1%} | "
            f"{reported['']} of {total['']} ({reported[''] / total['']:.1%}) | {alarm[0]:.1%} to {alarm[1]:.1%} | "
            f"{kinds} |"
        )


if __name__ == "__main__":
    main()
