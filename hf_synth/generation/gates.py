"""Quality filters of synthetic rows: length, label leaks, copies, template leftovers, language, facts.

Each gate rejects a row with a reason (`task.REASONS`). A gate sees one row and the gold alone. It is calibrated on
gold: a pattern that matches gold is the style of the house and is left out, and the limits of length and language come
from gold. Repetition of earlier rows is checked by `repetition.Seen`, in the order of the plan.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any

from hf_synth.generation.fact_check import check_facts
from hf_synth.generation.plan import Call, Pool
from hf_synth.privacy.folding import digest, words_of
from hf_synth.privacy.overlap import Index
from hf_synth.task.patterns import BoundedPattern, bounded_pattern
from hf_synth.task.task import Task

_SAMPLE = 500  # gold rows on which a gate is calibrated
_OWN_STYLE = 0.01  # share of gold above which a pattern is the style of the house
_TIMES_LONGER, _SHORT = 4, 2_000  # limit of a text: times gold's longest text, at least so many characters
_FEW_WORDS = 20  # the language of a text of fewer words is unknown
_FEWEST_WORDS = 5  # of a note, where no gold says how short a note may be
_MARGIN = 0.08  # share of words by which the first language must lead
# Placeholders. Not "___" and "[**...**]": de-identified gold is full of them.
_TEMPLATES = (
    r"(?i)\[(?:insert|add|your|patient|name|date|age|dob|mrn|hospital|doctor|physician|provider|location)\b[^\]\n]{0,60}\]",
    r"(?i)\{\{?\s*[a-z_][a-z0-9_ ]{0,40}\s*\}?\}",
    r"(?i)<(?:insert|patient|name|date|age|hospital|text|label|note)\b[^>\n]{0,40}>",
    r"(?i)lorem ipsum",
    r"\b(?:XX|xx)[- ]year[- ]old\b",
    r"</?s>|<\|[a-z_]{2,20}\|>|\[/?INST\]",
)
# Frequent short words of each language.
_FUNCTION_WORDS = {
    "english": "the and of with was is has for to he she his her not from this are were denies reports",
    "spanish": "el los las con por para que una del se su paciente sin refiere fue muy pero como este presenta",
    "french": "le les des une est avec pour dans sur qui pas du au aux il elle sans cette été chez",
    "german": "der die das und mit ist nicht ein eine auf für von zu wird wurde bei dem den sich keine",
    "portuguese": "os com não uma ao da dos foi mais seu sua em paciente sem pelo pela apresenta ou também está",
    "italian": "il gli di che non è una con per del della nel sono paziente si alla dei senza dopo ha",
    "dutch": "het een van met niet voor zijn op aan bij werd naar geen wordt ook deze heeft patiënt zonder dat",
}
_LANGUAGE_CODES = {
    "en": "english", "es": "spanish", "fr": "french", "de": "german", "pt": "portuguese", "it": "italian",
    "nl": "dutch",
}  # fmt: skip
_LANGUAGES_OF: dict[str, list[str]] = {}
for _name, _words in _FUNCTION_WORDS.items():
    for _word in _words.split():
        _LANGUAGES_OF.setdefault(_word, []).append(_name)


class Gates:
    """The gates of one task, calibrated on the gold of its exemplars on first use.

    Args:
        pool: the gold.
        copies: whether texts are copies of gold, by `key_of` a row; texts that are not there are compared and added.
            None keeps nothing.
    """

    def __init__(self, task: Task, pool: Pool, copies: dict[bytes, bool] | None = None) -> None:
        self._task, self._pool, self._copies = task, pool, copies

    def faults(self, rows: Sequence[Mapping[str, Any]], calls: Sequence[Call]) -> list[str | None]:
        """Return the reason (a key of `task.REASONS`) to reject each row; None for a good row.

        Each row is judged by itself, so that the answer does not depend on the rows beside it. Many rows at once cost
        less than one by one.

        Args:
            rows: by column, labels as names.
            calls: the call that each row answers.
        """
        if not rows:
            return []
        texts = [self._texts(row) for row in rows]
        return [
            self._fault(row, own, call, copy=copy)
            for row, own, call, copy in zip(rows, texts, calls, self._copied(texts), strict=True)
        ]

    def copies_of(self, rows: Sequence[Mapping[str, Any]]) -> dict[bytes, bool]:
        """Return whether rows are copies of gold, by `key_of` each; this takes most of the time of the gates."""
        texts = [self._texts(row) for row in rows]
        return dict(zip(map(key_of, texts), self._copied(texts), strict=True))

    def _texts(self, row: Mapping[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[c]) for c in self._task.text_columns)

    def _copied(self, texts: Sequence[tuple[str, ...]]) -> list[bool]:
        if self._copies is None:
            return self._compared(texts)
        keys = [key_of(row) for row in texts]
        new = {key: row for key, row in zip(keys, texts, strict=True) if key not in self._copies}
        self._copies.update(zip(new, self._compared(list(new.values())), strict=True))
        return [self._copies[key] for key in keys]

    def _compared(self, texts: Sequence[tuple[str, ...]]) -> list[bool]:
        if not texts:
            return []
        reach = self._index.reach(texts)
        copied: list[bool] = (reach.spans() | reach.near()).tolist()
        return copied

    def _fault(self, row: Mapping[str, Any], texts: tuple[str, ...], call: Call, *, copy: bool) -> str | None:
        if max(map(len, texts)) > self._longest:
            return "too_long"
        if any(pattern.search(text) for pattern in self._leaks for text in texts):
            return "label_leak"
        if any(name.search(text) for name in self._names for text in texts):
            return "label_leak"
        if not self._gold and sum(len(words_of(text)) for text in texts) < _FEWEST_WORDS:
            return "empty"
        if digest(texts) in self._pool.digests:
            return "duplicate"
        if copy:
            return "copied"
        if any(pattern.search(text) for pattern in self._templates for text in texts):
            return "template"
        if self._language and (language := language_of(" ".join(texts))) and language != self._language:
            return "language"
        if call.facts and self._task.facts is not None:
            if lacks := check_facts(self._task.facts, call.facts, "\n".join(texts)):
                return lacks[0].reason
            return "facts_differ" if row[self._task.label_column] not in call.labels else None
        return None

    # --- calibrated on the gold ---------------------------------------------------------------------------------

    @cached_property
    def _leaks(self) -> list[BoundedPattern]:
        return [bounded_pattern(pattern) for pattern in self._task.leaks]

    @cached_property
    def _names(self) -> list[re.Pattern[str]]:
        """Names of labels that no note has by chance, such as grade_2, unless gold has them."""
        names = [re.compile(rf"(?<!\w){re.escape(x)}(?!\w)", re.IGNORECASE) for x in self._task.labels if "_" in x]
        return [name for name in names if not any(name.search(text) for text in self._gold)]

    @cached_property
    def _index(self) -> Index:
        return Index.of((group, row) for group, row in self._pool.texts())

    @cached_property
    def _gold(self) -> list[str]:
        rows = [" ".join(row) for _, row in self._pool.texts()]
        return rows[:: max(1, len(rows) // _SAMPLE)]

    @cached_property
    def _longest(self) -> int:
        return max(_SHORT, _TIMES_LONGER * max((len(t) for _, row in self._pool.texts() for t in row), default=0))

    @cached_property
    def _templates(self) -> list[re.Pattern[str]]:
        patterns = [re.compile(pattern) for pattern in _TEMPLATES]
        most = _OWN_STYLE * len(self._gold)
        return [p for p in patterns if sum(p.search(text) is not None for text in self._gold) <= most]

    @cached_property
    def _language(self) -> str | None:
        """The language of the gold, or that of the task where there is no gold; None where it is unknown."""
        if not self._gold:
            return _LANGUAGE_CODES.get(self._task.language)
        return language_of(" ".join(text[:2_000] for text in self._gold[:100]))


def key_of(texts: Sequence[str]) -> bytes:
    """Return a digest of the texts of a row, as they are."""
    return blake2b("\x1f".join(texts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def language_of(text: str) -> str | None:
    """Identify the language of a text by its function words or its script.

    Returns:
        "english", "spanish", "french", "german", "portuguese", "italian", "dutch", "other" (not in Latin letters), or
        None where it is unknown: too short, a telegram style without function words, or two languages too close.
    """
    if not text.isascii():
        letters = [c for c in text[:5_000] if c.isalpha()]
        if len(letters) >= 40 and sum(c > "\u024f" for c in letters) > 0.5 * len(letters):
            return "other"
    words = words_of(text[:20_000])
    if len(words) < _FEW_WORDS:
        return None
    counts = dict.fromkeys(_FUNCTION_WORDS, 0)
    for word in words:
        for name in _LANGUAGES_OF.get(word, ()):
            counts[name] += 1
    second, first = sorted(counts.values())[-2:]
    return max(counts, key=counts.__getitem__) if first - second >= _MARGIN * len(words) else None
