"""How like gold synthetic texts are: length, wording, misspellings, spread and distance, each relative to gold itself.

Each figure is a ratio, synthetic to gold. It is shown with the same ratio of one half of gold to the other, over random
halves of whole groups (patients): a ratio within that range is as like gold as gold is to itself. A ratio says nothing
of whether a text is true, or whether its label is right.

The figures are aggregates over at least 20 groups of gold in each half, rounded to two digits; no text, word or row is
in them. They are no differential privacy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from hf_synth.privacy.closeness import closest, count_groups, sample_rows
from hf_synth.privacy.folding import words_of
from hf_synth.task.labels import Ints, column_of
from hf_synth.task.task import Task

if TYPE_CHECKING:
    from datasets import Dataset

FEWEST_GROUPS = 40  # of gold: 20 in each half
_FEWEST_ROWS = 20  # synthetic
_MOST_GOLD, _MOST_ROWS = 800, 400  # rows that are compared
_MOST_NEAR = 5_000  # rows of gold among which the nearest is looked for
_MOST_WORDS = 300  # of a text, but for its length
_HALVES = 20  # random ways of cutting gold in two
_WINDOW = 50  # words, of the moving-average type-token ratio
_SEQUENCE = 3  # words of a sequence whose repetition is counted
_BITS = 21  # of a word's number
_LONG, _OFTEN = 5, 3  # letters of a word that can be misspelt, and how often gold has it
MEANINGS = {
    "words": "words of a text",
    "mattr": f"different words among {_WINDOW} in a row (moving-average type-token ratio)",
    "new_words": "words that the other half of gold does not have",
    "misspelt": "words that look like a misspelling of a word of gold",
    "spread": f"different sequences of {_SEQUENCE} words, among equally many",
    "distance": "distance to the nearest text of gold (of another patient, for gold itself)",
}
_SHORT = {  # in one line of figures
    "words": "length", "mattr": "variety of words", "new_words": "new words", "misspelt": "misspellings",
    "spread": "variety of phrases", "distance": "distance to gold",
}  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """One figure of synthetic texts relative to gold.

    Args:
        name: a key of `MEANINGS`.
        synthetic: the value for the synthetic texts.
        ratio: that value divided by gold's; 1 is as gold.
        low, high: range of the same ratio between halves of gold.
    """

    name: str
    synthetic: float
    ratio: float
    low: float
    high: float

    @property
    def inside(self) -> bool:
        """Whether the synthetic texts differ from gold no more than halves of gold do from each other."""
        return self.low <= self.ratio <= self.high


@dataclass(frozen=True)
class Likeness:
    """How like gold synthetic texts are.

    Args:
        figures: none where there is too little to compare.
        rows: number of synthetic texts that were compared.
        why: why there are no figures; "" where there are some.
    """

    figures: tuple[Figure, ...] = ()
    rows: int = 0
    why: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return plain values, for the manifest of a stage."""
        if self.why:
            return {"why": self.why}
        values = {f.name: {"synthetic": f.synthetic, "ratio": f.ratio, "halves": [f.low, f.high]} for f in self.figures}
        return {"rows": self.rows, "figures": values}

    def __str__(self) -> str:
        if self.why:
            return f"not compared: {self.why}"
        return ", ".join(f"{_SHORT[f.name]} {f.ratio:.2f} ({f.low:.2f}-{f.high:.2f})" for f in self.figures)


