"""Columns of rows: the one place that defines what stages share, and what may be done with a row.

A note travels as a row of a `datasets.Dataset`. Every stage takes rows with the columns below and adds some; the
columns are the only thing that stages share.

    id, group                     stable id; patient / admission / note that must not straddle a split
    <text columns>, <label>       the task's own columns
    source                        "gold", "synthetic" or "unlabelled" (a label, never trusted alone by the gate);
                                  unlabelled: a real note to which an LLM gave the label. Its text is gold's and never
                                  leaves, its label is no more certain than a synthetic row's
    task, task_version, access    where the row comes from, and what may be done with it
    seed_ids, prompt_sha256, generator, journal_key, sampling, created
    answer_code                   how the answer ended: the endpoint's finish reason, or "http_500", "timeout", ...
    prompt_tokens, completion_tokens, cost_usd   of the answer, on the first row that came of it: they add up
                                  provenance of a synthetic row; local only, dropped at export
    llm_label                     what the generator meant
    label_status, reason          kept | relabelled | dropped | rejected, and why (REASONS)
    label_probs, label_confidence, weight
                                  posterior over the labels, its maximum, the training weight; added by correction
    judged                        multi_label gold only, optional (Task.partly_judged): the labels that somebody
                                  judged, present or not; absent or null means all. What was not counts neither way

Nothing here loads torch, openai or transformers; `datasets` is loaded when features are first asked for.
"""

from __future__ import annotations

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
    "weighted": "the generator's label stays, and counts as much as it is believed",
    "audited": "a person looked at the row and gave the label",
    "judged": "a real note, labelled by an LLM",
    # relabelled
    "argmax": "replaced by the corrector's most probable label",
    "posterior": "generator and corrector together favour another label",
    "rewritten": "the corrector's text replaces the generator's",
    # dropped
    "disagrees": "corrector and generator disagree",
    "label_issue": "confident learning holds the label for wrong",
    "not_in_text": "the target is not found in the text, where gold's targets are",
    "unknown_target": "the target is none of those that the task allows",
    # rejected: no usable row came of the answer
    "refusal": "the generator declined to answer",
    "unparsable": "the answer is not in the form that was asked for",
    "unknown_label": "the answer carries a label outside the task's set",
    "empty": "the text is empty or far too short",
    "truncated": "the answer was cut off at the token limit",
    "duplicate": "the same text came before, in gold or in an earlier row",
    "near_duplicate": "almost the same text came before in an earlier row",
    "copied": "the text repeats a gold text, or a long run of its words",
    "too_long": "the text is several times as long as any that was shown",
    "language": "the text is in another language than the gold",
    "template": "the text holds a place to be filled in, e.g. [patient name]",
    "facts_differ": "by the task's rule the text does not state the facts that were asked for",
    "label_leak": "the text names its own label",
    "llm_error": "the endpoint gave no answer",
    "budget": "the budget was spent before this call",
}
GOLD_COLUMNS = ("id", "group", "source", "task", "task_version", "access")
USAGE_COLUMNS = ("prompt_tokens", "completion_tokens", "cost_usd")
PROVENANCE_COLUMNS = (
    "seed_ids", "prompt_sha256", "generator", "journal_key", "answer_code", "sampling", "created", *USAGE_COLUMNS,
)  # fmt: skip
SYNTHETIC_COLUMNS = (*GOLD_COLUMNS, *PROVENANCE_COLUMNS, "llm_label", "label_status", "reason")
CORRECTION_COLUMNS = ("label_probs", "label_confidence", "weight")
JUDGED = "judged"
UNLABELLED = "unlabelled"  # the source of real notes that no person labelled
MANIFEST = "hf_synth.json"  # in a folder of ours: what stage wrote it, of which task


# --- access ---------------------------------------------------------------------------------------------------------
def strictest(*accesses: str | None) -> Access:
    """Join accesses: the strictest wins; absent or unknown counts as credentialed; none at all too."""
    order: dict[str | None, int] = {a: i for i, a in enumerate(ACCESSES)}
    worst = max((order.get(a, len(ACCESSES) - 1) for a in accesses), default=len(ACCESSES) - 1)
    return ACCESSES[worst]


def access_of(dataset: Dataset) -> Access:
    """Read the access of a dataset from its rows (the `access` column), strictest first.

    A dataset without the column, or with an empty or unknown value in it, is credentialed. An empty dataset holds no
    note; it is open only if it has the column.
    """
    if "access" not in dataset.column_names:
        return "credentialed"
    if len(dataset) == 0:
        return "open"
    import pyarrow.compute as pc

    table = dataset.with_format("arrow")
    seen: set[str | None] = set()
    for batch in table.select_columns(["access"]).iter(batch_size=100_000):
        seen.update(pc.unique(batch["access"]).to_pylist())
    return strictest(*seen)
