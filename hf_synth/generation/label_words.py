"""Labels in words: which label an answer names, and whether it means it."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

from hf_synth.task.task import Task

_TOKEN = re.compile(r"[^\W\d_]+|\d+")
_LABEL = re.compile(r"\A\W{0,3}label\W{0,3}[:=]\s*", re.IGNORECASE)
_CONFIDENCE = re.compile(
    r"\s?\(\s?(?:confidence|probability)?\s?[:=]?\s?(?P<share>[01]?\.\d+|\d{1,3}\s?%)\s?\)\W*\Z",
    re.IGNORECASE,
)
_SIGN = re.compile(r"[<>≤≥≈~±]=?\s?(?=\d)|(?<![\w\s])[-+](?=\d)|(?:\A|(?<=[:=(\s]))[-+](?=\d)|(?<=\d)\+(?!\d)")
_DOUBT = re.compile(
    r"\w[^\w\n]*\?|\?\?|n['’]t\b|[❌⛔✗✘✖🚫≠¬]|\A\W{0,3}[<>≤≥~!]=?\s?[^\W\d]|\w\s?[\s(:]\s?[-−]\s?\)?\W{0,3}\Z",
    re.IGNORECASE,
)
_NEGATED = re.compile(  # words that deny or doubt the label before them
    r"\b(?:no|not|none|never|n?either|nor|without|absent|excluded?|unlikely|negative|den(?:y|ies|ied)|ruled?|cannot|cant|"
    r"unclear|uncertain|unsure|questionable|doubtful|possibl[ey]|maybe|perhaps|probabl[ey]|suspected|suspicion|or|vs|"
    r"versus|if|unless|incorrect|false|wrong|unknown|likely|guess(?:ing)?|think|believe|low confidence|neg|"
    r"nicht|nein|nie|kein\w{0,2}|ohne|ausgeschlossen|unsicher|fraglich|möglich(?:erweise)?|vermutlich|wahrscheinlich|"
    r"unwahrscheinlich|evtl|eventuell|vielleicht|verdacht|verneint|eher|oder|falsch|"
    r"pas|non(?!-)|sans|aucune?|jamais|peu|peut|doute\w{0,3}|incertaine?|absente?|exclue?s?|éliminée?|niée?|suspectée?|ou|faux|"
    r"sin|ningun[oa]?|nunca|tampoco|quizás?|tal vez|dudos[oa]|posible(?:mente)?|probablemente|descartad[oa]|negad[oa]|"
    r"ausente|sospecha|falso)\b|\b(?:n|0|free|frei)\W*\Z",
    re.IGNORECASE,
)


def normalize_label(task: Task, value: object) -> str | None:
    """Match a value to one of the task's labels: "Grade 2", " grade-2. ", "2" and 2 all match "grade_2".

    A label with a remark after it matches ("mild (as the note says)"). A label in other words does not: "fracture not
    seen", "pneumonia ruled out" and "severe?" deny or doubt what they name, and "no information" is not "no".

    Returns:
        The label's name; None when no label matches, or more than one.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, str | int) or (isinstance(value, str) and len(value) > 200):
        return None
    name = str(value).strip()
    if name in task.labels:
        return name
    name = _LABEL.sub("", unicodedata.normalize("NFC", name))
    if confidence := _CONFIDENCE.search(name):
        share = confidence["share"]
        if float(share.rstrip(" %")) < (50 if share.endswith("%") else 0.5):
            return None
        name = name[: confidence.start()]
    signs = _number_signs(name)
    known = {label: _words(label) for label in task.labels if _number_signs(label) == signs}
    words = _words(name)
    for matches in (
        [label for label in task.labels if unicodedata.normalize("NFC", label) == name],
        [label for label, w in known.items() if w == words],
        [label for label, w in known.items() if words and "".join(w) == "".join(words)],
        [label for label, w in known.items() if words and [t for t in w if t.isdigit()] == words],
    ):
        if matches:
            return matches[0] if len(matches) == 1 and not _DOUBT.search(name) else None
    return None if _DOUBT.search(name) else _match_prefix(known, name)


def _words(text: str) -> list[str]:
    return _TOKEN.findall(unicodedata.normalize("NFC", text).casefold())


def _number_signs(text: str) -> list[str]:
    """Return the signs before numbers: -1 is not 1, and > 1 is not 1."""
    return [sign.strip() for sign in _SIGN.findall(text)]


def _match_prefix(known: Mapping[str, list[str]], name: str) -> str | None:
    """Find the label at the beginning of a phrase that names no other label: "grade 2 (symptomatic)"."""
    words = _words(name)
    matches = [label for label, w in known.items() if w and words[: len(w)] == w]
    best = max(matches, key=lambda label: len(known[label]), default=None)
    if best is None:
        return None
    rest = words[len(known[best]) :]
    numbered = any(t.isdigit() for t in known[best])
    if numbered and any(t.isdigit() for t in rest):
        return None
    tokens = list(_TOKEN.finditer(name.casefold()))
    between = name.casefold()[tokens[len(known[best]) - 1].end() : tokens[len(known[best])].start()] if rest else ""
    if not numbered and not between.strip(" \t_\"'`*"):  # no remark, but a longer name of something else
        return None
    if rest and _NEGATED.search(name[tokens[len(known[best])].start() :]):
        return None
    others = [w for label, w in known.items() if w and label not in matches]
    ambiguous = any(rest[i : i + len(w)] == w for w in others for i in range(len(rest)))
    tied = any(label != best and len(known[label]) == len(known[best]) for label in matches)
    return None if ambiguous or tied else best
