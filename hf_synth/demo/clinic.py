"""Artificial clinic notes: a seeded generator of radiation-oncology follow-up notes with grades of esophagitis.

A patient has visits over some weeks. Each visit has facts (symptoms, diet, treatment), its grade follows from the facts
by one rule, and the note states the facts in one of many ways, among misleading findings. The grade is never printed.
The notes prove that the software works; they show no clinical benefit.
"""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass

from hf_synth.demo import clinic_language as say
from hf_synth.demo.clinic_facts import FACTS as FACTS


@dataclass(frozen=True)
class Facts:
    """Facts of a visit that decide the grade; nothing else in a note does.

    Args:
        felt: swallowing is sore or tight, whatever is eaten.
        finding: an esophageal finding on imaging or endoscopy.
        changed: textures or amounts of food were changed because of swallowing.
        supplements: oral supplements because of swallowing.
        fluids: intravenous fluids because of swallowing.
        tube: tube feeding or parenteral nutrition because of swallowing.
        admitted: in hospital because of swallowing.
    """

    felt: bool = False
    finding: bool = False
    changed: bool = False
    supplements: bool = False
    fluids: bool = False
    tube: bool = False
    admitted: bool = False


def grade_of(facts: Facts) -> int:
    """Return the grade of esophagitis, 0-3 (after CTCAE v5.0; 4 and 5 do not occur here)."""
    if facts.fluids or facts.tube or facts.admitted:
        return 3
    if facts.changed or facts.supplements:
        return 2
    return 1 if facts.felt or facts.finding else 0


@dataclass(frozen=True)
class Note:
    """One artificial note.

    Args:
        id: unique among the notes of one call.
        patient_id: shared by the notes of a patient.
        week: of the course; 7 and more are follow-up.
        text: the note.
        grade: 0-3, `grade_of(facts)`.
        facts: the facts that the text states.
    """

    id: str
    patient_id: str
    week: int
    text: str
    grade: int
    facts: Facts


def write_notes(n: int, *, seed: int = 0) -> list[Note]:
    """Write n notes, patient by patient and visit by visit; a longer call begins with the same notes."""
    rng = random.Random(f"clinic-{seed}")
    notes: list[Note] = []
    patient = 0
    while len(notes) < n:
        notes += _course(rng, f"p{patient:04d}", len(notes))
        patient += 1
    return notes[:n]


@dataclass(frozen=True)
class _Writer:
    """Habits of one writer."""

    headers: Sequence[str] | None
    terse: bool
    typos: float
    abbreviates: bool


_HEADERS = (
    ("INTERVAL HISTORY:", "MEDICATIONS:", "EXAM:", "A/P:"), ("Interval:", "Meds:", "PE:", "Assessment and Plan:"),
    ("Subjective", "Current medications", "Objective", "Impression/Plan"), ("S:", "Rx:", "O:", "A:"),
    ("HPI.", "Medications.", "Physical exam.", "Plan."),
    None,
)  # fmt: skip


def _course(rng: random.Random, patient: str, first: int) -> list[Note]:
    """Write the visits of one patient: symptoms grow during treatment and fade after it."""
    writer = _Writer(rng.choice(_HEADERS), rng.random() < 0.3, rng.choice((0, 0, 0.01, 0.03)), rng.random() < 0.4)
    disease, fractions = _pick(rng, say.DISEASE), rng.choice((25, 28, 30, 30, 33, 35))
    frailty = rng.gauss(0, 1)
    weeks = sorted(rng.sample(range(1, 16), rng.choice((3, 4, 5, 6, 8))))
    notes: list[Note] = []
    for week in weeks:
        level = frailty + 1.9 * _severity(week) - 1.05 + rng.gauss(0, 0.55)
        facts, late = _facts(rng, level), week > 7
        resolved = late and frailty > 0 and rng.random() < 0.5
        text = _note(rng, writer, disease, fractions, week, facts, late, resolved)
        notes.append(Note(f"n{first + len(notes):05d}", patient, week, text, grade_of(facts), facts))
    return notes


def _severity(week: int) -> float:
    return min(1.0, week / 5) if week <= 7 else max(0.0, 1 - (week - 7) / 4)


def _facts(rng: random.Random, level: float) -> Facts:
    if level < 0.45:
        return Facts()
    if level < 0.95:
        return Facts(finding=True) if rng.random() < 0.2 else Facts(felt=True)
    if level < 1.75:
        supplements = rng.random() < 0.35
        return Facts(felt=True, changed=rng.random() < 0.8 if supplements else True, supplements=supplements)
    severe = rng.choice(("fluids", "fluids", "tube", "admitted", "admitted"))
    return Facts(felt=True, changed=rng.random() < 0.6, **{severe: True})


