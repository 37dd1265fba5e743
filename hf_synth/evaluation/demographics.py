"""Sex, age and race of the patient from the words of a note, and counterfactual notes with these words swapped.

A small lexicon, precise rather than complete: "white" counts in "white woman" and not in "white blood cells", an age
counts if it is the patient's and not "her 45-year-old son", and a missing or contradictory attribute is "unknown". The
words on race and sex are the writer's and need not be the patient's.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

ATTRIBUTES = ("sex", "age", "race")
UNKNOWN = "unknown"
BANDS = ((17, "0-17"), (44, "18-44"), (64, "45-64"), (120, "65+"))

_FEMALE, _MALE = "woman|female|lady|girl", "man|male|gentleman|boy"
_PERSON = rf"(?:{_FEMALE}|{_MALE}|patient|person|infant|child)\b"
_ADJECTIVES = r"(?:(?!(?:and|with|who|whose|his|her|their|of|from|to|in|on|for|presents?)\b)[\w-]+[\s,]+)"
_RELATIVES = (
    "mother|father|sister|brother|son|daughter|husband|wife|spouse|partner|aunt|uncle|cousin|niece|nephew|"
    "grand\\w+|friend|caregiver|neighbor"
)

_OLD = re.compile(r"[\s-]*(?:(?:years?|yrs?)[\s-]+old\b|y\s?/\s?o\b|y\.\s?o\.|yo\b)", re.IGNORECASE)
# "72-year-old", "72 y/o", "72yo"; "72F with"; "woman, 72,"; "age: 72", "aged 72"
_YEARS = re.compile(
    rf"(?<![\d./-])(?P<age>\d{{1,3}}){_OLD.pattern}"
    rf"(?:[\s,-]+{_ADJECTIVES}{{0,4}}?(?:(?P<sex>{_FEMALE}|{_MALE})\b|(?P<letter>(?-i:[FM]))\b))?",
    re.IGNORECASE,
)
_SHORT = re.compile(
    r"(?<![\d./-])(?P<age>\d{2})\s?(?P<letter>[FM])\b(?=\s+(?:with\b|w/|who\b|present|here\b|c/o\b|s/p\b))"
)
_TURNED = re.compile(rf"\b(?P<sex>{_FEMALE}|{_MALE}),\s+(?P<age>\d{{2,3}})(?=\s*[,;:.)])(?![.,]\d)", re.IGNORECASE)
_AGED = re.compile(r"(?:\baged\s+|\bage\s*[:=]\s*)(?P<age>\d{1,3})\b(?!\s*(?:months?|weeks?|days?)\b)", re.IGNORECASE)
_INFANT = re.compile(
    rf"\b\d{{1,2}}[\s-]*(?:months?|mos?|weeks?|wks?|days?)[\s-]+old[\s,]+{_ADJECTIVES}{{0,2}}?"
    rf"(?:(?P<sex>{_FEMALE}|{_MALE})|infant|baby|child|newborn|neonate|toddler)\b",
    re.IGNORECASE,
)
_NOT_THEIRS = re.compile(
    r"(?:\b(?:his|her|their|whose|my|at|until|since|when|before|by|died|deceased)|'s)\s+(?:the\s+age\s+of\s+)?(?:\w+\s+)?$",
    re.IGNORECASE,
)
_OF_A_RELATIVE = re.compile(rf"[\s,-]+(?:\w+\s+)?(?:{_RELATIVES})\b", re.IGNORECASE)

_SEX_FIELD = re.compile(r"\b(?:sex|gender)\s*[:=]\s*(?P<sex>female|male|woman|man|f|m)\b", re.IGNORECASE)
_SEX_STATED = re.compile(
    rf"\b(?:(?:patient|pt|this)\s+is\s+an?\s+{_ADJECTIVES}{{0,4}}?(?P<sex>{_FEMALE}|{_MALE})"
    r"|this\s+(?:(?:very|pleasant|elderly|young|older|middle-aged)\s+){0,2}(?P<this>woman|lady|gentleman))\b",
    re.IGNORECASE,
)
_TITLE = re.compile(r"\b(?P<sex>Mr|Mrs|Ms|Miss)\b\.?\s+[A-Z\[_*]")
_EITHER = re.compile(r"\b(?:s/he|(?:he|she|his|hers?|him)\s*(?:or|/)\s*(?:he|she|his|hers?|him))\b", re.IGNORECASE)
_PRONOUN = re.compile(r"\b(?P<sex>she|hers?|herself|he|him|his|himself)\b", re.IGNORECASE)
_IS_FEMALE = frozenset(["woman", "female", "lady", "girl", "f", "mrs", "ms", "miss", "she", "her", "hers", "herself"])

_RACES = {
    "white": "white|caucasian",
    "black": r"black|african[\s-]american|AA",
    "hispanic": "hispanic|latin[oax]",
    "asian": r"(?:south\s|east\s)?asian|chinese|korean|japanese|vietnamese|filipin[oa]",
    "native american": r"native\samerican|american\sindian|alaska\snative",
    "pacific islander": r"pacific\sislander|native\shawaiian",
}
_ANY_RACE = "|".join(_RACES.values())
_BESIDE = "american|adult|elderly|young|older|middle-aged|right-handed|left-handed|obese|pleasant|well-appearing"
_RACE = re.compile(
    rf"(?<![\w-])(?P<race>{_ANY_RACE})(?=[\s,-]+(?:(?:{_BESIDE})[\s,]+){{0,2}}{_PERSON}|\s[FM]\b)"
    rf"|\b(?:race|ethnicity)(?:\s*/\s*ethnicity)?\s*[:=]\s*(?P<field>{_ANY_RACE})\b",
    re.IGNORECASE,
)
_NON_HISPANIC = re.compile(r"\bnon[\s-]?(?:hispanic|latin[oax])\b", re.IGNORECASE)

# the sex of a note with one of these words cannot be swapped
_ANATOMY = re.compile(
    r"\b(?:pregnan|gravid|postpartum|uter(?:us|ine)|ovar|cervical\scanc|cervix|vagin|hysterectom|menopaus|menstru|"
    r"mammogra|breast|prostat|testic|testes|scrot|penis|penile|erectile|vasectom|OB/?GYN|g\dp\d)",
    re.IGNORECASE,
)
_TO_MALE = {
    "she": "he", "hers": "his", "herself": "himself", "woman": "man", "female": "male", "lady": "gentleman",
    "girl": "boy", "mrs": "Mr", "ms": "Mr", "miss": "Mr",
}  # fmt: skip
_TO_FEMALE = {
    "he": "she", "him": "her", "his": "her", "himself": "herself", "man": "woman", "male": "female",
    "gentleman": "lady", "boy": "girl", "mr": "Ms",
}  # fmt: skip
# words that follow an object pronoun ("told her to"): no noun that it could belong to
_NO_NOUNS = (
    "a about after again all also an and any as at back be because before but by during for from had has he home how "
    "if in into is it me not of off on or out over she so some that the then there they this through to today tomorrow "
    "until up was we were what when where which while who will with yesterday"
)
_AFTER_OBJECT = frozenset(_NO_NOUNS.split())
_NEXT_WORD = re.compile(r"\s+([A-Za-z]+)")
_OTHER_RACE = {"white": "black", "caucasian": "African-American", "black": "white", "african american": "Caucasian"}


def read_attribute(text: str, attribute: str) -> str:
    """Read an attribute of the patient from a note.

    Args:
        attribute: "sex" (female, male), "age" (a band of BANDS) or "race" (white, black, hispanic, asian,
            native american, pacific islander).

    Returns:
        The group; "unknown" where the note names none, or two.
    """
    if attribute == "age":
        return _only({band_of(age) for age, _ in _ages(text)} | {BANDS[0][1] for _ in _INFANT.finditer(text)})
    if attribute == "race":
        plain = _NON_HISPANIC.sub(" ", text)
        return _only({_race_of(m["race"] or m["field"]) for m in _RACE.finditer(plain)})
    matches = [m for _, m in _ages(text)]
    matches += [m for pattern in (_INFANT, _SEX_FIELD, _SEX_STATED) for m in pattern.finditer(text)]
    stated = {word for m in matches for name in ("sex", "letter", "this") if (word := m.groupdict().get(name))}
    for words in (stated, {m["sex"] for m in _TITLE.finditer(text)}):
        if words:
            return _only({_sex_of(word) for word in words})
    return _only({_sex_of(m["sex"]) for m in _PRONOUN.finditer(_EITHER.sub(" ", text))})


def band_of(age: float) -> str:
    """Return the band of an age in years; "unknown" outside 0 to 120."""
    return next((name for most, name in BANDS if 0 <= age < most + 1), UNKNOWN)


def _only(groups: set[str]) -> str:
    return groups.pop() if len(groups) == 1 else UNKNOWN


def _sex_of(word: str) -> str:
    return "female" if word.lower() in _IS_FEMALE else "male"


def _race_of(word: str) -> str:
    return next(name for name, words in _RACES.items() if re.fullmatch(words, word, re.IGNORECASE))


def _ages(text: str) -> Iterator[tuple[int, re.Match[str]]]:
    """Yield the ages of the patient in a note, with their matches."""
    for pattern in (_YEARS, _SHORT, _TURNED, _AGED):
        for m in pattern.finditer(text):
            age = int(m["age"])
            if age > 120 or (pattern is _SHORT and not 16 <= age <= 94):  # "99F with chills" is a temperature
                continue
            if _NOT_THEIRS.search(text, max(0, m.start() - 40), m.start()):
                continue
            if not _OF_A_RELATIVE.match(text, m.end("age") if pattern in (_AGED, _TURNED) else _end_of_age(m)):
                yield age, m


def _end_of_age(m: re.Match[str]) -> int:
    """Return the end of the age itself, before the words that follow it."""
    old = _OLD.match(m.string, m.end("age"))
    return old.end() if old else m.end()


def swap_attribute(text: str, attribute: str, group: str) -> str:
    """Swap the words of one attribute of the patient, such as she for he or 80 years for 40, and nothing else.

    Args:
        attribute: "sex", "age" or "race".
        group: the group of the whole note (`read_attribute`): only words of this group are swapped, so that "he" stays
            where it means a woman's husband. Below 18 years nothing is swapped, nor the sex of a note on organs that
            only one sex has.

    Returns:
        The other note; the same text where there is nothing to swap.
    """
    if group == UNKNOWN:
        return text
    if attribute == "race":
        return _RACE.sub(lambda m: _swapped_race(m, group), text)
    if attribute == "age":
        return text if group == BANDS[0][1] else _swapped_age(text, old=group == BANDS[-1][1])
    return text if _ANATOMY.search(text) else _swapped_sex(text, female=group == "female")


def _swapped_sex(text: str, *, female: bool) -> str:
    words = _TO_MALE if female else _TO_FEMALE

    def other(m: re.Match[str]) -> str:
        word, follows = m[0], _NEXT_WORD.match(text, m.end())
        bare = follows is None or follows[1].lower() in _AFTER_OBJECT  # without a noun
        if word.lower() == "her":
            return _match_case(word, "him" if bare else "his")
        if word.lower() == "his" and bare:
            return _match_case(word, "hers")
        return _match_case(word, words[word.lower()])

    known = "|".join([*words, "her"] if female else words)
    swapped = re.sub(rf"\b(?:{known})\b", other, text, flags=re.IGNORECASE)
    letter, instead = ("F", "M") if female else ("M", "F")
    spots = {m.start("letter") for _, m in _ages(swapped) if m.groupdict().get("letter") == letter}
    spots |= {m.start("sex") for m in _SEX_FIELD.finditer(swapped) if m["sex"] == letter}
    return "".join(instead if i in spots else c for i, c in enumerate(swapped)) if spots else swapped


def _swapped_age(text: str, *, old: bool) -> str:
    age, pieces, at = ("40" if old else "80"), [], 0
    for begin, end in sorted({m.span("age") for _, m in _ages(text)}):
        pieces += [text[at:begin], age]
        at = end
    swapped = "".join([*pieces, text[at:]])
    words = ("elderly", "young") if old else ("young", "elderly")
    return re.sub(
        rf"\b{words[0]}(?=\s+{_ADJECTIVES}{{0,2}}?{_PERSON})",
        lambda m: _match_case(m[0], words[1]),
        swapped,
        flags=re.I,
    )


def _swapped_race(m: re.Match[str], group: str) -> str:
    word = m["race"] or m["field"]
    if _race_of(word) != group:
        return m[0]
    instead = _OTHER_RACE.get(re.sub(r"[\s-]", " ", word.lower()), "white")
    return m[0].replace(word, _match_case(word, instead) if instead.islower() and word != "AA" else instead)


def _match_case(word: str, instead: str) -> str:
    """Write a word in the case of another: SHE -> HE, She -> He, she -> he."""
    if word.isupper() and len(word) > 1:
        return instead.upper()
    return instead[0].upper() + instead[1:] if word[0].isupper() else instead.lower()
