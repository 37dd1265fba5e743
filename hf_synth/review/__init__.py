"""The review page: people look at notes one by one, on this machine; their decisions are the audited rows of `correct`.

session    which note is next, a decision, the figures, the table that `correct --audited` reads
sheets     which notes are asked for: a sample, the rows of a promise, a realism sheet
log        the file of one reviewer's decisions: each is on disk before the next note is shown
decisions  the state that follows from a file of decisions; what several reviewers agree on
agreement  Cohen's kappa with its interval
realism    the figures of a realism sheet
view       what a page shows
pages      the page as HTML
app        the ASGI app: who may ask, and what a request does
"""
