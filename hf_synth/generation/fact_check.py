"""The check of facts: whether a note states each fact that was asked for, now and of this patient.

A pattern of the task (`Task.facts`) finds where a note mentions a value. A mention is no statement where the words
around it deny it, or speak of another time, of a possibility, or of another person, as in NegEx (Chapman et al. 2001)
and ConText (Harkema et al. 2009). The rules are for English. A context that the wording of the value has itself
("a fall in the last three months") does not count against it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from hf_synth.task.facts import Fact, Facts

Found = Literal["missing", "negated", "past", "possible", "other_person", "differs"]
Asked = tuple[tuple[str, str], ...]  # (name of a fact, wording of its value)

_REACH = 90  # characters before and after a mention that may change what it says
_FEW = 3  # words of an item of a list

# --- words that change what a mention says --------------------------------------------------------------------------
_SENTENCE = re.compile(r"[;!?\n]|\.(?!\d)")
_CLAUSE = re.compile(
    r"\b(?:but|however|although|though|yet|except|apart from|instead|whereas|while|now|currently|at present|still|"
    r"because|therefore|so|hence|then|"
    r"and (?:an?|the|is|was|are|has|had|he|she|they|patient|takes|eats|needs))\b|[()]",
    re.IGNORECASE,
)
_WORD_BEFORE = r"(?<![\w-])"
_NEGATED_BEFORE = re.compile(
    _WORD_BEFORE + r"(?P<list>denie[sd]|denying|negative for|free (?:of|from)|absence of|lack of|declin(?:e[sd]?|ing)|"
    r"refus(?:e[sd]?|ing)|rejects|ruled out|neither)\b|"
    + _WORD_BEFORE
    + r"(?:no(?! longer)|not(?! only)|non|never|without|w/o|ø|nor|"
    r"(?:did|does|do|has|have|had|was|were|is|are|need)n['’]t)\b",
    re.IGNORECASE,
)
_NEGATED_AFTER = re.compile(
    r"\s*(?:[:=-]\s*)?(?:none|no|absent|negative|denied|nil|never)\b(?! (?:longer|problem))|"
    r"[^,]*?\b(?:(?:was|were|is|are|has been|had been|been)?\s*(?:not|never|n['’]t)\b|ruled out|declined|refused|"
    r"withheld|deferred|avoided|held off|unnecessary|unlikely|denied|absent)|"
    r",? (?:(?:which|that|but|and) )?(?:he |she |they |patient |pt )?(?:declined|refused)",
    re.IGNORECASE,
)
_PAST_BEFORE = re.compile(
    _WORD_BEFORE + r"(?:history of|h/o|hx(?: of)?|prior|previous(?:ly)?|earlier|former(?:ly)?|past|had been|used to|"
    r"once|remembers|no longer|stopped|discontinued|came off|removal of|resolution of|no more|"
    r"(?:years?|months?) ago|as a child)\b",
    re.IGNORECASE,
)
_PAST_AFTER = re.compile(
    r"[^,]*?\b(?:resolved|subsided|is over|are over|(?:has|have|is|are|long) (?:long )?gone|disappeared|ceased|"
    r"discontinued|stopped|removed|taken out|pulled|no longer|years? ago|months? ago|as a child|"
    r"behind (?:him|her|them)|in (?:19|20)\d\d|(?<!since )last (?:month|year|spring|summer|autumn|winter|season))\b|"
    r"[^.]*?(?:,|\band\b) ?(?:which |has |have |is |since |now |then |all |fully |long |that is |and )*"
    r"(?:none since|not since|(?:resolved|recovered|removed|out|over|gone|behind)\b|full recovery|"
    r"back (?:on|to|at|now)\b|eats (?:everything|normally)|no longer)",
    re.IGNORECASE,
)
_POSSIBLE_BEFORE = re.compile(
    _WORD_BEFORE
    + r"(?P<list>(?<!as )(?<!even )if|unless|should|in case(?: of)?|in the event(?: of)?|whenever)\b|"
    + _WORD_BEFORE
    + r"(?:may|might|could|would|will(?! continue| remain)|"
    r"consider(?:s|ed|ing)?|discuss(?:ed|ing)?|offered|counsel+ed|suggest(?:s|ed)?|"
    r"plan(?:s|ned|ning)? (?:to|for|on)|candidate for|risk of|(?:watch|monitor) for|r/o|rule out|possible|possibly|"
    r"potential|proposed|prophylactic|option of|expected)\b",
    re.IGNORECASE,
)
_POSSIBLE_AFTER = re.compile(
    r"[^,]*?\b(?:(?<!as )if|unless|should|may|might|could|would|will be|in case|in the event|when needed|"
    r"(?:was|were|is|are|been|being|be) (?:considered|discussed|offered|proposed|suggested|planned)|considered|"
    r"discussed|offered|as an option|available)\b",
    re.IGNORECASE,
)
_KIN = (
    r"(?:mother|father|mom|dad|wife|husband|spouse|partner|brother|sister|son|daughter|aunt|uncle|cousin|niece|nephew|"
    r"grand(?:mother|father|son|daughter)|roommate|neighbou?r|friend)"
)
_OTHER_BEFORE = re.compile(
    rf"\b(?:family history(?: of)?|fhx|runs in the family)\b|"
    rf"\b(?:in|of) (?:his|her|the|their) (?:late )?{_KIN}\b|"
    rf"\b{_KIN} (?:also |had |has |have |was |is |been |once |recently )*"
    r"(?:takes?|took|had|has|have|is|was|been|needs?|needed|received|receives|underwent|uses?|used|lives?|lived|eats?|"
    r"drinks?|died|got|lost|fed|on|with|w/|admitted|hospitali[sz]ed)\b",
    re.IGNORECASE,
)
_PATIENT = re.compile(r"\b(?:patient|pt|he|she|himself|herself)\b", re.IGNORECASE)
# Words of a wording, in which a context is no objection.
_MEANT: tuple[tuple[Found, re.Pattern[str]], ...] = (
    ("negated", re.compile(r"\b(?:no|not|without|never|denies|absent|free of)\b", re.IGNORECASE)),
    ("past", re.compile(r"\b(?:history|prior|previous(?:ly)?|past|last|earlier|ago|former|ever)\b", re.IGNORECASE)),
    ("possible", re.compile(r"\b(?:considered|planned|possible|risk|discussed|offered|if|may)\b", re.IGNORECASE)),
    ("other_person", re.compile(rf"\b(?:family|relatives?|parents?|{_KIN})\b", re.IGNORECASE)),
)  # fmt: skip


@dataclass(frozen=True)
class Lack:
    """A fact that was asked for and that a note does not state.

    Args:
        fact: its name.
        wanted: the wording that was asked for.
        found: "missing" (not mentioned), "negated", "past", "possible" or "other_person" (mentioned in such a context
            only), or "differs" (another value of the fact is stated).
    """

    fact: str
    wanted: str
    found: Found

    @property
    def reason(self) -> str:
        """The key of `task.REASONS` for a note with this lack."""
        return "facts_differ" if self.found == "differs" else "facts_missing"

    def __str__(self) -> str:
        what = {
            "missing": "is not stated",
            "negated": "is denied",
            "past": "is said of an earlier time only",
            "possible": "is said to be possible only",
            "other_person": "is said of another person",
            "differs": "is stated otherwise",
        }
        return f"{self.fact}: {self.wanted} ({what[self.found]})"


def check_facts(facts: Facts, asked: Asked, text: str) -> list[Lack]:
    """Check that a text states each fact that was asked for.

    A value without a pattern holds where no other value of its fact is stated. Beside a value with a pattern others may
    be stated, unless they have more points: then they decide the label.

    Args:
        asked: (name of a fact, wording of its value); an unknown pair is an error of the caller.

    Returns:
        The facts that are not stated, in the order asked.

    Raises:
        KeyError: the facts have no such name or wording.
    """
    items = {item.name: item for item in facts.items}
    return [lack for name, wording in asked if (lack := _check_fact(items[name], wording, text)) is not None]


def _check_fact(item: Fact, wording: str, text: str) -> Lack | None:
    points, pattern = {value: (worth, pattern) for value, worth, pattern in item.values}[wording]
    others = [
        worth
        for value, worth, other in item.values
        if other and value != wording and (worth > points or not pattern) and status(other, text, value) == "stated"
    ]
    if others and (max(others) != points or not pattern):
        return Lack(item.name, wording, "differs")
    if not pattern:
        return None
    found = status(pattern, text, wording)
    return None if found == "stated" else Lack(item.name, wording, found)


def status(pattern: str, text: str, wording: str = "") -> Literal["stated"] | Found:
    """Return how a text mentions what a pattern matches: "stated" where one mention is, else the context of the first.

    Args:
        pattern: a regular expression, read without regard to capitals.
        wording: what the pattern stands for; a context that it has itself is none.
    """
    allowed = {context for context, words in _MEANT if words.search(wording)}
    first: Found | None = None
    for match in re.finditer(pattern, text, re.IGNORECASE):
        context = context_of(text, match.start(), match.end(), allowed)
        if context is None:
            return "stated"
        first = first or context
    return first or "missing"


def context_of(text: str, start: int, end: int, allowed: Iterable[Found] = ()) -> Found | None:
    """Return the context of a mention that keeps it from being a statement; None for a statement.

    Args:
        start, end: of the mention in the text.
        allowed: contexts that do not count.
    """
    before = _SENTENCE.split(text[max(0, start - _REACH) : start])[-1]
    after = _SENTENCE.split(text[end : end + _REACH], maxsplit=1)[0]
    rest = _CLAUSE.split(after, maxsplit=1)[0]
    found: dict[Found, bool] = {
        "other_person": _is_of_another(before),
        "possible": _reaches_mention(_POSSIBLE_BEFORE, before, after, any_comma=True)
        or bool(_POSSIBLE_AFTER.match(rest)),
        "past": _reaches_mention(_PAST_BEFORE, before, after) or bool(_PAST_AFTER.match(after)),
        "negated": _reaches_mention(_NEGATED_BEFORE, before, after) or bool(_NEGATED_AFTER.match(rest)),
    }
    return next((context for context, holds in found.items() if holds and context not in set(allowed)), None)


def _reaches_mention(trigger: re.Pattern[str], before: str, after: str, *, any_comma: bool = False) -> bool:
    """Return whether a trigger before a mention reaches it: in its clause, or over the items of a list.

    Args:
        any_comma: whether the triggers of the group "list" reach over every comma.
    """
    for match in trigger.finditer(before):
        between = before[match.end() :]
        if _CLAUSE.search(between):
            continue
        if "," not in between:
            return True
        many = "list" in match.re.groupindex and match.group("list") is not None
        if any_comma and many:
            return True
        items = between.split(",")
        is_list = all(len(item.split()) <= _FEW for item in items)
        if is_list and (many or re.search(r"\b(?:or|nor)\b", items[-1] + after.split(".")[0])):
            return True
    return False


def _is_of_another(before: str) -> bool:
    """Return whether a mention is of another person: a relative is the subject, and the patient is not named since."""
    matches = list(_OTHER_BEFORE.finditer(before))
    return bool(matches) and not _PATIENT.search(before[matches[-1].end() :])