def likeness(task: Task, rows: Dataset, gold: Dataset, *, seed: int = 0) -> Likeness:
    """Compare synthetic texts with gold, and gold with itself.

    The time is linear in the words of at most 400 synthetic texts and 800 of gold.

    Args:
        rows: synthetic rows; those without text are left out.
        gold: of at least 40 patients (or notes, where patients are not recorded).
        seed: of the samples.

    Returns:
        Figures in the order of `MEANINGS`, without those that gold does not have; none, with the reason, where gold or
        the rows are too few.
    """
    source = column_of(rows, "source", "synthetic")
    texts = rows.select_columns(list(task.text_columns))
    columns = zip(source, *(texts[c][:] for c in texts.column_names), strict=True)
    good = [i for i, (origin, *row) in enumerate(columns) if origin == "synthetic" and all(row)]
    if len(good) < _FEWEST_ROWS:
        others = len(rows) - sum(origin == "synthetic" for origin in source)
        left = f" ({others:,} rows are of another source and are left out)" if others else ""
        return Likeness(why=f"it needs {_FEWEST_ROWS} synthetic texts or more, and there are {len(good):,}{left}")
    if (count := count_groups(gold)) < FEWEST_GROUPS:
        return Likeness(why=_too_few(count))
    synthetic = _texts(task, sample_rows(texts.select(good), _MOST_ROWS, seed))
    near = sample_rows(gold, _MOST_NEAR, seed)
    by_row = [f"row {i}" if g is None else f"of {g}" for i, g in enumerate(column_of(near, "group"))]
    shown = np.sort(np.random.default_rng(seed).permutation(len(near))[:_MOST_GOLD])
    nearest, groups = _texts(task, near), _numbers(by_row)
    known, group = [nearest[i] for i in shown], _numbers(groups[shown])
    if group.max() + 1 < FEWEST_GROUPS:  # a few patients have most rows
        return Likeness(why=f"{_too_few(int(group.max()) + 1)} in a sample of its rows")
    corpus = _Corpus([*synthetic, *known])
    far = closest(synthetic, nearest), closest(known, nearest, groups=(groups[shown], groups))
    draws: dict[str, list[tuple[float, float, float]]] = {name: [] for name in MEANINGS}  # synthetic, half, other half
    rng = np.random.default_rng(seed)
    for _ in range(_HALVES):
        side = rng.permutation(group.max() + 1) % 2
        a, b = (len(synthetic) + rng.permutation(np.flatnonzero(side[group] == s)) for s in (0, 1))
        n = min(len(a), len(b), len(synthetic))
        s, a, b = rng.permutation(len(synthetic))[:n], a[:n], b[:n]
        for name, values in corpus.compared(s, a, b).items():
            draws[name].append(values)
        one, other = (float(far[1][half - len(synthetic)].mean()) for half in (a, b))
        draws["distance"].append((float(far[0].mean()), one, other))
    return Likeness(tuple(filter(None, (_figure(name, draws[name]) for name in MEANINGS))), len(synthetic))


def _too_few(count: int) -> str:
    return f"it needs gold of {FEWEST_GROUPS} patients (or notes) or more, and gold has {count:,}"


def _numbers(values: Any) -> Ints:
    """Return the number of each value among the different ones, (N,)."""
    numbers: Ints = np.unique(values, return_inverse=True)[1]
    return numbers


def likeness_line(recorded: Any) -> str:
    """Return the figures of `Likeness.to_json` in one line, or why there are none; "" where neither can be read."""
    try:
        if isinstance(why := recorded.get("why"), str) and why:
            return str(Likeness(why=why))
        found = list(recorded["figures"].items())
        figures = [Figure(n, f["synthetic"], f["ratio"], *f["halves"]) for n, f in found if n in MEANINGS]
        return str(Likeness(tuple(figures), recorded["rows"]))
    except (TypeError, KeyError, AttributeError, ValueError):
        return ""


def _figure(name: str, draws: Sequence[tuple[float, float, float]]) -> Figure | None:
    """Return the mean ratio, and the range between halves in either direction; None where gold has nothing of it."""
    synthetic, one, other = np.array(draws, float).T
    if not (one > 0).all() or not (other > 0).all():
        return None
    between = np.concatenate([one / other, other / one])
    ratio = float(synthetic.mean() / np.concatenate([one, other]).mean())
    low, high = math.floor(100 * between.min()) / 100, math.ceil(100 * between.max()) / 100
    return Figure(name, round(float(synthetic.mean()), 3), round(ratio, 2), low, high)


def _texts(task: Task, rows: Dataset) -> list[str]:
    return [
        " ".join(str(row[c] or "") for c in task.text_columns) for row in rows.select_columns(list(task.text_columns))
    ]


