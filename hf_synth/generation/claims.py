"""What may be claimed of notes that were written without gold, and of what is made of them: a sentence for each step.

`generate --no-gold` records in its manifest that it saw no gold. Rows that people labelled afterwards keep the source
"synthetic", by which later steps know them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

NOTES_CLAIM = (
    "an LLM wrote these notes from definitions. Nothing shows that they are like real notes, and a label is what was "
    "asked for: no person has looked at it."
)
REVIEWED_CLAIM = (
    "people labelled these notes, which an LLM wrote. That shows how often the LLM's labels are wrong among its own "
    "notes. It is no gold of real notes: how often a label occurs in real notes, and how they are written, is unknown."
)
CORRECTED_CLAIM = (
    "the corrector was measured on notes that an LLM wrote. Its figures hold for notes of this LLM, not for real ones."
)
UNCORRECTED_CLAIM = (
    "no label was corrected: each is what the LLM was asked for. How many are wrong is known from the review alone, "
    "for notes of this LLM."
)
TRAINING_CLAIM = "no row of this training set is a real note."
SCORES_CLAIM = (
    "this model was scored on notes that an LLM wrote and people labelled. The scores say nothing of real notes: label "
    "some real notes, and evaluate on those, before it is used on any."
)


def model_claim(rows: Iterable[str | None], validation: Sequence[str | None] | None) -> str:
    """Return what may be claimed of a model that was trained and not yet evaluated, and what to do next.

    Args:
        rows: source of each row that it learnt from; None where it is not known.
        validation: source of each row that stopped the training early; None without such rows.
    """
    if validation:
        whose = "notes that an LLM wrote and people labelled" if is_synthetic_gold(validation) else "gold"
        measured = (
            f"it was scored on {len(validation):,} validation rows ({whose}), by which its epoch was chosen: on new "
            "rows the score is probably lower."
        )
    else:
        measured = "nothing about how good this model is, since no labelled row has scored it."
    sentences = [measured, "`hf-synth evaluate` scores it on rows that it never saw."]
    if set(rows) == {"synthetic"}:
        sentences.append(TRAINING_CLAIM[0].upper() + TRAINING_CLAIM[1:])
    return " ".join(sentences)


def facts_line(counts: Mapping[str, int]) -> str:
    """Return how many notes state every fact that they were asked for, as a sentence.

    Args:
        counts: `facts_checked` of `generate_with_figures`.
    """
    again = f" ({counts['asked_again']:,} requests for a note again)" if counts["asked_again"] else ""
    return (
        f"of {counts['checked']:,} notes {counts['at_first']:,} state every fact by the first answer, "
        f"{counts['in_the_end']:,} in the end{again}; read by rules, which can err (docs/results/fact_check.md)"
    )


def is_synthetic_gold(sources: Iterable[str | None]) -> bool:
    """Return whether a set of rows that serves as gold holds notes that an LLM wrote."""
    return "synthetic" in set(sources)
