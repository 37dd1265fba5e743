"""`Task` and `Prompt`: the definition of a clinical task as a frozen dataclass.

Nothing here loads torch, openai or transformers; `datasets` is loaded when features are first asked for.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

from hf_synth.errors import TaskError
from hf_synth.task.columns import (
    ACCESSES,
    CORRECTION_COLUMNS,
    JUDGED,
    KINDS,
    OTHER_TARGETS,
    PROVENANCE_COLUMNS,
    SYNTHETIC_COLUMNS,
    USAGE_COLUMNS,
    Access,
    Kind,
)
from hf_synth.task.display import Displayed, listed
from hf_synth.task.facts import Facts

if TYPE_CHECKING:
    from datasets import Features

LANGUAGE = re.compile(r"[a-z]{2,3}")
_TABLE_SUFFIXES = ("csv", "tsv", "jsonl", "parquet", "xlsx")
TABLES: dict[str, tuple[str, ...]] = {  # `Task.files` of a task that is read from a user's own tables
    split: tuple(f"{stem}.{suffix}" for stem in stems for suffix in _TABLE_SUFFIXES)
    for split, stems in {"train": ("train",), "validation": ("validation", "valid", "dev"), "test": ("test",)}.items()
}


@dataclass(frozen=True)
class Prompt:
    """One prompt for the generator of labelled notes; its shapes are the paper's (arXiv:2403.19511).

    Args:
        system: the system message; the same for every call, so that servers can cache it.
        instruction: what to write, without exemplars and without counts.
        exemplars: the gold rows in a prompt: one of each label, some of mixed labels, some of one label, or none. All
            rows of a prompt are of one fold of gold; a label that the fold lacks is not shown.
        n_exemplars: how many exemplars, as far as the fold has them; for `one_per_label`, how many of each label.
        asks_for: whether a call asks for rows of every label or of one label (text2text tasks: ignored).
        rows: how many rows of each label a call asks for.
        sampling: sampling parameters as the endpoint takes them, e.g. (("temperature", 0.9),).
        name: the name of the prompt, e.g. on the command line.
        attributes: attributes that vary between calls, as (name, values); each call draws a value of each.
        facts: whether each call draws facts from `Task.facts` and asks for a text that states them.
    """

    system: str
    instruction: str
    exemplars: Literal["one_per_label", "mixed", "same_label", "none"] = "one_per_label"
    n_exemplars: int = 1
    asks_for: Literal["every_label", "one_label"] = "every_label"
    rows: int = 5
    sampling: tuple[tuple[str, float | int | str], ...] = (("temperature", 0.9), ("top_p", 0.95))
    name: str = "examples"
    attributes: tuple[tuple[str, tuple[str, ...]], ...] = ()
    facts: bool = False


@dataclass(frozen=True, repr=False)
class Task(Displayed):
    """The definition of one clinical task.

    Args:
        name: short name, e.g. "mednli"; lower case, digits and underscores.
        kind: "single_label", "multi_label" or "text2text".
        text_columns: one column for a note, two for a pair ("premise", "hypothesis"); for text2text the inputs
            ("document"; "question", "context"; "input").
        label_column: the label (ClassLabel or a list of them), or for text2text the target text.
        labels: names of the labels in index order; empty for text2text.
        label_meanings: a definition of each label, in the same order, or empty.
        targets: the closed set of targets of a text2text task ("A", "B", ...); empty where any text may be one.
        target_fields: the fields of each line of a target that is a table ("m | do | mo"), by short names; the first
            names the line's entry. Empty for any other target.
        version: bumped when prompt, parser or features change; part of every fingerprint.
        config: the variant of the task, e.g. "presence"; part of the name in cards.
        prompts: prompts for the generator; the first is the default.
        facts: the rule that derives the label from facts, if any; used by prompts with facts and to check the answers.
        parse: turns one answer into rows ({column: text, ..., label_column: label name}); None for the JSON form.
        metrics: names of scores, the main one first.
        access: "open", "restricted" (own data, never leaves) or "credentialed" (nor do derivatives).
        source_url: the page where the data and its terms are.
        license: SPDX id or a short name of the terms.
        citation: how to cite the data.
        group_column: "group" when rows share patients or admissions, else None.
        leaks: regular expressions whose match in a text gives its label away.
        partly_judged: of a multi_label task: whether gold rows have the column `judged`.
        several_targets: of a text2text task: whether gold rows have the column `other_targets`, more right texts.
        files: the source's files for each split. A key is a split, or "split/part" where a split is read from several
            kinds of files; its value lists alternative names, of which the first that exists is read. A name may hold
            folders ("train/notes.csv") and stars ("train/*.txt": all in the folder; "**/*.txt": in any folder). A name
            "!old*" leaves out what lies in a folder or archive of such a name. A key "rows" beside splits stands for a
            source without splits.
        optional_files: keys of `files`, or whole splits, that may be missing.
        suites: where the task comes from: "paper" (arXiv 2403.19511), "DR.BENCH" (arXiv 2209.14901), "extra".
        unverified: the part of the source's layout that was not checked against the data; empty when all was.
        script: the module or path the task was read from; None for a task made from columns.
        description: one sentence.
        language: ISO 639 code of the language of the notes, such as "en" or "de"; empty where it is not stated.

    Example:
        >>> triage = Task.from_columns("triage", text_columns="note", label_column="urgency", labels=("low", "high"))
        >>> triage.access
        'restricted'
    """

    name: str
    kind: Kind
    text_columns: tuple[str, ...]
    label_column: str
    labels: tuple[str, ...]
    label_meanings: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    target_fields: tuple[str, ...] = ()
    version: str = "1.0.0"
    config: str = "default"
    prompts: tuple[Prompt, ...] = ()
    facts: Facts | None = None
    parse: Callable[[str], list[dict[str, str]]] | None = None
    metrics: tuple[str, ...] = ("macro_f1", "accuracy")
    access: Access = "restricted"
    source_url: str = ""
    license: str = "unknown"
    citation: str = ""
    group_column: str | None = None
    leaks: tuple[str, ...] = ()
    partly_judged: bool = False
    several_targets: bool = False
    files: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    optional_files: tuple[str, ...] = ()
    suites: tuple[str, ...] = ()
    unverified: str = ""
    script: str | None = None
    description: str = ""
    language: str = ""

    def __post_init__(self) -> None:
        def must(valid: bool, problem: str) -> None:
            if not valid:
                raise TaskError(f"task {self.name!r}: {problem}")

        must(bool(re.fullmatch(r"[a-z][a-z0-9_]*", self.name)), "name must be lower case letters, digits and _")
        must(self.kind in KINDS, f"kind must be one of {', '.join(KINDS)}")
        must(self.access in ACCESSES, f"access must be one of {', '.join(ACCESSES)}")
        must(
            self.language == "" or bool(LANGUAGE.fullmatch(self.language)),
            'language must be an ISO 639 code of two or three small letters, such as "en"',
        )
        must(bool(self.text_columns), "needs at least one text column")
        own = (*self.text_columns, self.label_column)
        must(len(set(own)) == len(own), "text and label columns must differ from each other")
        reserved = {*SYNTHETIC_COLUMNS, *CORRECTION_COLUMNS, JUDGED, OTHER_TARGETS} & set(own)
        must(not reserved, f"columns {sorted(reserved)} are reserved; rename them")
        if self.kind == "text2text":
            must(not self.labels, "a text2text task has no labels")
        else:
            must(not self.targets and not self.target_fields, "only a text2text task has targets")
            must(len(self.labels) >= 2, "needs at least two labels")
            must(len(set(self.labels)) == len(self.labels), "labels must differ from each other")
        must(
            self.facts is None or (self.kind == "single_label" and len(self.facts.bounds) == len(self.labels) - 1),
            "facts need a single_label task and one bound fewer than labels",
        )
        must(self.kind == "multi_label" or not self.partly_judged, "only multi_label tasks can be partly judged")
        must(self.kind == "text2text" or not self.several_targets, "only text2text tasks can have several targets")
        must(len(self.label_meanings) in (0, len(self.labels)), "needs a meaning for each label, or for none")

    def summary(self) -> tuple[str, list[tuple[str, str]]]:
        """Return name, kind and access; columns, labels, scores and prompts."""
        columns = f"{listed(self.text_columns)} -> {self.label_column}"
        labels = listed(self.labels) or listed(self.targets) or "any text"
        prompts = listed(p.name for p in self.prompts)
        lines = [("columns", columns), ("labels", labels), ("scored by", listed(self.metrics)), ("prompts", prompts)]
        return f"{self.full_name}, {self.kind}, {self.access}, version {self.version}", lines

    @classmethod
    def from_columns(
        cls,
        name: str,
        *,
        text_columns: str | Sequence[str],
        label_column: str,
        labels: Sequence[str] = (),
        kind: Kind = "single_label",
        access: Access = "restricted",
        **more: Any,
    ) -> Task:
        """Define a task by the columns of the user's own dataset, which keep their names.

        Args:
            access: it cannot loosen the access that the rows themselves carry.
            more: any other field of `Task`.

        Raises:
            TaskError: the definition contradicts itself.
        """
        columns = (text_columns,) if isinstance(text_columns, str) else tuple(text_columns)
        more |= {"text_columns": columns, "label_column": label_column, "labels": tuple(labels), "access": access}
        task = cls(name=name, kind=kind, **more)
        return task if task.prompts else replace(task, prompts=(_plain_prompt(task),))

    @property
    def full_name(self) -> str:
        """The name with its config: "esophagitis:presence"; the default config is left out."""
        return self.name if self.config == "default" else f"{self.name}:{self.config}"

    @property
    def prompt(self) -> Prompt:
        """The default prompt."""
        if not self.prompts:
            raise TaskError(
                f"task {self.name!r} has no prompt: give it one with dataclasses.replace(task, prompts=...)"
            )
        return self.prompts[0]

    def fingerprint(self) -> str:
        """Hash the fields that decide what is generated from the task (hex sha256)."""
        fields = [
            self.name, self.config, self.version, self.kind, self.text_columns, self.label_column, self.labels,
            self.label_meanings, self.targets, [vars(p) for p in self.prompts], self.leaks,
            asdict(self.facts) if self.facts else None,
        ]  # fmt: skip
        return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()

    # --- features -----------------------------------------------------------------------------------------------

    def label_feature(self) -> Any:
        """Return the feature of the label: ClassLabel, a list of them, or a string."""
        from datasets import ClassLabel, List, Value

        if self.kind == "text2text":
            return Value("string")
        label = ClassLabel(names=list(self.labels))
        return List(label) if self.kind == "multi_label" else label

    def gold_features(self) -> Features:
        """Return the features of gold rows."""
        from datasets import Features, List, Value

        features = {"id": Value("string"), "group": Value("string")}
        features |= {c: Value("string") for c in self.text_columns}
        features[self.label_column] = self.label_feature()
        if self.partly_judged:
            features[JUDGED] = self.label_feature()
        if self.several_targets:
            features[OTHER_TARGETS] = List(Value("string"))
        return Features(features | {c: Value("string") for c in ("source", "task", "task_version", "access")})

    def synthetic_features(self) -> Features:
        """Return the features of generated rows, before correction."""
        from datasets import Features, List, Value

        return Features(
            {name: feature for name, feature in self.gold_features().items() if name not in (JUDGED, OTHER_TARGETS)}
            | {"seed_ids": List(Value("string")), "fold": Value("int64")}
            | {c: Value("string") for c in PROVENANCE_COLUMNS[2 : -len(USAGE_COLUMNS)]}
            | {"prompt_tokens": Value("int64"), "completion_tokens": Value("int64"), "cost_usd": Value("float64")}
            | {"llm_label": self.label_feature(), "label_status": Value("string"), "reason": Value("string")}
        )

    def corrected_features(self) -> Features:
        """Return the features of corrected rows."""
        from datasets import Features, List, Value

        return Features(
            dict(self.synthetic_features())
            | {"label_probs": List(Value("float32"))}
            | {"label_confidence": Value("float32"), "weight": Value("float32")}
        )

    def gold_row(self, id: str, group: str | None, label: str | int | None, *texts: str) -> dict[str, Any]:
        """Return one gold row, without `judged`; `texts` in the order of `text_columns`."""
        columns = {
            "id": id,
            "group": id if group is None else group,
            **dict(zip(self.text_columns, texts, strict=True)),
        }
        origin = {"source": "gold", "task": self.full_name, "task_version": self.version, "access": self.access}
        return {**columns, self.label_column: label, **origin}


def _plain_prompt(task: Task) -> Prompt:
    """Return a generic prompt in the paper's shape for a task without its own."""
    what = "pairs of passages" if len(task.text_columns) > 1 else "clinical notes"
    return Prompt(
        system="You are an experienced clinician who writes realistic, wholly invented clinical text for training "
        "a classifier. Never copy an example; never use a real person's data.",
        instruction=f"Write new, varied {what} for the task {task.name!r}, in the style of the examples.",
        exemplars="mixed" if task.kind != "single_label" else "one_per_label",
        n_exemplars=3 if task.kind != "single_label" else 1,
        rows=2,
    )
