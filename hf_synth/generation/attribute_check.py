"""The check of attributes: whether a note is as long, of such a patient, or in such a form as it was asked to be.

A rule can count sentences and read ages; it cannot see whether a note is "typical and clear". An attribute decides no
label. It is therefore counted, and a note that does not follow one is neither rejected nor asked for again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Literal

Followed = Literal["yes", "no", "unknown"]  # "unknown": no rule can tell, or the note does not say

_AGE = re.compile(r"(?i)\b(\d{1,3})(?:[ -]?(?:year|yr)s?[ -]?old|[ -]?y/?o\b)|\baged? (\d{1,3})\b")
_AGES = {  # the lowest and highest age
    "a young adult": (18, 40), "a middle-aged adult": (40, 65), "an older adult": (65, 120),
    "a frail patient of great age": (80, 120),
}  # fmt: skip
_SETTINGS = {  # words that name a setting
    "outpatient clinic": r"\b(?:clinic|outpatient|office visit)\b", "emergency department": r"\b(?:ED|ER|emergency)\b",
    "inpatient ward": r"\b(?:ward|inpatient|hospital day|HD ?#?\d)",
    "intensive care unit": r"\b(?:ICU|intensive care)\b",
    "telephone call": r"\b(?:telephone|phone|call(?:s|ed)?)\b", "home visit": r"\b(?:home visit|at home|visited at)\b",
    "nursing home": r"\b(?:nursing home|care home|facility|SNF)\b",
}  # fmt: skip
_ITEM = re.compile(r"(?m)^[ \t]*(?:[-*•#]|\d{1,2}[.)])[ \t]*\S")
_SENTENCE_END = re.compile(r"(?<!\bDr)(?<!\bMr)(?<!\bMs)(?<!\bMrs)[.!?](?=\s+[A-Z(]|\s*$)")
_SHORT, _LONG = 120, 60  # words: a short paragraph has at most, a long one at least so many


def follows(name: str, value: str, text: str) -> Followed:
    """Return whether a note follows an attribute of `prompts.ATTRIBUTES`; "unknown" for any other one."""
    rule = _RULES.get(name)
    return rule(value, text) if rule is not None else "unknown"


def count_followed(notes: Iterable[tuple[Iterable[tuple[str, str]], str]]) -> dict[str, dict[Followed, int]]:
    """Count how many notes follow each attribute that they were asked for.

    Args:
        notes: the attributes of each note, as (name, value), and its text.

    Returns:
        By attribute the numbers of notes that follow it, do not, or of which no rule can tell.
    """
    counts: dict[str, dict[Followed, int]] = {}
    for attributes, text in notes:
        for name, value in attributes:
            counts.setdefault(name, {"yes": 0, "no": 0, "unknown": 0})[follows(name, value, text)] += 1
    return counts


def attributes_line(counts: Mapping[str, Mapping[Followed, int]]) -> str:
    """Return these counts as a sentence; "" where no attribute was asked for."""
    read = [
        f"{name} {count['yes']:,} of {count['yes'] + count['no']:,} notes of which a rule can tell"
        for name, count in counts.items()
        if count["yes"] + count["no"]
    ]
    unread = [name for name, count in counts.items() if not count["yes"] + count["no"]]
    said = [f"as asked for, read by rules that can err: {', '.join(read)}"] if read else []
    said += [f"checked by no rule: {', '.join(unread)}"] if unread else []
    return "; ".join(said)


def _length(value: str, text: str) -> Followed:
    sentences, words = len(_SENTENCE_END.findall(text.strip())) or 1, len(text.split())
    paragraphs = len([part for part in re.split(r"\n\s*\n|\n", text.strip()) if part.strip()])
    if value == "two sentences":
        return "yes" if sentences == 2 else "unknown" if sentences == 3 else "no"
    if value == "a short paragraph":
        return "yes" if paragraphs == 1 and words <= _SHORT else "no"
    if value == "a long paragraph":
        return "yes" if paragraphs == 1 and words >= _LONG else "no"
    return ("yes" if paragraphs == 2 else "no") if value == "two paragraphs" else "unknown"


def _patient(value: str, text: str) -> Followed:
    ages = [int(a or b) for a, b in _AGE.findall(text)]
    if value not in _AGES or not ages:
        return "unknown"
    low, high = _AGES[value]
    return "yes" if any(low <= age <= high for age in ages) else "no"


def _setting(value: str, text: str) -> Followed:
    """Look for the words of a setting; a note that names another one alone does not follow."""
    if value not in _SETTINGS:
        return "unknown"
    if re.search(_SETTINGS[value], text):
        return "yes"
    return "no" if any(re.search(words, text) for words in _SETTINGS.values()) else "unknown"


def _style(value: str, text: str) -> Followed:
    if value == "a list of problems":
        return "yes" if len(_ITEM.findall(text)) > 1 else "no"
    return "unknown"


_RULES: Mapping[str, Callable[[str, str], Followed]] = {
    "length": _length, "patient": _patient, "setting": _setting, "style": _style,
}  # fmt: skip
