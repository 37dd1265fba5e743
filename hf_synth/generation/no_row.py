"""Why no row came of answers, and what to do about it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from hf_synth.llm.replies import advice_on
from hf_synth.task.columns import REASONS

_LOOK = "look at an answer with `hf-synth journal show PATH KEY --text`"
_ADVICE = {  # what to do where all rows were rejected for a reason
    "empty": "a model that thinks may need a higher limit of tokens: raise max_tokens, then run the same command again",
    "thinking": "or have the model think less, where it can (e.g. --sampling reasoning_effort=low)",
    "truncated": "raise --max-tokens (max_tokens), or ask for fewer notes a call",
    "unparsable": f"the model does not keep to the form: {_LOOK}, or take another model",
    "unknown_label": f"the model gives other labels: {_LOOK}, or take another model",
    "refusal": "the endpoint declines these prompts: take another model, or a local one",
    "budget": "not one call fits into the budget: raise it",
}


def why_no_row(reasons: Sequence[str], failures: Mapping[str, int]) -> str:
    """Return the most frequent reason why answers gave no row, and what to do.

    Args:
        reasons: of each rejected row, a key of `REASONS`; at least one.
        failures: numbers of answers that did not come, by their code.
    """
    reason, count = Counter(reasons).most_common(1)[0]
    code = Counter(failures).most_common(1)[0][0] if failures else ""
    cause = f"no answer came ({code})" if reason == "llm_error" and code else REASONS[reason]
    advice = advice_on(code) if reason == "llm_error" else _ADVICE.get(reason, "")
    return f"{cause}, {count:,} of {len(reasons):,} times" + (f"; {advice}" if advice else "")
