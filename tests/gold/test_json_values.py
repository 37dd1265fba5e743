"""JSON of any size, value by value."""

from __future__ import annotations

import gc
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hf_synth.errors import RowError
from hf_synth.gold import json_values
from hf_synth.gold.json_values import JsonValues, json_items

SECRET = "SECRET"
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@example([0.0, -1.5e-7, 12, True, None, "a\\u00e9"], 1, None)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(VALUES, max_size=5), st.integers(1, 9), st.sampled_from([None, 1]))
@example([0.5], 1, None)
@example([-1e-05, 12], 2, None)
def test_equal_to_json_whatever_is_read_at_a_time(tmp_path: Path, items: list[Any], chunk: int, indent: Any) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"x": [1], "data": items, "y": 2}, indent=indent), encoding="utf-8-sig")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_values, "_CHUNK", chunk)
        assert list(json_items(tmp_path / "a.json", "data.item")) == items


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ('{"data": ["SECRET"', "ends in the middle of a JSON value; is the file whole"),
        ('{"data": ["SECRET', "ends in the middle|is not JSON in UTF-8 from character 11 on"),
        ('{"data": ["SECRET" 3]}', "is not JSON in UTF-8 from character 20 on"),
        ('{"data": [NaN]}', "is not JSON in UTF-8 from character 11 on"),
        ('{"data": [1,]}', "is not JSON in UTF-8"),
        ('{"data": [01]}', "is not JSON in UTF-8"),
        ('{"data": [1]} SECRET', "is not JSON in UTF-8 from character 15 on"),
        ('{"data": [%s]}' % ("[" * 5_000), "is nested too deep"),
        ('{"data": [%s]}' % ("9" * 5_000), "is not JSON in UTF-8 from character 11 on"),
    ],
)  # fmt: skip
def test_what_is_no_json_is_named_by_its_place(tmp_path: Path, body: str, says: str) -> None:
    (tmp_path / "a.json").write_text(body)
    with pytest.raises(RowError, match=says) as caught:
        list(json_items(tmp_path / "a.json", "data.item"))
    assert SECRET not in str(caught.value)


def test_bytes_that_are_no_utf_8_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'{"data": ["caf\xe9"]}')
    with pytest.raises(RowError, match="is not JSON in UTF-8"):
        list(json_items(tmp_path / "a.json", "data.item"))


def test_another_kind_of_value_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": 3}')
    with JsonValues(tmp_path / "a.json") as values, pytest.raises(RowError, match=r"no JSON list \(\[...\]\) at char"):
        list(values.items())


def test_a_value_is_not_held_without_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "_CHUNK", 100)
    monkeypatch.setattr(json_values, "_LONGEST", 1_000)
    (tmp_path / "a.json").write_text(json.dumps({"data": ["short", "x" * 5_000]}))
    items = json_items(tmp_path / "a.json", "data.item")
    assert next(items) == "short"
    with pytest.raises(RowError, match="holds a value of more than"):
        next(items)


def test_the_collector_of_garbage_is_on_again(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"data": [1, oops]}')
    with pytest.raises(RowError):
        list(json_items(tmp_path / "a.json", "data.item"))
    assert gc.isenabled()
