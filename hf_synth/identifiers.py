"""Structured identifiers of a person, found by patterns: those of 45 CFR 164.514(b)(2) that have a form.

Names, places and anything else without a form are not found: a text without a match is not de-identified.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

_MONTH = (
    r"(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sept?(?:ember)?|Oct(?:ober)?"
    r"|Nov(?:ember)?|Dec(?:ember)?)\.?"
)
_ID = r"(?:\s*(?:number|no\.?|num\.?|#|id))?\s{0,2}[:#]?\s{0,2}(?=[A-Za-z-]{0,5}\d)[A-Za-z0-9][A-Za-z0-9-]{4,17}"
_PATTERNS: dict[str, str] = {
    "email": r"[\w.+-]{1,64}@[\w-]{1,63}(?:\.[\w-]{1,63})+",
    "url": r"(?i:\bhttps?://|\bftp://|\bwww\.)[^\s<>\"]{3,}",
    "ip_address": r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.]*\d)"
    r"|(?<![\w:])[0-9A-Fa-f]{1,4}(?::[0-9A-Fa-f]{1,4}){7}(?![\w:])",
    "ssn": r"(?<![\d-])\d{3}-\d{2}-\d{4}(?![\d-])|(?i:\bssn\b|\bsocial security\b)\D{0,12}\d{3}[ -]?\d{2}[ -]?\d{4}\b",
    "phone": r"(?<![\d.-])(?:\+?1[-. ]?)?(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4}(?![\d-])"
    r"|\+\d{1,3}(?:[ .-]?\(?\d{2,4}\)?){2,5}(?!\d)"
    r"|(?i:\b(?:phone|tel|telephone|fax|pager|cell|mobile|beeper|ext)\b)[^\d\n]{0,12}\d{3,4}[-. ]?\d{2,4}\b",
    "record_number": r"(?i:\b(?:mrn|mr ?#|medical record|chart|patient id|hospital number|accession))\b"
    + _ID
    + r"|(?<![\d.,/-])\d{7,10}(?![\d.,/-]|\s?(?i:units?|iu|u|mg|ml|mcg|copies|cfu|cells)\b)",
    "account_number": r"(?i:\b(?:account|acct|member|policy|insurance|beneficiary|health plan|subscriber))\b" + _ID,
    "licence_or_device": r"(?i:\b(?:licen[cs]e(?: plate)?|certificate|serial|device|vin|dea|npi))\b" + _ID,
    "birth_date": r"(?i:\b(?:dob|d\.o\.b\.?|date of birth|born(?: on)?))\W{0,4}"
    rf"(?:\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}|(?:{_MONTH}\s)?\d{{1,2}}(?:\s{_MONTH})?,?\s\d{{4}})",
    "date": r"(?<![\d/.-])(?:(?:19|20)\d\d[-/.](?:0?[1-9]|1[0-2])[-/.](?:0?[1-9]|[12]\d|3[01])"
    r"|(?:0?[1-9]|[12]\d|3[01])[-/.](?:0?[1-9]|[12]\d|3[01])[-/.](?:(?:19|20)\d\d|\d\d))(?![\d/-])",
    "date_in_words": rf"\b{_MONTH}\s(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?(?:,?\s(?:19|20)\d\d)?\b"
    rf"|\b(?:0?[1-9]|[12]\d|3[01])(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH}(?:,?\s(?:19|20)\d\d)?\b",
    "age_over_89": r"\b(?:9\d|1[0-3]\d)(?:[- ](?i:years?|yrs?)[- ](?i:old)|\s?(?i:y/?o|y\.o\.?|yrs? old)\b)"
    r"|(?i:\baged?)\b\W{0,3}(?:is |of )?(?:9\d|1[0-3]\d)(?![\d%.])",
    "zip_code": r"\b[A-Z]{2},? \d{5}(?:-\d{4})?(?![\d-])|(?<![\d-])\d{5}-\d{4}(?![\d-])"
    r"|(?i:\bzip(?: code)?)\W{0,3}\d{5}\b",
    "street_address": r"\b\d{1,5} (?:[A-Z][a-z]+ ){1,3}(?:Street|Avenue|Ave|Road|Boulevard|Blvd|Lane|Drive|Court)\b",
}  # fmt: skip
IDENTIFIERS: Mapping[str, re.Pattern[str]] = MappingProxyType({k: re.compile(p) for k, p in _PATTERNS.items()})
# Invented notes are full of these; whoever refuses a row for an identifier may want to treat them apart.
DATES_AND_AGES = ("date", "date_in_words", "age_over_89", "zip_code")

# A pattern is tried only where one of these stands in the text (lower case, every digit a 0): four times as fast.
_NEEDLES: Mapping[str, tuple[str, ...]] = {
    "email": ("@",),
    "url": ("://", "www."),
    "ip_address": (".0.", ".00.", ".000.", ":"),
    "ssn": ("00-0000", "ssn", "social security"),
    "phone": ("0-0000", "0 0000", "0.0000", "+0", "phone", "tel", "fax", "pager", "cell", "mobile", "beeper", "ext"),
    "record_number": ("0000000", "mrn", "mr #", "mr#", "record", "chart", "patient id", "hospital number", "accession"),
    "account_number": ("account", "acct", "member", "policy", "insurance", "beneficiary", "health plan", "subscriber"),
    "licence_or_device": ("license", "licence", "certificate", "serial", "device", "vin", "dea", "npi"),
    "birth_date": ("dob", "d.o.b", "birth", "born"),
    "date": ("/0/", "/00/", "-0-", "-00-", ".0.", ".00."),
    "date_in_words": ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"),
    "age_over_89": ("year", "yr", "yo", "y/o", "y.o", "age"),
    "zip_code": ("00000",),
    "street_address": ("street", "ave", "road", "boulevard", "blvd", "lane", "drive", "court"),
}
_DIGITS = str.maketrans("123456789", "000000000")


def identifiers_in(text: str) -> set[str]:
    """Give the kinds of structured identifiers that a text holds (IDENTIFIERS); names and places are not found."""
    shape = text.lower().translate(_DIGITS)
    if "0" not in shape and "@" not in shape and "://" not in shape and "www." not in shape:
        return set()
    return {
        kind
        for kind, pattern in IDENTIFIERS.items()
        if any(needle in shape for needle in _NEEDLES[kind]) and pattern.search(text)
    }
