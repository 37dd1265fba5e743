"""People's ratings of synthetic notes are shown in reports, and nothing else of their file is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from hf_synth.errors import RowError
from hf_synth.reports.page import markdown, page
from hf_synth.reports.realism import read_realism, realism_facts, realism_section

FOUND = {
    "n": 1_200, "reviewers": 1, "plausibility_mean": 3.75, "plausibility_ci95": [3.4, 4.1], "taken_for_real": 0.4,
    "taken_for_real_ci95": [0.25, 0.56], "real_taken_for_real": 0.9, "told_apart": 0.75, "told_apart_ci95": [0.6, 0.9],
}  # fmt: skip


def test_the_section_holds_each_figure_with_its_interval_and_the_number_of_notes() -> None:
    section = realism_section(FOUND, "`synthetic/`")
    assert section is not None
    assert "1,200 synthetic notes of `synthetic/`, mixed with real ones, were looked at by 1 reviewer." in section.text
    for text in (markdown("x", [section]), page("x", [section])):
        for figure in ("3.8 (3.4-4.1)", "0.40 (0.25-0.56)", "0.75 (0.60-0.90)", "0.90", "1,200"):
            assert figure in text


@pytest.mark.parametrize("broken", [None, [], {}, {"n": 3}, FOUND | {"n": 0}, FOUND | {"reviewers": True}, "<script>"])
def test_what_is_not_in_its_form_is_left_out(broken: object) -> None:
    assert realism_section(broken) is None


def test_no_text_of_the_file_is_shown() -> None:
    hostile = FOUND | {"plausibility_mean": "<script>", "told_apart": 7, "other": "<script>"}
    assert [row["value"] for row in realism_facts(hostile)["realism"]] == ["0.40 (0.25-0.56)", "0.90"]


def test_the_file_is_read_from_the_folder_of_the_notes(tmp_path: Path) -> None:
    assert read_realism(tmp_path) is None
    (tmp_path / "realism.json").write_text(json.dumps(FOUND), encoding="utf-8")
    assert read_realism(tmp_path) == FOUND
    (tmp_path / "realism.json").write_text("{", encoding="utf-8")
    with pytest.raises(RowError, match="realism.json: is broken"):
        read_realism(tmp_path)
