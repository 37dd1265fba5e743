"""Rewording of English sentences by a table of phrases: how the simulator says what an exemplar says in other words.

It is a table and no language model: what it changes keeps its meaning, and what it does not know stays as it is.
"""

from __future__ import annotations

import random
import re

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


def reword(rng: random.Random, text: str) -> tuple[str, float]:
    """Return a text in other words.

    Returns:
        The text, and the share of its words before that were replaced, 0 to 1.
    """
    replaced = 0

    def other(match: re.Match[str]) -> str:
        nonlocal replaced
        phrase = match[0]
        others = _PHRASES.get(phrase.casefold())
        if others is None or rng.random() >= _USED:  # a few letters fold to what the table does not have
            return phrase
        replaced += len(phrase.split())
        new = re.sub(r"\bi\b", "I", rng.choice(others))
        first = phrase[0].isupper() and (phrase.split()[0] != "I" or match.start() == 0)
        return new[0].upper() + new[1:] if first else new

    plain = text.replace("’", "'")
    new = _ANY.sub(other, plain)
    return new, replaced / max(1, len(plain.split()))


def with_fillers(rng: random.Random, text: str, span: str = "") -> str:
    """Insert a filler between every few words of a longer text, outside `span`, so that no long copy stays."""
    before, match, after = text.partition(span) if span else (text, "", "")
    if match:
        return f"{with_fillers(rng, before)}{match}{with_fillers(rng, after)}"
    words = re.findall(r"\S+\s*", text)
    if len(words) <= 6:
        return text
    filled, left = "", rng.randint(2, 5)
    for word in words:
        if not left:
            filled, left = f"{filled}{rng.choice(_FILLERS)} ", rng.randint(3, 5)
        filled, left = filled + word, left - 1
    return re.match(r"\s*", text)[0] + filled  # type: ignore[index]


def sentences_of(text: str) -> list[str]:
    """Split a text into its sentences and lines."""
    return [s for s in re.split(r"(?<=[.!?;])\s+|\n+", text) if s.strip()]