class _Corpus:
    """Texts as numbers of words."""

    def __init__(self, texts: Sequence[str]) -> None:
        split = [words_of(text) for text in texts]
        self._number: dict[str, int] = {}
        self._texts = [
            np.array([self._number.setdefault(w, len(self._number)) for w in words[:_MOST_WORDS]], np.int64)
            for words in split
        ]
        self._length = np.array([len(words) for words in split], float)
        self._words = list(self._number)
        self._slips: dict[int, frozenset[str]] = {}

    def compared(self, s: Ints, a: Ints, b: Ints) -> dict[str, tuple[float, float, float]]:
        """Return each figure of the synthetic texts, of one half and of the other, all of equally many texts."""
        texts = [[self._texts[i] for i in part] for part in (s, a, b)]
        words = [np.concatenate(part) for part in texts]
        sequences = [_sequences(part) for part in texts]
        most = min(map(len, sequences))
        counts = [np.bincount(w, minlength=len(self._words)) for w in words]
        of_each = {
            "words": [float(self._length[part].mean()) for part in (s, a, b)],
            "mattr": list(map(_mattr, words)),
            "spread": [len(np.unique(q[:most])) / max(1, most) for q in sequences],
        }
        # synthetic and the second half as seen from the first one, and the first one from the second
        pairs = ((0, 1), (2, 1), (1, 2))
        of_each["new_words"] = [float(counts[i][counts[j] == 0].sum() / max(1, len(words[i]))) for i, j in pairs]
        of_each["misspelt"] = [self._misspelt(counts[i], counts[j]) / max(1, len(words[i])) for i, j in pairs]
        return {name: (values[0], values[1], values[2]) for name, values in of_each.items()}

    def _misspelt(self, counts: Ints, known: Ints) -> int:
        """Count the words that are unknown, and one slip inside a word away from one that is known well."""
        forms: set[str] = set()
        for number in np.flatnonzero(known >= _OFTEN):
            forms |= self._forms(int(number))
        new = np.flatnonzero((counts > 0) & (known == 0))
        return sum(int(counts[n]) for n in new if not forms.isdisjoint(self._forms(int(n))))

    def _forms(self, number: int) -> frozenset[str]:
        """Return what a word has in common with its misspellings by one letter that is not the first or the last one.

        A letter left out, doubled, replaced or swapped with the next one. The ends of a word are left alone, since they
        are where grammar changes it.
        """
        if number not in self._slips:
            word = self._words[number]
            forms: set[str] = set()
            if len(word) >= _LONG and word.isalpha():
                inner = range(1, len(word) - 1)
                forms = {f"{word[:i]}*{word[i + 1 :]}" for i in inner}  # another letter in its place
                forms |= {f"{word[:i]}*{word[i:]}" for i in range(1, len(word))}  # a letter more
                swapped = (word[:i] + word[i + 1] + word[i] + word[i + 2 :] for i in inner if i < len(word) - 2)
                forms |= {f"~{min(word, other)}~{max(word, other)}" for other in swapped if other != word}
            self._slips[number] = frozenset(forms)
        return self._slips[number]


def _sequences(texts: Sequence[Ints]) -> Ints:
    """Return the sequences of words of each text as numbers, in order."""
    parts = [np.zeros(0, np.int64)]
    for words in texts:
        n = len(words) - _SEQUENCE + 1
        if n > 0:
            parts.append(np.bitwise_or.reduce([words[k : n + k] << (_BITS * k) for k in range(_SEQUENCE)]))
    return np.concatenate(parts)


def _mattr(words: Ints) -> float:
    """Return the mean share of different words in each window of a sequence, in linear time.

    A word counts in the windows in which no equal one stands before it.
    """
    n, window = len(words), min(_WINDOW, len(words))
    if not n:
        return 0.0
    order = np.argsort(words, kind="stable")
    before = np.full(n, -1)
    same = words[order[1:]] == words[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    at = np.arange(n)
    first = np.maximum(np.maximum(before + 1, at - window + 1), 0)
    last = np.minimum(at, n - window)
    return float(np.maximum(0, last - first + 1).sum() / (n - window + 1) / window)
