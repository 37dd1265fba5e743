"""Regular expressions for structured identifiers (PHI): the HIPAA Safe Harbor classes that have a form.

Names without a title, places and anything else without a form are not found: a text without a match is not
de-identified. Of the 18 classes of 45 CFR 164.514(b)(2), names, biometric prints and photographs have no form, but a
name after a title has one; `audit(find_identifiers=...)` takes a finder of your own, and `presidio_finder` makes one
from an analyzer of presidio.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from hf_synth.errors import MissingExtraError
from hf_synth.privacy.folding import fold

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_ID = r"(?:\s*(?i:number|no\.?|num\.?|#|id))?\s{0,2}[:#]?\s{0,2}(?=[A-Za-z-]{0,5}\d)[A-Za-z0-9][A-Za-z0-9-]{4,17}"
_YEARS_OLD = r"(?:[- ](?i:years?|yrs?)[- ](?i:old)|\s?(?i:y/?o|y\.o\.?|yrs? old)\b)"
_NAME = r"(?:[OD]['\u2019])?[A-Z\u00c0-\u00de](?:[a-z\u00df-\u00ff][A-Za-z\u00c0-\u00ff'\u2019-]*)"
_NO_NAME = (  # what follows a title and is no name: a role, or the first word of the next sentence
    r"(?!(?:Practitioner|Manager|Anesthetist|Midwife|Aide|Assistant|Station|Patient|Pt|Doctor|Nurse|Who|The|This|That"
    r"|There|She|He|They|We|You|It|If|When|What|How|And|But|So|No|Not|Yes|Her|His|My|Your|Our|In|On|At|For|After|Then"
    r"|Do|Did|Does|Is|Are|Was|Has|Have|Had|Can|Will|Would|Denies|Reports|Says|Well|Okay|Oh|Hi|Hello|Thank|Thanks)\b)"
)
_PATTERNS: dict[str, str] = {
    # MR and MS in capitals are an image and a disease or a drug; X, Y and XYZ stand in the place of a name
    "titled_name": r"\b(?:(?:[Dd]rs?|DR|[Mm]rs?|MRS|[Mm]s|Mx|[Pp]rof)(?:\.\s?|\s)"
    r"|(?:Doctor|Professor|Miss|Mister|Nurse)\s)(?:[A-Z]\. ?){0,2}"
    rf"(?:(?:de|del|della|van|von|der|den|la|le|bin|al)\s){{0,2}}{_NO_NAME}{_NAME}"
    r"|\b(?:DR|MR|MRS|MS)\.\s(?!(?:XYZ|ABCD?|YZ)\b)[A-Z]{3,}\b",
    "email": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+",
    "url": r"(?i:\bhttps?://|\bftp://|\bwww\.)[^\s<>\"]{3,}",
    "mac_address": r"(?<![\w:-])[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5}(?![\w:-])",
    "ip_address": r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)"
    r"|(?<![\w:])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){7}(?![\w:])"
    r"|(?<![\w:])(?:[0-9A-Fa-f]{1,4}:){1,6}(?::[0-9A-Fa-f]{1,4}){1,6}(?![\w:])",
    "ssn": r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])|(?i:\bssn\b|\bsocial security\b)\D{0,12}\d{3}[ -]?\d{2}[ -]?\d{4}\b",
    "phone": r"(?<![\d.-])(?:\+?1[-. ]?)?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\d-])"
    r"|\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}(?!\d)",
    # seven digits: a range of doses or counts has its unit behind it
    "phone_local": r"(?<![\d.,/-])[2-9]\d\d-\d{4}(?![\d.,/-]\d|\d"
    r"|\s?(?i:units?|iu|u|mg|mcg|ml|g|cc|k?cal|calories|steps|cells|copies)\b)",
    "phone_named": r"[PpTtFfCcMmBbEe](?<!\w[A-Za-z])(?i:hone|el|elephone|ax|ager|ell|obile|eeper|xt)\b"
    r"[^\d\n]{0,12}\d{3,4}[-. ]?\d{2,4}\b",
    "phone_called": r"[CcDdTtRr](?<!\w[A-Za-z])(?i:all|allback|ial|ext|each)\b[^\d\n]{0,20}\b[2-9]\d\d[-. ]?\d{4}\b",
    "record_number": r"(?i:\b(?:mrn|mr ?#|medical record|chart|patient id|hospital number|accession))\b"
    + _ID
    + r"|(?<![\d.,/-])\d{7,10}(?![\d.,/-]|\s?(?i:units?|iu|u|mg|ml|mcg|copies|cfu|cells)\b)",
    "account_number": r"(?i:\b(?:account|acct|member|policy|insurance|beneficiary|health plan|subscriber"
    r"|medicare|medicaid|hicn))\b" + _ID
    + r"|(?<![\d-])\d{4}([ -])\d{4}\1\d{4}\1\d{4}(?![\d-])",
    "health_plan": r"[1-9](?<!\w[1-9])[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?"
    r"[AC-HJKMNP-RT-Y]{2}\d{2}\b",
    "licence_or_device": r"(?i:\b(?:licen[cs]e(?: plate)?|certificate|passport|serial|device|lot|udi|dea|npi))\b"
    + _ID + r"|\(01\)\d{14}\b",
    "vehicle": r"(?i:\b(?:vin|plates?|registration)\b)" + _ID
    + r"|\b(?=[A-HJ-NPR-Z]*\d)(?=\d*[A-HJ-NPR-Z])[A-HJ-NPR-Z0-9]{11}\d{6}\b",
    "birth_date": r"(?i:\b(?:dob|d\.o\.b\.?|date of birth|born(?: on)?))\W{0,4}"
    rf"(?:\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}|(?:{_MONTH}\s)?\d{{1,2}}(?:\s{_MONTH})?,?\s\d{{4}})",
    "date": r"(?<![\d/.-])(?:(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:(?:19|20)\d\d|\d\d))(?![\d/-])"
    rf"|(?<![\d-])(?:0?[1-9]|[12]\d|3[01])-{_MONTH}-(?:(?:19|20)\d\d|\d\d)\b",
    "date_in_words": rf"\b{_MONTH}\s(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?:,?\s(?:19|20)\d\d)?\b"
    rf"|\b(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:,?\s(?:19|20)\d\d)?\b"
    rf"|\b{_MONTH},?\s(?:of\s)?(?:19|20)\d\d\b",
    "age_over_89": rf"9\d(?<!\w9\d){_YEARS_OLD}|1[0-3]\d(?<!\w1\d\d){_YEARS_OLD}",
    "age_named": r"[AaNnHh](?<!\w[A-Za-z])(?:(?i:ged?)\b\W{0,3}(?:is |of )?(?:9\d|1[0-3]\d)(?![\d%.])"
    r"|(?i:inety)(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?[- ]years?[- ]old"
    r"|(?i:undred)(?: and \w+)?[- ]years?[- ]old)",
    "zip_code": r"\b[A-Z]{2},? \d{5}(?:-\d{4})?(?![\d-])|(?<![\d-])\d{5}-\d{4}(?![\d-])"
    r"|(?i:\bzip(?: code)?)\W{0,3}\d{5}\b",
    "street_address": r"\b\d{1,5} (?:[A-Z][a-z]+ ){1,3}(?:Street|Avenue|Ave|Road|Boulevard|Blvd|Lane|Drive|Court)\b"
    r"|(?i:\bp\.? ?o\.? box \d{1,6}\b)",
    "coordinates": r"(?<![\d.])-?\d{1,2}\.\d{4,8}\s?,\s?-?\d{1,3}\.\d{4,8}(?![\d.])",
}  # fmt: skip
_COMPILED = {kind: re.compile(pattern) for kind, pattern in _PATTERNS.items()}
_OTHER_FORMS = {  # separate patterns, for speed
    "phone_local": "phone", "phone_named": "phone", "phone_called": "phone", "age_named": "age_over_89",
}  # fmt: skip
IDENTIFIERS = tuple(kind for kind in _PATTERNS if kind not in _OTHER_FORMS)
# Invented notes are full of these, so the audit treats them apart from other identifiers.
DATES_AND_AGES = ("date", "date_in_words", "age_over_89", "zip_code")

# A pattern is tried only on texts that contain one of these (lower case, every digit as 0): four times as fast.
_NEEDLES: Mapping[str, tuple[str, ...]] = {
    "titled_name": ("dr.", "dr ", "drs", "mr.", " mr ", "mrs", " ms.", " ms ", " mx", " prof", "doctor ", "miss ",
                    "mister ", "nurse "),
    "email": ("@",),
    "url": ("://", "www."),
    "mac_address": ("0:", ":0", "0-", "-0"),
    "ip_address": (".0.", ".00.", ".000.", "::", ":0"),
    "ssn": ("00-0000", "ssn", "social security"),
    "phone": ("0-0000", "0 0000", "0.0000", "+0"),
    "phone_named": ("phone", "tel", "fax", "pager", "cell", "mobile", "beeper", "ext"),
    "phone_local": ("000-0000",),
    "phone_called": ("call", "dial", "text", "reach"),
    "record_number": ("0000000", "mrn", "mr #", "mr#", "record", "chart", "patient id", "hospital number", "accession"),
    "account_number": ("account", "acct", "member", "policy", "insurance", "beneficiary", "health plan", "subscriber",
                       "medicare", "medicaid", "hicn", "0000-0000", "0000 0000"),
    "health_plan": ("00",),
    "licence_or_device": ("license", "licence", "certificate", "passport", "serial", "device", "lot", "udi", "dea",
                          "npi", "(00)"),
    "vehicle": ("vin", "plate", "registration", "000000"),
    "birth_date": ("dob", "d.o.b", "birth", "born"),
    "date": ("/0/", "/00/", "-0-", "-00-", ".0.", ".00.", "0-"),
    "date_in_words": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "age_over_89": ("0-y", "0 y", "0y"),
    "age_named": ("age", "ninety", "hundred"),
    "zip_code": ("00000",),
    "street_address": ("street", "ave", "road", "boulevard", "blvd", "lane", "drive", "court", "box"),
    "coordinates": (".0000",),
}  # fmt: skip
_ALSO_NEEDED = {"phone_named": "000", "phone_called": "000"}  # in addition to one of `_NEEDLES`
_SHAPE = str.maketrans("123456789\n\t", "000000000  ")
_DASHES = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2212", "-"))
_NO_DIGIT_NEEDED = ("@", "://", "www.", "ninety", "hundred", *_NEEDLES["titled_name"])


def identifiers_in(text: str) -> set[str]:
    """Return the kinds of structured identifiers in a text (IDENTIFIERS); of names only those after a title are found.

    A text that is not ASCII, or has escapes, is searched as it looks too: wide digits, dashes, letters of other
    alphabets.
    """
    plain = fold(text)
    if plain == text:
        return _kinds(text)
    return _kinds(text.translate(_DASHES)) | _kinds(plain)


def presidio_finder(analyzer: Any = None, *, language: str = "en", score: float = 0.5) -> Callable[[str], set[str]]:
    """Make a finder for `audit(find_identifiers=...)` from an AnalyzerEngine of presidio.

    Its recognisers of e-mail addresses and URLs may load a list of domains from the network. Leave them out of its
    registry where notes must stay: the patterns here find those kinds.

    Args:
        analyzer: the engine; presidio's default one, with the language model that it needs, when None.
        language: of the notes.
        score: the least confidence that counts, 0 to 1.

    Raises:
        MissingExtraError: presidio-analyzer is not installed.
    """
    if analyzer is None:
        try:
            from presidio_analyzer import AnalyzerEngine
        except ImportError:
            raise MissingExtraError("presidio-analyzer", "presidio") from None
        analyzer = AnalyzerEngine()

    def find(text: str) -> set[str]:
        results = analyzer.analyze(text=text, language=language)
        return {str(r.entity_type).lower() for r in results if r.score >= score}

    return find


def _kinds(text: str) -> set[str]:
    shape = f" {text.lower().translate(_SHAPE)}"
    if "0" not in shape and not any(sign in shape for sign in _NO_DIGIT_NEEDED):
        return set()
    has = shape.__contains__
    return {
        _OTHER_FORMS.get(kind, kind)
        for kind, pattern in _COMPILED.items()
        if has(_ALSO_NEEDED.get(kind, "")) and any(map(has, _NEEDLES[kind])) and pattern.search(text)
    }
