"""Report of one run: a verdict and notes side by side, then scores, labels, noise, calibration and cost, folded.

All figures are computed from columns and scores. Whether gold or generator are simulated is, too: the page says why
once, and every picture has a stamp.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.correction.augmentation import trainable_rows
from hf_synth.correction.description import describe
from hf_synth.experiments.verdict import (
    label_section,
    notes_section,
    run_lead,
)
from hf_synth.generation.likeness import likeness_line
from hf_synth.models.base_models import TOY_NOTE
from hf_synth.reports.page import Lead, Section, write_report
from hf_synth.reports.realism import read_realism, realism_section
from hf_synth.task.columns import access_of
from hf_synth.task.folders import read_manifest

if TYPE_CHECKING:
    pass

from hf_synth.experiments.journey_diagnostics import calibration_section, confusion_section, cost_section, gate_section
from hf_synth.experiments.journey_sections import (
    Journey,
    correction_section,
    curve_section,
    gain_section,
    noise_section,
    score_section,
)


def write_journey_report(journey: Journey, *, more: Sequence[Section] = ()) -> Path:
    """Write report.html and report.md of a run; return the path of the page.

    Args:
        more: further sections, e.g. a comparison with the true labels of a simulation.

    Raises:
        OutputError: the folder cannot be written.
    """
    scores = list(journey.scores.values())
    bases = sorted({Path(str(s.model["base_model"])).name for s in scores if s.model.get("base_model")})
    toy = any(s.model.get("toy") for s in scores)
    facts: list[tuple[str, Any]] = [
        ("task", journey.task.full_name),
        ("access", access_of(journey.corrected)),
        ("synthetic rows", sum(status != "rejected" for status in journey.corrected["label_status"][:])),
        ("correction", journey.policy.method),
        ("models", "models/ of this folder, e.g. " + next(iter(journey.scores), "")),
        ("base model", (", ".join(bases) or "unknown") + (" (a tiny one, made on the spot)" if toy else "")),
        ("test rows", next((s.n for s in scores), 0)),
    ]
    manifest = read_manifest(journey.out / "synthetic") or {}
    line = likeness_line(manifest.get("likeness"))
    if line and "synthetic" not in journey.approved:  # figures of the rows before they were edited
        facts.append(("like gold (1 is as gold; in brackets gold's halves)", line))
    if journey.approved:
        facts.append(("edited and approved by hand", ", ".join(journey.approved)))
    sections = [
        *journey_sections(journey),
        *_realism_sections(journey),
        *(replace(section, folded=True) for section in more),
    ]
    title = f"{journey.task.full_name}: results of a run"
    lead = journey_lead(journey)
    return write_report(journey.out, title, sections, simulated=journey.simulated, facts=facts, lead=lead)


def _realism_sections(journey: Journey) -> list[Section]:
    """Return what people thought of the notes of the run's folders, where they were asked."""
    found = (
        (name, read_realism(journey.out / name))
        for name in ("synthetic", "corrected")
        if name not in journey.approved  # whether people saw the edited notes is not known
    )
    sections = (realism_section(recorded, f"`{name}/`") for name, recorded in found)
    return [section for section in sections if section is not None]


def journey_lead(journey: Journey) -> Lead:
    """Return what the report says first."""
    lead = run_lead(
        journey.task, journey.scores, journey.corrected, journey.out, journey.caption, journey.policy, journey.source
    )
    toy = [TOY_NOTE] if any(s.model.get("toy") for s in journey.scores.values()) else []
    return replace(lead, points=[*lead.points, *toy])


def journey_sections(journey: Journey) -> list[Section]:
    """Return the sections of the report for which there are figures."""
    description = describe(journey.corrected, journey.policy)
    first = (
        label_section(journey.scores) if trainable_rows(journey.corrected) else None,
        score_section(journey),
        notes_section(journey.task, journey.corrected, journey.out),
    )
    folded = (
        gain_section(journey),
        curve_section(journey),
        correction_section(journey, description),
        noise_section(journey, description),
        confusion_section(journey),
        calibration_section(journey),
        gate_section(journey),
        cost_section(journey),
    )
    shown = [section for section in first if section is not None]
    return shown + [replace(section, folded=True) for section in folded if section.plots or section.tables]