def _pick(rng: random.Random, phrases: Sequence[str], spread: float = 0.85) -> str:
    """Draw a phrase, the first ones most often (Zipf's law)."""
    weights = [1 / (rank + 1.5) ** spread for rank in range(len(phrases))]
    return rng.choices(phrases, weights)[0]


def _state_swallowing(rng: random.Random, facts: Facts, resolved: bool) -> list[str]:
    """State the facts; misleading phrases are drawn only where they do not change the facts."""
    phrases = (
        (facts.admitted, say.ADMITTED),
        (facts.tube, say.TUBE),
        (facts.fluids, say.FLUIDS),
        (facts.changed, say.SOFT),
        (facts.supplements, say.SUPPLEMENT),
        (facts.finding, say.FINDING),
    )
    lines = [_pick(rng, ways) for stated, ways in phrases if stated]
    if not lines and facts.felt:
        lines.append(_pick(rng, say.MILD))
    if not lines:
        trap = rng.random()
        ways = say.HISTORY if resolved or trap < 0.1 else say.ELSEWHERE if trap < 0.28 else say.REGULAR
        lines.append(_pick(rng, ways))
    return lines


def _note(
    rng: random.Random,
    writer: _Writer,
    disease: str,
    fractions: int,
    week: int,
    facts: Facts,
    late: bool,
    resolved: bool,
) -> str:
    age, sex = rng.randint(44, 84), rng.choice(("man", "woman"))
    when = f"{week - 7} weeks after completing" if late else f"week {week} of"
    opening = rng.choice((
        f"{age} year old {sex} with {disease}, {when} thoracic radiation.",
        f"{disease[0].upper() + disease[1:]}, {when} RT ({fractions} fx planned).",
        f"{sex.capitalize()}, {age}, {disease}; {when} chemoradiotherapy.",
        f"On-treatment visit, {disease}." if not late else f"Follow-up visit, {disease}.",
        f"{age} yo, {when} treatment for {disease}.",
    ))  # fmt: skip
    side = [_pick(rng, say.SIDE, 0.3) for _ in range(rng.randint(1, 2 if writer.terse else 5))]
    story = [*_state_swallowing(rng, facts, resolved), *dict.fromkeys(side)]
    rng.shuffle(story)
    drugs = [_pick(rng, say.OTHER_MEDS, 0.3) for _ in range(rng.randint(0, 2 if writer.terse else 4))]
    grade = grade_of(facts)
    if rng.random() < (0.04, 0.3, 0.6, 0.6)[grade]:
        drugs.append(_pick(rng, say.TOPICAL))
    if rng.random() < (0.1, 0.08, 0.35, 0.6)[grade]:
        drugs.append(_pick(rng, say.OPIOID))
    rng.shuffle(drugs)
    exam = [_pick(rng, say.EXAM, 0.3) for _ in range(rng.randint(1, 2 if writer.terse else 4))]
    plan = [_pick(rng, say.PLAN, 0.3) for _ in range(rng.randint(1, 2 if writer.terse else 4))]
    if rng.random() < 0.45:
        plan.append(_pick(rng, say.ADVICE, 0.4))
    rng.shuffle(plan)
    meds = ", ".join(dict.fromkeys(drugs)) or rng.choice(("none", "unchanged", "reviewed"))
    sections = [" ".join([opening, *story]), meds + ".", " ".join(dict.fromkeys(exam)), " ".join(dict.fromkeys(plan))]
    if writer.headers is None:
        text = " ".join([sections[0], f"Takes {sections[1]}" if drugs else "", *sections[2:]])
    else:
        parts = [f"{h} {s}" for h, s in zip(writer.headers, sections, strict=True)]
        if rng.random() < 0.1:
            parts.pop(rng.choice((1, 2)))
        text = rng.choice(("\n", "\n", "\n\n", " ")).join(parts)
    return _with_typos(rng, writer, re.sub(r" +", " ", text).strip())


_SHORT = (("patient", "pt"), ("with", "w/"), ("history", "hx"), ("because of", "2/2"),
          ("treatment", "tx"), ("weeks", "wks"), ("without", "w/o"), ("chemotherapy", "chemo"))  # fmt: skip


def _with_typos(rng: random.Random, writer: _Writer, text: str) -> str:
    """Add the writer's abbreviations and typing errors."""
    if writer.abbreviates:
        for word, short in _SHORT:
            if rng.random() < 0.6:
                text = re.sub(rf"\b{word}\b", short, text)
    if not writer.typos:
        return text
    letters = list(text)
    for i in range(1, len(letters) - 1):
        if letters[i].isalpha() and letters[i - 1].isalpha() and rng.random() < writer.typos / 2:
            letters[i], letters[i - 1] = letters[i - 1], letters[i]
    return "".join(letters)
