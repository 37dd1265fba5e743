"""A card names the language that the task states, and texts of another one stop the release."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from huggingface_hub.repocard import DatasetCard, ModelCard
from support.publishing_rows import OPEN, gold_rows, synthetic_rows

from hf_synth.errors import TaskError
from hf_synth.publishing.card_checks import check_card, language_problem
from hf_synth.publishing.card_models import model_card_facts
from hf_synth.publishing.card_text import dataset_card, model_card
from hf_synth.publishing.cards import dataset_facts
from hf_synth.publishing.languages import contradicts, recognised
from hf_synth.publishing.publishing import publish_dataset
from hf_synth.task.scripts import list_tasks, load_task
from hf_synth.task.task import Task

TEXTS = {
    "en": "The patient was seen for the pain and he is not on any of the drugs that his doctor has named for it.",
    "de": "Der Patient wurde mit Schmerzen in der Klinik gesehen und ist nicht auf eine Therapie eingestellt.",
    "fr": "Le patient est venu avec une douleur dans la poitrine et il est sans aucun traitement pour cette douleur.",
    "es": "El paciente refiere dolor en la pierna y no tiene fiebre, pero fue visto por su médico con los análisis.",
    "sv": "Patienten kom in med smärta i bröstet och har inte haft feber, han bor ensam och mår bra nu hemma.",
    "other": "患者因胸痛入院，无发热，无咳嗽，血压正常，给予阿司匹林治疗，次日出院，嘱其随访，没有不适，继续服药。" * 3,
}


def rows_in(language: str, task: Task = OPEN) -> Dataset:
    rows = synthetic_rows(task, 12)
    texts = [t and f"{TEXTS[language]} {i}" for i, t in enumerate(rows["text"])]
    return rows.remove_columns("text").add_column("text", texts)


@pytest.mark.parametrize("language", ["en", "de", "fr", "es", "other"])
def test_texts_are_recognised(language: str) -> None:
    assert recognised([TEXTS[language]] * 8) == language
    assert recognised(TEXTS[language][i : i + 70] for i in range(0, len(TEXTS[language]), 70)) in (language, None)
    assert recognised([]) is None
    assert recognised(["pain 3 / 10"] * 100) is None  # no function words
    assert recognised([2 * TEXTS["en"], 2 * TEXTS["de"]] * 30) is None  # mixed


def test_only_a_clear_case_contradicts() -> None:
    assert contradicts("de", "en")
    assert contradicts("sv", "en")
    assert contradicts("en", "other")
    assert not contradicts("en", "en")
    assert not contradicts("ca", "es")  # Catalan looks like Spanish to the recogniser
    assert not contradicts("zh", "other")
    assert not contradicts("", "de")
    assert not contradicts("de", None)


def test_a_card_names_the_language_of_its_task_and_no_other() -> None:
    for stated in ("de", "en", ""):
        task = replace(OPEN, language=stated)
        card = dataset_card(dataset_facts(task, rows_in("de"), repo_id="o/x"))
        assert DatasetCard(card).data.language == (stated or None)
        assert check_card(card) == []
        model = model_card(model_card_facts(task, {"access": "open"}, None, repo_id="o/m"))
        assert ModelCard(model).data.language == (stated or None)
        assert check_card(model) == []
    assert "not stated by the task; their frequent words look like `de`" in card
    assert "not stated by the task.\n" in dataset_card(dataset_facts(OPEN, rows_in("sv"), repo_id="o/x"))


def test_a_card_in_another_language_is_refused() -> None:
    card = dataset_card(dataset_facts(replace(OPEN, language="de"), rows_in("de"), repo_id="o/x"))
    assert language_problem(card, "de", [TEXTS["de"]] * 9) == ""
    assert language_problem(card, "en") == "the header's language is 'de', the task states 'en'"
    assert "missing" in language_problem(card.replace("language: de\n", ""), "de")
    assert "look like 'en'" in language_problem(card, "de", [TEXTS["en"]] * 9)
    assert "is no ISO 639 code" in check_card(card.replace("language: de", "language: qq"))[0]


def test_texts_in_another_language_than_stated_do_not_leave(tmp_path: Path) -> None:
    def ask(stated: str, texts: str) -> Any:
        task = replace(OPEN, language=stated)
        told: dict[str, Any] = {"gold": gold_rows(task), "push": False, "export_dir": tmp_path / "x"}
        return publish_dataset(task, rows_in(texts, task), "o/x", **told)

    refused = ask("en", "de")
    assert not refused.allowed
    assert "the task states language 'en', but its texts look like 'de'" in refused.reasons[0]
    assert not (tmp_path / "x").exists()
    assert "letters that are not Latin" in ask("en", "other").reasons[0]
    for stated, texts in (("de", "de"), ("", "de"), ("sv", "sv")):
        assert ask(stated, texts).allowed


def test_a_task_states_a_code_and_keeps_it(tmp_path: Path) -> None:
    from hf_synth.task.folders import write_stage

    for wrong in ("english", "EN", "e", "de,en"):
        with pytest.raises(TaskError, match="ISO 639"):
            replace(OPEN, language=wrong)
    german = replace(OPEN, language="de")
    write_stage(german, gold_rows(german), tmp_path / "gold", stage="gold")
    assert load_task(tmp_path / "gold").language == "de"
    assert german.fingerprint() == OPEN.fingerprint(), "no answer is asked for again"
    of_ones_own = {"esophagitis", "fall_risk"}  # a site's own notes, or a Portuguese data set
    assert {task.name for task in list_tasks() if task.language != "en"} == of_ones_own
