"""The language of the texts that leave: as the task states it, compared with what their frequent words look like.

The recogniser (`generation.gates.language_of`) knows seven languages by their function words, and whether letters are
Latin. It is no evidence for a language that nobody stated, since related languages look alike to it (Danish like
German): a card names a language only where the task states it. It is evidence against a statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from hf_synth.generation.gates import language_of

# ISO 639-1, all codes.
_ALL = (
    "aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo "
    "es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka "
    "kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng "
    "nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg si sk sl sm sn so sq sr ss st su "
    "sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu"
)
CODES = frozenset(_ALL.split())
_CODE_OF = {
    "english": "en", "spanish": "es", "french": "fr", "german": "de", "portuguese": "pt", "italian": "it",
    "dutch": "nl",
}  # fmt: skip
_OTHER = "other"  # letters that are not Latin
_ALONE, _WORDS = 25, 120  # a text of so many words is recognised by itself; shorter ones are joined to so many
_AGREE = 0.9  # share of the recognised pieces that must be of one language
_PIECES = 200  # pieces that are read at most


def recognised(texts: Iterable[str]) -> str | None:
    """Return the language that texts look like.

    Returns:
        One of seven codes of ISO 639-1, "other" for letters that are not Latin, or None: not recognised, or mixed.
    """
    counts = Counter(map(language_of, islice(_pieces(texts), _PIECES)))
    known = [(name, n) for name, n in counts.most_common() if name is not None]
    if not known or 2 * counts[None] > counts.total() or known[0][1] < _AGREE * sum(n for _, n in known):
        return None
    return _CODE_OF.get(str(known[0][0]), _OTHER)


def _pieces(texts: Iterable[str]) -> Iterator[str]:
    """Yield texts that are long enough to be recognised by themselves, and shorter ones joined."""
    short: list[str] = []
    words = letters = 0
    for text in texts:
        own = len(text.split())
        if own >= _ALONE or len(text) > 20 * _ALONE:  # a language without spaces has few words
            yield text
            continue
        short.append(text)
        words, letters = words + own, letters + len(text)
        if words >= _WORDS or letters > 20 * _WORDS:
            yield " ".join(short)
            short, words, letters = [], 0, 0
    if short:
        yield " ".join(short)


def contradicts(stated: str, seen: str | None) -> bool:
    """Return whether texts that look like one language cannot be of the stated one.

    Related languages look alike to the recogniser, so that only clear cases count: a language that it knows was stated
    and another one is seen, the letters are not Latin where they must be, or the texts look English.

    Args:
        stated: ISO 639 code; "" where none is stated.
        seen: `recognised`.
    """
    if not stated or seen is None or stated == seen:
        return False
    if stated in _CODE_OF.values():
        return True
    return seen == "en" and stated in CODES
