"""The column contract: every column of a row, its access, the vocabulary of statuses and reasons.

A note travels as a row of a `datasets.Dataset`. Each stage takes rows with some of these columns and adds others;
stages share nothing else. `Task` returns the exact features: `gold_features`, `synthetic_features`,
`corrected_features`.

    gold rows
    id, group                     stable id; patient, admission or note that must not straddle a split
    <text columns>, <label>       the task's own columns; all null in a rejected row
    judged                        only where `Task.partly_judged`: the labels that were judged, present or absent; null
                                  or no column means all. A label that was not judged counts neither way
    other_targets                 only where `Task.several_targets`: more right targets; the best one counts in scores
    source                        "gold", "synthetic" or "unlabelled"; the publishing gate never trusts it alone.
                                  Unlabelled: a real note labelled by an LLM, as private as gold, its label as
                                  uncertain as a synthetic row's
    task, task_version, access    the row's task, and what may be done with it; where datasets meet the strictest wins

    added by `generate`; the provenance is local and is dropped at export
    seed_ids, prompt_sha256       ids of the gold rows in the prompt (null where they are unknown), hash of the prompt
    fold                          number of the fold of gold that all of these rows lie in; null where the prompt showed
                                  none, and in rows made elsewhere. Folders of earlier versions have no such column
    generator                     the model's name, as the server reports it
    journal_key, answer_code      key of the answer in the journal; its finish reason, or "http_500", "timeout", ...
    sampling, created             sampling parameters as JSON, "sent_otherwise" among them what the endpoint does not
                                  take; time of the answer (UTC)
    prompt_tokens, completion_tokens, cost_usd   of the answer, on its first row only, so that a sum is right
    llm_label                     the label that the generator was to write; <label> starts as its copy
    llm_label_<name>              the label that another LLM gave to the row, optional; each `llm_label` may have an
                                  `llm_confidence` (llm_confidence_<name>) between 0 and 1. Gold may have these
                                  columns too: then the LLM's errors are counted there
    label_status, reason          kept | relabelled | dropped | rejected, and a word of REASONS

    added by `correct`, which rewrites <label>, label_status and reason
    label_probs, label_confidence posterior over the labels, and its maximum
    weight                        weight in training; 0 for a dropped row, which keeps its text, llm_label and <label>

Nothing here loads torch, openai or transformers; `datasets` is loaded when features are first asked for.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from datasets import Dataset

Kind = Literal["single_label", "multi_label", "text2text"]
Access = Literal["open", "restricted", "credentialed"]
KINDS: tuple[Kind, ...] = ("single_label", "multi_label", "text2text")
ACCESSES: tuple[Access, ...] = ("open", "restricted", "credentialed")  # loosest first
STATUSES = ("kept", "relabelled", "dropped", "rejected")
REASONS: dict[str, str] = {
    # kept
    "as_generated": "no correction was made: the label is the generator's",
    "agrees": "corrector and generator agree",
    "abstained": "the policy left the generator's label alone",
    "posterior_agrees": "generator and corrector together favour the generator's label",
    "weighted": "the generator's label stays; its estimated probability is the row's weight",
    "audited": "a person looked at the row and gave the label",
    "judged": "a real note, labelled by an LLM",
    # relabelled
    "argmax": "replaced by the corrector's most probable label",
    "posterior": "generator and corrector together favour another label",
    "rewritten": "the corrector's text replaces the generator's",
    # dropped
    "disagrees": "corrector and generator disagree",
    "unusable": "a person found the note unusable",
    "label_issue": "confident learning holds the label for wrong",
    "unused": "held-out gold shows no gain from the synthetic rows: gold alone trains the model",
    "not_in_text": "the target is not found in the text, where gold's targets are",
    "unknown_target": "the target is none of those that the task allows",
    # rejected: no usable row came of the answer
    "refusal": "the generator declined to answer",
    "unparsable": "the answer is not in the form that was asked for",
    "unknown_label": "the answer carries a label outside the task's set",
    "empty": "the text is empty or far too short",
    "truncated": "the answer was cut off at the token limit",
    "thinking": "truncated while thinking: raise --max-tokens",
    "duplicate": "the same text came before, in gold or in an earlier row",
    "near_duplicate": "almost the same text came before in an earlier row",
    "copied": "the text repeats a gold text, or a long run of its words",
    "too_long": "the text is several times as long as any that was shown",
    "language": "the text is in another language than the gold",
    "template": "the text holds a place to be filled in, e.g. [patient name]",
    "facts_differ": "by the task's rule the text states other facts than were asked for",
    "facts_missing": "the text does not state a fact that was asked for, or denies it",
    "label_leak": "the text names its own label",
    "llm_error": "the endpoint gave no answer",
    "budget": "the budget was spent before this call",
}
GOLD_COLUMNS = ("id", "group", "source", "task", "task_version", "access")
USAGE_COLUMNS = ("prompt_tokens", "completion_tokens", "cost_usd")
PROVENANCE_COLUMNS = (
    "seed_ids", "fold", "prompt_sha256", "generator", "journal_key", "answer_code", "sampling", "created",
    *USAGE_COLUMNS,
)  # fmt: skip
SYNTHETIC_COLUMNS = (*GOLD_COLUMNS, *PROVENANCE_COLUMNS, "llm_label", "label_status", "reason")
CORRECTION_COLUMNS = ("label_probs", "label_confidence", "weight")
JUDGED = "judged"
OTHER_TARGETS = "other_targets"
LLM_CONFIDENCE = "llm_confidence"  # stated by the LLM beside its `llm_label`, optional
LLM_LABEL = "llm_label"
UNLABELLED = "unlabelled"  # `source` of real notes that an LLM labelled
MANIFEST = "hf_synth.json"  # in every folder that a stage writes: the stage, the task, counts
RUN_CONFIG = "hf_synth_run.toml"  # beside it: the options that the folder was made with
_NAME = re.compile(r"[^\W\d][\w.-]{0,29}")  # one word, at most 30 characters
_WORDS = re.compile(r"(?=.{1,30}$)[A-Z][\w.-]*( [A-Z0-9(][\w.()/-]*){1,3}")  # several, each with a capital
_SENTENCE = re.compile(r"(?=.{1,30}$)[A-Z]\w*( [a-z]+\.?){1,3}")  # "Patient no.", "Date of visit"
_COLUMN_WORDS = frozenset((
    "id", "ids", "row", "file", "note", "notes", "text", "label", "labels", "grade", "code", "type", "number", "date",
    "begin", "end", "section", "sections", "subsection", "subsections", "summary", "assessment", "subjective",
    "objective", "relation", "class", "category", "score", "column", "remark", "source", "split", "group", "no.", "nr.",
    "nr", "datum", "befund", "bericht", "anforderung", "bemerkung", "dringlichkeit", "klasse", "kategorie", "nummer",
))  # fmt: skip
_PLAIN_WORDS = _COLUMN_WORDS | {"no", "of", "name", "patient", "visit", "message", "case", "birth"}
_MOST_SHOWN = 12  # names in one message


def annotation_columns(names: Iterable[str]) -> list[str]:
    """Return the names of columns that hold labels of LLMs, or the confidences stated beside them."""
    return [
        c for c in names if c in (LLM_LABEL, LLM_CONFIDENCE) or c.startswith((f"{LLM_LABEL}_", f"{LLM_CONFIDENCE}_"))
    ]


def strictest(*accesses: str | None) -> Access:
    """Return the strictest of several accesses; an absent or unknown one, or none at all, counts as credentialed."""
    order: dict[str | None, int] = {a: i for i, a in enumerate(ACCESSES)}
    worst = max((order.get(a, len(ACCESSES) - 1) for a in accesses), default=len(ACCESSES) - 1)
    return ACCESSES[worst]


def access_of(dataset: Dataset) -> Access:
    """Return the strictest access of a dataset's rows, from their `access` column.

    A dataset without the column, or with an empty or unknown value in it, is credentialed. A dataset with the column
    but without rows is open.
    """
    if "access" not in dataset.column_names:
        return "credentialed"
    if len(dataset) == 0:
        return "open"
    import pyarrow.compute as pc

    if dataset._indices is None:
        return strictest(*pc.unique(dataset.data.column("access")).to_pylist())
    table = dataset.with_format("arrow")
    accesses: set[str | None] = set()
    for batch in table.select_columns(["access"]).iter(batch_size=100_000):
        accesses.update(pc.unique(batch["access"]).to_pylist())
    return strictest(*accesses)


def names_shown(names: Iterable[object], *known: str, what: str = "column") -> str:
    """Return names of columns or labels for a message, without text of a note among them.

    A table without a header line has its first row in the place of names. Unless all names look like names, those that
    are neither of the contract nor in `known` are replaced by their position: column 2, column 3. Names of several
    words are shown beside one that only a header has ("File ID").

    Args:
        names: of a dataset's columns, or of its labels.
        known: names that may be shown as they are, such as the task's own.
        what: the noun before a position.
    """
    plain = [name if isinstance(name, str) else repr(name) for name in names]
    safe = {*SYNTHETIC_COLUMNS, *CORRECTION_COLUMNS, JUDGED, OTHER_TARGETS, *known}
    others = [name for name in plain if name not in safe]
    hidden = not all(map(_is_name, others))
    shown = [
        f"{what} {place}" if hidden and name not in safe else repr(name)
        for place, name in enumerate(plain[:_MOST_SHOWN], 1)
    ]
    if len(plain) > _MOST_SHOWN:
        shown.append(f"{len(plain) - _MOST_SHOWN:,} more")
    hint = " (does its first line name its columns?)" if hidden and what == "column" else ""
    return (", ".join(shown) or f"no {what}") + hint


def _is_name(text: str) -> bool:
    """Return whether a text names a column or label: one word, or some with capitals and a word for columns among them.

    "File ID" is one; "Jane Doe" may be a person, and "no date set" a note. Where later words have no capital, all are
    words for columns: "Patient no." is a name, "Fell today" is none.
    """
    if _NAME.fullmatch(text):
        return True
    words = text.casefold().split()
    if _SENTENCE.fullmatch(text):
        return _PLAIN_WORDS.issuperset(words)
    return bool(_WORDS.fullmatch(text)) and not _COLUMN_WORDS.isdisjoint(words)
