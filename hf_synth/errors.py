"""Every error that hf_synth raises on purpose.

    HfSynthError
    ├── TaskError            a task is unknown, or its definition contradicts itself
    ├── GoldError            gold data cannot be read as it stands
    │   ├── MissingGoldError     files are not where they were looked for
    │   └── RowError             one row of one file is wrong; names file and row, never the text
    ├── ColumnError          a dataset lacks a column, or holds something else in it
    ├── AccessError          the data's access does not allow what was asked
    │   ├── EndpointError        a note would have gone to a host that it may not reach
    │   └── PublishError         the gate refused, or the Hub did not take what was sent
    ├── OverlapError         a corrector would be judged on rows that it was trained on
    ├── LLMError             the LLM endpoint cannot be used (unreachable, wrong key, unknown model)
    │   └── BudgetError          the next call would pass the budget
    ├── JournalError         the journal cannot be opened or written
    ├── ModelError           a model cannot be loaded, or does not fit the task
    ├── OutputError          an output folder is read-only, full, or holds something else
    └── MissingExtraError    an optional package is not installed; the message is the line to type

The command line prints the message of any of them as one sentence and exits with 1. No message ever holds note
text, a key or a token.
"""

from __future__ import annotations


class HfSynthError(Exception):
    """Stand at the root of everything hf_synth raises on purpose."""


class TaskError(HfSynthError):
    """A task is unknown, or its definition contradicts itself."""


class GoldError(HfSynthError):
    """Gold data cannot be read as it stands."""


class MissingGoldError(GoldError):
    """Files of a task are not where they were looked for."""


class RowError(GoldError):
    """One row of one file is wrong.

    Args:
        file: name of the file, as the user knows it.
        row: 1-based number of the row (the header is not counted), or None when the whole file is meant.
        problem: what is wrong and what to do, without any text of the row.
    """

    def __init__(self, file: str, row: int | None, problem: str) -> None:
        self.file, self.row, self.problem = file, row, problem
        where = file if row is None else f"{file}, row {row}"
        super().__init__(f"{where}: {problem}")

    def __reduce__(self) -> tuple[type[RowError], tuple[str, int | None, str]]:
        return (RowError, (self.file, self.row, self.problem))


class ColumnError(HfSynthError):
    """A dataset lacks a column, or holds something else in it."""


class AccessError(HfSynthError):
    """The access of the data does not allow what was asked."""


class EndpointError(AccessError):
    """A note would have gone to a host that it may not reach."""


class PublishError(AccessError):
    """The gate refused to publish, or the Hub did not take what was sent."""


class OverlapError(HfSynthError):
    """A corrector would be judged on rows that it was trained on."""


class LLMError(HfSynthError):
    """The LLM endpoint cannot be used: unreachable, wrong key, unknown model."""


class BudgetError(LLMError):
    """The next call would pass the budget. What was answered is in the journal."""


class JournalError(HfSynthError):
    """The journal of answers cannot be opened or written."""


class ModelError(HfSynthError):
    """A model cannot be loaded, or does not fit the task."""


class OutputError(HfSynthError):
    """An output folder is read-only, full, or holds something else."""


class MissingExtraError(HfSynthError):
    """An optional package is not installed; the message is the line to type."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed: pip install 'hf_synth[{extra}]'")
