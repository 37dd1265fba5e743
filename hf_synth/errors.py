"""The exceptions of hf_synth.

    HfSynthError
    ├── TaskError            a task is unknown, or its definition contradicts itself
    ├── GoldError            gold data cannot be read as it stands
    │   ├── MissingGoldError     the files of a task are missing
    │   └── RowError             one row of one file is wrong; names file and row, never the text
    ├── ColumnError          a dataset lacks a column, or holds something else in it
    ├── AccessError          the data's access does not allow the request
    │   ├── EndpointError        the notes may not be sent to this host
    │   └── PublishError         the gate refused to publish, or the Hub refused the upload
    ├── OverlapError         a model would be measured on rows that it was trained on
    ├── LLMError             the LLM endpoint cannot be used (unreachable, wrong key, unknown model)
    │   └── BudgetError          the next call would exceed the budget
    ├── JournalError         the journal cannot be opened or written
    ├── ModelError           a model cannot be loaded, or does not fit the task
    ├── OutputError          an output folder is read-only, full, or holds something else
    ├── UsageError           a command line or its configuration file is wrong (exit code 2)
    └── MissingExtraError    an optional package is not installed; the message names the command that installs it

The command line prints the message of any of them as one sentence and exits with 1, or 2 for a
UsageError. No message holds note text, a key or a token.
"""

from __future__ import annotations

from collections.abc import Iterable


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'simulator'?" for a word that is almost a known one, or its start; "" for any other."""
    import difflib

    known = [*known]
    names = {name.lower().rpartition("/")[2]: name for name in known} | {name.lower(): name for name in known}
    near = difflib.get_close_matches(word.lower(), names, n=1, cutoff=0.7)
    starts = [name for name in names if name.startswith(word.lower())] if len(word.strip("-")) > 1 else []
    best = near or (starts if len(starts) == 1 else [])
    return f"; did you mean {names[best[0]]!r}?" if best else ""


class HfSynthError(Exception):
    """The base class of all errors of hf_synth.

    Example:
        >>> try:
        ...     load_task("no_such_task")
        ... except HfSynthError as error:
        ...     print(type(error).__name__)
        TaskError
    """


class TaskError(HfSynthError):
    """A task is unknown, or its definition contradicts itself."""


class GoldError(HfSynthError):
    """Gold data cannot be read as it stands."""


class MissingGoldError(GoldError):
    """The files of a task are missing."""


_SHEETS = (".csv", ".tsv", ".xlsx")  # tables whose first line is a header, as spreadsheets show them


class RowOnLine(int):
    """The number of a row that an editor shows on another line than a spreadsheet, since a cell above has line breaks.

    Args:
        row: 1-based number of the row, the header not counted.
        line: 1-based number of the line of the file on which the row begins.
    """

    line: int

    def __new__(cls, row: int, line: int) -> RowOnLine:
        """Make the number: an int takes its value here."""
        made = super().__new__(cls, row)
        made.line = line
        return made

    def __reduce__(self) -> tuple[type[RowOnLine], tuple[int, int]]:
        return RowOnLine, (int(self), self.line)


def line_of(file: str, row: int) -> tuple[str, str]:
    """Return the word for a row of a file and its number, as the user's program shows it: line 3 for row 2 of a sheet.

    Args:
        file: its name.
        row: 1-based number of the row, the header not counted. Of a `RowOnLine` the line of an editor is named too.
    """
    if file.lower().endswith(_SHEETS):
        return "line", f"{row + 1:,}" + (f" ({row.line:,} in an editor)" if isinstance(row, RowOnLine) else "")
    return ("line" if file.lower().endswith(".jsonl") else "row"), f"{row:,}"


class RowError(GoldError):
    """One row of one file is wrong.

    Args:
        file: name of the file, as the user knows it.
        row: 1-based number of the row, the header not counted; None when the whole file is wrong. Of a sheet the line
            that a spreadsheet shows is named too, and that of an editor where it differs.
        problem: what is wrong and what to do, without any text of the row.
    """

    def __init__(self, file: str, row: int | None, problem: str) -> None:
        self.file, self.row, self.problem = file, row, problem
        where = file if row is None else f"{file}, row {row}"
        if row is not None and file.lower().endswith(_SHEETS):
            where = f"{file}, line {line_of(file, row)[1]}, row {row}"
        super().__init__(f"{where}: {problem}")

    def __reduce__(self) -> tuple[type[RowError], tuple[str, int | None, str]]:
        return (RowError, (self.file, self.row, self.problem))


class ColumnError(HfSynthError):
    """A dataset lacks a column, or holds something else in it."""


class AccessError(HfSynthError):
    """The access of the data does not allow the request."""


class EndpointError(AccessError):
    """The notes may not be sent to this host."""


class PublishError(AccessError):
    """The gate refused to publish, or the Hub refused the upload."""


class OverlapError(HfSynthError):
    """A model would be measured on rows that it was trained on."""


class LLMError(HfSynthError):
    """The LLM endpoint cannot be used: unreachable, wrong key, unknown model."""


class BudgetError(LLMError):
    """The next call would exceed the budget. Earlier answers are in the journal."""


class JournalError(HfSynthError):
    """The journal of answers cannot be opened or written."""


class ModelError(HfSynthError):
    """A model cannot be loaded, or does not fit the task."""


class OutputError(HfSynthError):
    """An output folder is read-only, full, or holds something else."""


class UsageError(HfSynthError):
    """A command line, or the configuration file that adds to it, is wrong."""


class MissingExtraError(HfSynthError):
    """An optional package is not installed; the message names the command that installs it."""

    def __init__(self, package: str, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed: pip install 'hf_synth[{extra}]'")

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return (MissingExtraError, (self.package, self.extra))
