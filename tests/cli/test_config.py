"""Configuration files: what is read, what is refused, and that what is written is read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hf_synth.cli.config import read_config, write_config
from hf_synth.errors import UsageError


def test_a_file_is_read_by_key_and_table(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_bytes(
        b'\xef\xbb\xbftask = "clinic"\nbase_url = "http://127.0.0.1:1/v1"\n[hub.serve]\nport = 1\n[train]\n'
    )
    assert read_config(file) == {
        "task": "clinic",
        "base-url": "http://127.0.0.1:1/v1",
        "hub": {"serve": {"port": 1}},
        "train": {},
    }


PLAIN = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), st.text(max_size=8))


@settings(max_examples=30, deadline=None)
@given(
    st.dictionaries(st.text('abc-_ ."é', min_size=1, max_size=4), PLAIN | st.lists(PLAIN, max_size=3), max_size=4),
    st.dictionaries(
        st.sampled_from(["train", "hub", "new-task"]),
        st.dictionaries(st.text("ab", min_size=1, max_size=2), PLAIN, max_size=2),
        max_size=2,
    ),
)
def test_what_is_written_is_read_back(tmp_path_factory: Any, values: dict[str, Any], tables: dict[str, Any]) -> None:
    file = tmp_path_factory.mktemp("config") / "c.toml"
    normal = {name.replace("_", "-"): value for name, value in values.items()} | tables
    write_config(file, normal, comment="a run\nof today")
    assert read_config(file) == normal
    assert file.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("task = clinic", "is no TOML: invalid value (at line 1, column 8)"),
        ("a = 1\na = 2", "is no TOML: cannot overwrite a value"),
        ('token = "abc"', "line 1: token would put a secret into a file"),
        ('\n[publish]\nhf_token = "abc"', "line 3: publish.hf-token would"),
        ('api-key = "abc"', "api-key would put a secret"),
        ('llm = "hf_' + "a" * 30 + '"', "llm would put a secret"),
        ('base-url = "https://me:pass@host/v1"', "base-url would"),
        ('base-url = "https://host/v1?api-key=x"', "base-url would"),
        ('sampling = ["api_key=x"]', "sampling would"),
        ("a = " + "[" * 5000 + "]" * 5000, "nested too deeply"),
    ],
)
def test_what_is_refused_is_one_sentence(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "bad.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as caught:
        read_config(file)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "aaaa" not in str(caught.value)
    assert "pass@" not in str(caught.value)


def test_what_only_looks_like_a_secret_is_taken(tmp_path: Path) -> None:
    values = {
        "max-tokens": 900,
        "token-file": "t",
        "sampling": ["seed=1"],
        "set": ["label_smoothing_factor=0.1"],
        "meaning": ["key=opens"],
    }
    assert read_config(write_config(tmp_path / "c.toml", values)) == values


@pytest.mark.parametrize("value", [{"token": "x"}, {"a": object()}, {"a": "\ud800"}, {"train": {"api_key": "x"}}])
def test_what_cannot_be_written_leaves_no_file(tmp_path: Path, value: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        write_config(tmp_path / "c.toml", value)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_a_folder_and_bytes(tmp_path: Path) -> None:
    for path, says in (
        (tmp_path / "no.toml", "there is no configuration file"),
        (tmp_path, "is a directory"),
        (Path("/dev/zero"), "larger than 1 MB"),
    ):
        with pytest.raises(UsageError, match=says):
            read_config(path)
    (tmp_path / "b.toml").write_bytes(b"a = '\xff'")
    with pytest.raises(UsageError, match="is not UTF-8"):
        read_config(tmp_path / "b.toml")
