"""Rewording of texts: how the simulator says what an exemplar says in other words, and in another order.

English phrases are replaced by a table. A text of any language is then cut into fragments of a few words, which are put
in another order, as in a note of keywords: sentences of gold as they stand would be copies of it. This is no language
model.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Sequence

# Phrases that may stand for each other, in lower case; a phrase is replaced by another one of its line.
_EQUAL = """
i am = i'm
i have been = i've been
i will = i'll
it is = it's
that is = that's
there is = there's
she is = she's
he is = he's
cannot = can't = can not
do not = don't
does not = doesn't
did not = didn't
will not = won't
have not = haven't
has not = hasn't
is not = isn't
could not = couldn't
can i = could i = may i = am i allowed to
can you = could you = would you = are you able to
should i = do i need to = ought i to
do i need to = must i = should i
how do i = how can i = how should i = what do i do to
where do i = where can i = where should i
who do i = whom should i = whom do i
how long = for how long
do you have = is there
is it ok = is it all right = is it fine
is it normal = is it usual = is it to be expected
i would like = i'd like = i want = i am hoping
he wants = he would like
she wants = she would like
please send = kindly send = please forward = could you send
please = kindly = if you can, please
thank you = thanks = many thanks
the doctor = my doctor = the physician
the nurse = your nurse = a nurse
my husband = my partner = my other half
my wife = my partner = my other half
my mother = my mom = my mum
my father = my dad
my son = my boy = our son
my daughter = my girl = our daughter
my baby = our baby = the baby
last night = yesterday evening
right now = at the moment
for two weeks = for a fortnight = for fourteen days
two weeks = a fortnight = fourteen days
two months = eight weeks = a couple of months
two days = 48 hours = a couple of days
three days = a few days = 72 hours
an hour ago = one hour ago = sixty minutes ago
half an hour = thirty minutes
every day = each day = daily
every night = each night = nightly
every morning = each morning = most mornings
because of = due to = on account of
but = yet
so that = in order that
only = just = merely
a bit = slightly = a little
a little = slightly = a bit
a lot = a great deal = plenty
maybe = perhaps = possibly
again = once more
anything else = something more = anything more
something = anything
everything = all of it
everyone = everybody
somebody = someone = anyone
at all = in the least
worse = more severe = less good
sorry = my apologies
as my = for my
need to = have to
very = really
my job = my work
the form = the document
a form = a document
forms = documents
all my records = my whole file
start the = begin the
started taking = began to take
a letter = a note
the letter = the note
a copy = a duplicate
shaking = trembling
confused = muddled
tells me = says to me
and now = and by now
the kids = the children
kids = children
dad = father = my father
mom = mother = mum
grandma = my grandmother = granny
scared = afraid
bad = awful = nasty
terrible = dreadful = awful
normal = usual = typical
pain = ache = soreness
hurts = aches = is painful
headache = pain in my head
swollen = puffy
dizzy = light-headed = giddy
exhausted = worn out = drained
itchy = itching
rash = skin rash = breakout
belly = stomach = abdomen = tummy
throwing up = vomiting
vomited = threw up
nausea = queasiness = feeling sick
out of breath = short of breath = breathless
fever = high temperature
sleepy = drowsy
bleeding = losing blood
tablets = pills
tablet = pill
pill = tablet
pills = tablets
medication = medicine
antibiotic = course of antibiotics
cream = ointment
shot = injection = jab
shots = injections = jabs
injection = shot
blood thinner = anticoagulant
blood pressure = pressure
sugar = glucose
the er = the emergency room = the emergency department
appointment = visit = booking
visit = appointment
cancelled = called off
booked = scheduled
refill = repeat prescription
renew = refill
prescription = script
referral = letter of referral
bill = invoice
insurance = insurer = health plan
results = findings
sent = forwarded
the app = the portal = your app
online = on the web
pharmacy = drugstore = chemist
clinic = practice = office
lab = laboratory
lab report = laboratory report
hospital = medical center
kindergarten = preschool
changed = switched = altered
happen = occur
needs = requires
wondering = asking myself
worry = be concerned
safe = harmless
strange = odd = peculiar
huge = very big
several = a number of
many = a lot of
while = whilst
also = in addition
patient reports = patient describes = patient mentions
reports = describes = mentions
denies = reports no = has no
presents with = comes in with
was seen = was looked at
continues to = goes on to
improved = got better
remains = stays
approximately = about = roughly
"""
_PHRASES: dict[str, tuple[str, ...]] = {}
for _line in _EQUAL.strip().splitlines():
    _own = [p.strip() for p in _line.split(" = ")]
    for _phrase in _own:
        _PHRASES.setdefault(_phrase, tuple(p for p in _own if p != _phrase))
_ANY = re.compile(
    r"(?<![\w'-])(?:" + "|".join(sorted(map(re.escape, _PHRASES), key=len, reverse=True)) + r")(?![\w'-])", re.I
)
_FILLERS = ("again", "so", "then", "now", "also", "still", "here", "mostly", "perhaps", "today", "overall", "indeed")
_USED = 0.9  # share of the phrases of a text that are replaced
_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")  # a word of letters
# Words of a text that may follow each other in a note as they do in the text: so many, or such a share of them if that
# is more. Every such word is linked to gold by a skip-gram; with more, the note would echo its exemplar.
_LINKED, _LINKED_SHARE = 3, 0.2
_KEYWORD = 4  # letters of a word that stands alone, unless it is an abbreviation
_MOST, _ALL = 17, 8  # fragments that are taken of one text; so few are all taken, and of more, three in four
_SHORT = 8  # words of a note below which fillers are added: a short text can be said in few ways
_NOUNS = 0.15  # share of words with a capital letter inside sentences, from which on a language writes nouns so
_MOST_LETTERS = 5  # of a filler


def reword(rng: random.Random, text: str) -> str:
    """Return a text with most of its phrases replaced."""

    def other(match: re.Match[str]) -> str:
        phrase = match[0]
        others = _PHRASES.get(phrase.casefold())
        if others is None or rng.random() >= _USED:  # a few letters fold to what the table does not have
            return phrase
        new = re.sub(r"\bi\b", "I", rng.choice(others))
        first = phrase[0].isupper() and (phrase.split()[0] != "I" or match.start() == 0)
        return new[0].upper() + new[1:] if first else new

    return _ANY.sub(other, text.replace("’", "'"))


def in_fragments(rng: random.Random, texts: Sequence[str], shown: Sequence[str]) -> str:
    """Return a note of keywords: fragments of one to three words of some texts, each in the reverse order of its text.

    Numbers are left out, and so are words with a capital letter inside a sentence, which may be names, unless the
    language writes nouns so.

    Args:
        texts: what the note is made of, one or a few.
        shown: all texts of the prompt, whose capital letters and short words are counted.
    """
    names = not _writes_nouns_large(shown)
    pieces = [piece for text in texts for piece in _fragments(rng, text, names)]
    if not pieces:
        return " ".join(" ".join(texts).split())
    for _ in range(rng.randint(1, 3) if sum(len(piece.split()) for piece in pieces) < _SHORT else 0):
        at = rng.randrange(len(pieces))
        pieces[at] = f"{rng.choice(fillers_of(shown))} {pieces[at]}"
    sentences = []
    while pieces:
        n = rng.randint(2, 4)
        sentence, pieces = ", ".join(pieces[:n]), pieces[n:]
        sentences.append(f"{sentence[0].upper()}{sentence[1:]}.")
    return " ".join(sentences)


def _fragments(rng: random.Random, text: str, names: bool) -> list[str]:
    """Cut a text into fragments, drop some, and return the others in reverse order.

    Args:
        names: whether words with a capital letter inside a sentence are left out.
    """
    clauses = _clauses(text, names)
    total = sum(map(len, clauses))
    left = max(_LINKED, int(_LINKED_SHARE * total))
    found: list[list[str]] = []
    for words in clauses:
        while words:
            longer = left > 0 and rng.random() < 2 * left / max(1, total)
            n = min(rng.randint(2, 3) if longer else 1, left + 1, len(words))
            found.append(words[:n])
            words, left, total = words[n:], left - (n - 1), total - n
    telling = [words for words in found if len(words) > 1 or len(words[0]) >= _KEYWORD or words[0].isupper()] or found
    wanted = len(telling) if len(telling) <= _ALL else min(_MOST, round(0.75 * len(telling)))
    return [" ".join(telling[i]) for i in sorted(rng.sample(range(len(telling)), wanted), reverse=True)]


def _clauses(text: str, names: bool) -> list[list[str]]:
    """Return the words of each clause of a text, without numbers and, where `names`, without what may be a name."""
    clauses = []
    for sentence in sentences_of(text):
        words: list[str] = []
        for i, part in enumerate(sentence.split()):
            word = _plain_word(part)
            large = word[:1].isupper() and not (word.isupper() and len(word) > 1)
            if word and not (names and i and large):
                words.append(word[0].lower() + word[1:] if names and large else word)
            if part[-1] in ",;:.!?)":
                clauses.append(words)
                words = []
        clauses.append(words)
    return [words for words in clauses if words]


def _plain_word(word: str) -> str:
    """Return a word without the punctuation around it; "" for a number."""
    match = _WORD.search(word)
    return match[0] if match and not any(c.isdigit() for c in word) else ""


def _writes_nouns_large(texts: Sequence[str]) -> bool:
    """Return whether many words inside sentences have a capital letter, as in German."""
    inside = [w for text in texts for s in sentences_of(text) for w in _WORD.findall(s)[1:] if not w.isupper()]
    return bool(sum(w[0].isupper() for w in inside) > _NOUNS * len(inside) > 0)


def fillers_of(texts: Sequence[str]) -> tuple[str, ...]:
    """Return short words that several texts have, or else their short words: fillers in their own language."""
    own = [{w for w in _WORD.findall(text) if len(w) <= _MOST_LETTERS and w.islower()} for text in texts]
    counts = Counter(word for words in own for word in words)
    shared = sorted(word for word, n in counts.items() if n > 1)
    return tuple(shared if len(shared) > 2 else sorted(counts)) or _FILLERS


def looks_english(text: str) -> bool:
    """Return whether a text has frequent short words of English."""
    return len(_ENGLISH.findall(text)) > 0.04 * len(text.split())


_ENGLISH = re.compile(r"(?i)\b(?:the|and|of|with|was|is|has|for|to|my|she|not|this)\b")


def with_fillers(rng: random.Random, text: str, span: str = "", fillers: Sequence[str] = _FILLERS) -> str:
    """Insert a filler between every few words of a longer text, outside `span`, so that no long copy stays."""
    before, match, after = text.partition(span) if span else (text, "", "")
    if match:
        parts = (with_fillers(rng, part, "", fillers) for part in (before, after))
        return match.join(parts)
    words = re.findall(r"\S+\s*", text)
    if len(words) <= 6:
        return text
    filled, left = "", rng.randint(2, 5)
    for word in words:
        if not left:
            filled, left = f"{filled}{rng.choice(fillers)} ", rng.randint(3, 5)
        filled, left = filled + word, left - 1
    return re.match(r"\s*", text)[0] + filled  # type: ignore[index]


def sentences_of(text: str) -> list[str]:
    """Split a text into its sentences and lines."""
    return [s for s in re.split(r"(?<=[.!?;])\s+|\n+", text) if s.strip()]
