"""How many examples a property is tried on: few by default, many under `pytest --hypothesis-profile slow`."""

from __future__ import annotations

from typing import Any

from hypothesis import settings


def examples(default: int, slow: int = 1000, **more: Any) -> settings:
    """Return settings for `default` examples, or for `slow` under the profile of that name."""
    many = settings.get_current_profile_name() == "slow"
    return settings(max_examples=slow if many else default, deadline=None, **more)
