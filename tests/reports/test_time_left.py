"""The time left comes from the steps that were made, and never grows while a step is under way."""

from __future__ import annotations

import random

import pytest

from hf_synth.reports.time_left import Estimate, TimeLeft


def left(one: TimeLeft, total: float, now: float, inside: Estimate | None = None) -> float | None:
    found = one.estimate(total, now, inside)
    return None if found is None else found.seconds


def test_nothing_is_said_of_fewer_than_three_steps() -> None:
    one = TimeLeft(0, 0.0)
    found = []
    for step in range(1, 5):
        one.step(step, 10.0 * step)
        one.step(step, 10.0 * step + 1)  # no step: the count is as it was
        found.append(left(one, 10, 10.0 * step + 1))
    assert found == [None, None, pytest.approx(69.0), pytest.approx(59.0)]


def test_it_goes_down_between_steps_and_follows_a_new_pace() -> None:
    one, now, rng = TimeLeft(0, 0.0), 0.0, random.Random(1)
    for step in range(1, 300):
        seconds = rng.uniform(5, 15)
        seen = [left(one, 1_000, now + seconds * share / 20) for share in range(20)]
        known = [seconds for seconds in seen if seconds is not None]
        assert known == sorted(known, reverse=True), "within a step"
        now += seconds
        one.step(step, now)
    assert left(one, 1_000, now) == pytest.approx(7_010, rel=0.1)
    for step in range(300, 600):
        now += 1
        one.step(step, now)
    assert 400 < (left(one, 1_000, now) or 0) < 1_000, "ten times as fast as before"


def test_what_came_before_took_no_time() -> None:
    one = TimeLeft(0, 0.0)
    for step in range(1, 501):
        one.step(step, 0.001 * step)
    one.restart(500, 1.0)
    assert left(one, 506, 30.0) is None
    for step in range(501, 504):
        one.step(step, 1.0 + 10 * (step - 500))
    assert left(one, 506, 31.0) == pytest.approx(30)
    one.step(100, 40.0)  # a smaller count begins anew
    assert left(one, 506, 60.0) is None


def test_what_is_counted_inside_a_unit_counts() -> None:
    one = TimeLeft(0, 0.0)
    assert left(one, 4, 30.0) is None
    assert left(one, 4, 30.0, inside=Estimate(10, 40)) == pytest.approx(10 + 3 * 40)
    assert left(one, 4, 35.0) == pytest.approx(160 - 35), "between two stages inside"
    one.step(1, 50.0)
    assert left(one, 4, 50.0) == pytest.approx(150), "units take as long as the first one did"
    assert left(one, 4, 60.0, inside=Estimate(30, 90)) == pytest.approx(30 + 2 * 50)
    one.step(4, 200.0)
    assert left(one, 4, 200.0) == 0


def test_a_unit_without_anything_inside_is_a_step() -> None:
    one = TimeLeft(0, 0.0)
    one.step(1, 50.0)
    assert left(one, 4, 50.0) is None
    one.step(1.5, 50.5)
    one.step(2, 52.0)
    assert left(one, 4, 52.0) == pytest.approx(52, rel=0.01), "two more of 26 s on average"
