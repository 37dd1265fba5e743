"""Cards say what the columns say, pass their own check, and never show gold."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from datasets import Dataset
from huggingface_hub import parse_eval_result_entries
from huggingface_hub.repocard import DatasetCard, ModelCard

from hf_synth.correction.policy import Policy
from hf_synth.errors import PublishError
from hf_synth.evaluation.evaluation import Scores
from hf_synth.llm.gguf_files import PACKAGED
from hf_synth.privacy.audit import audit
from hf_synth.privacy.membership import Exposure, compare_losses
from hf_synth.publishing.card_checks import check_card
from hf_synth.publishing.card_models import model_card_facts
from hf_synth.publishing.card_text import _table, dataset_card, eval_results, model_card, plain
from hf_synth.publishing.cards import Recorded, dataset_facts, doubts_of
from hf_synth.task.scripts import list_tasks
from hf_synth.task.task import Task

CANARY = "zebrafinch-7741-quokka"
GOLDEN = Path(__file__).parent / "golden"
GRADES = ("grade_0", "grade_1", "grade_2", "grade_3")
CLINIC = replace(Task.from_columns(
    "clinic", text_columns="text", label_column="label", labels=GRADES, access="open", license="Apache-2.0",
    label_meanings=("none", "seen only", "eating altered", "tube | admission"),
    description="Artificial notes graded 0-3.", language="en", citation="The artificial clinic.", source_url="https://example.org/clinic",
), script="clinic")  # fmt: skip
SCORES = Scores(
    "clinic", 200, {"macro_f1": 0.7123, "accuracy": 0.8, "ece": 0.02},
    {"macro_f1": (0.65, 0.78), "accuracy": (0.74, 0.86), "ece": (0.01, 0.04)},
    {g: {"precision": 0.5, "recall": 0.25, "f1": 0.3333, "support": 50} for g in GRADES}, [[1] * 4] * 4,
    dataset={"groups": 31},
)  # fmt: skip
TRAINED = {
    "access": "open", "base_model": "emilyalsentzer/Bio_ClinicalBERT", "base_revision": "abc123",
    "rows": {"gold": 200, "kept": 310, "relabelled": 90}, "row_digests": ["d" * 64],
    "hyperparameters": {"learning_rate": 3e-05, "max_steps": -1},
}  # fmt: skip
POLICY = Policy(
    "posterior", 4, 1.25,
    noise=((0.9, 0.1, 0.0, 0.0), (0.2, 0.7, 0.1, 0.0), (0.0, 0.1, 0.8, 0.1), (0.0, 0.0, 0.3, 0.7)),
    figures={"corrector_accuracy_on_held_out_gold": 0.8125, "generator_accuracy_estimated": 0.775, "gold_rows": 200,
             "generator_accuracy_assumes": "errors are independent given the truth", "auto_scores": {"none": 0.5},
             "gold_against_synthetic_auc": float("nan")},
    warnings=("gold has few rows of grade_3",),
)  # fmt: skip


def rows_of(task: Task, *, corrected: bool = True) -> Dataset:
    def row(i: int, text: str | None, llm: int | None, label: int | None, status: str, reason: str) -> dict[str, Any]:
        made = task.gold_row(f"s{i}", None, label, text)  # type: ignore[arg-type]
        made |= {
            "source": "synthetic",
            "seed_ids": [f"g{i % 3}"],
            "fold": i % 3,
            "prompt_sha256": f"p{i % 2}",
            "generator": "simulator",
        }
        made |= {
            "answer_code": "stop",
            "sampling": "{}",
            "created": "",
            "prompt_tokens": 90,
            "completion_tokens": 70,
            "cost_usd": None,
        }
        made |= {"journal_key": f"k{i}", "llm_label": llm, "label_status": status, "reason": reason}
        probs = [0.7 if k == (label or 0) else 0.1 for k in range(4)]
        return made | {"label_probs": probs, "label_confidence": 0.7, "weight": 1.0}

    rows = [
        row(0, "Eats a regular | diet {{ odd }}; swallowing does not hurt.", 0, 0, "kept", "agrees"),
        row(1, "Soft foods for a week now, two shakes a day.", 1, 2, "relabelled", "posterior"),
        row(2, "Nobody could make sense\nof this one.", 3, 3, "dropped", "disagrees"),
        row(3, None, 2, None, "rejected", "refusal"),
        row(4, "Purees only, three kilograms lost.", 2, 2, "kept", "agrees"),
        row(5, "Call 617-555-0199 about the feeding tube.", 3, 3, "kept", "agrees"),
    ]
    made = Dataset.from_list(rows, features=task.corrected_features())
    return made if corrected else made.remove_columns(["label_probs", "label_confidence", "weight"])


def gold_of(task: Task) -> Dataset:
    texts = [f"{CANARY} a gold note, number {i}, that goes on for longer than eight words" for i in range(4)]
    return Dataset.from_list(
        [task.gold_row(f"g{i}", None, i, t) for i, t in enumerate(texts)], features=task.gold_features()
    )


def full_facts(task: Task = CLINIC) -> dict[str, Any]:
    rows, gold = rows_of(task), gold_of(task)
    return dataset_facts(
        task,
        rows,
        scores={"gold_200": SCORES},
        findings=audit(task, rows, gold=gold),
        repo_id="demo/synth-notes",
        policy=POLICY,
    )


def golden(name: str, text: str) -> None:
    if os.environ.get("UPDATE_GOLDEN") == "1":
        (GOLDEN / name).write_text(text, encoding="utf-8")
    assert text == (GOLDEN / name).read_text(encoding="utf-8"), f"UPDATE_GOLDEN=1 rewrites {name}, if that is meant"


def test_dataset_card_is_the_golden_one() -> None:
    golden("dataset_card.md", dataset_card(full_facts() | {"version": "0.0.0"}))


def test_model_card_is_the_golden_one() -> None:
    facts = model_card_facts(
        CLINIC, TRAINED, SCORES, repo_id="demo/grader", architecture="BertForSequenceClassification"
    )
    golden("model_card.md", model_card(facts | {"version": "0.0.0"}))


def test_model_card_with_tests_of_memorisation_is_the_golden_one() -> None:
    """Membership and exposure have the words of the code that measures them."""
    members, others = np.linspace(0, 1, 200), np.linspace(0.2, 1.4, 200)
    tested = compare_losses(members, others)
    exposed = Exposure((4.0, 4.0, 4.0, 3.5), most=4.0, expected=1.2)
    tests = {"membership": tested.note, "exposure": str(exposed)}
    facts = model_card_facts(CLINIC, TRAINED, SCORES, repo_id="demo/grader", **tests)
    golden("model_card_tested.md", model_card(facts | {"version": "0.0.0"}))


def test_facts_are_counted_from_the_columns() -> None:
    facts = full_facts()
    assert [(c["name"], c["rows"]) for c in facts["configs"]] == [("corrected", 3), ("raw", 4)]
    assert facts["prompts"] == 2
    assert facts["exemplars"] == 3
    assert [row["raw"] for row in facts["labels"]] == [1, 1, 1, 1]
    assert [row["corrected"] for row in facts["labels"]] == [1, 0, 2, 0]
    assert "3 kept, 1 relabelled, 1 dropped" in facts["correction"]
    assert "Rows withheld by it: 1." in facts["audited"]
    uncorrected = dataset_facts(CLINIC, rows_of(CLINIC, corrected=False))
    assert [c["name"] for c in uncorrected["configs"]] == ["raw"]


def test_the_header_is_what_the_hub_reads() -> None:
    card = DatasetCard(dataset_card(full_facts()))
    assert card.data.license == "apache-2.0"
    files = [{"split": "train", "path": "corrected/train-*.parquet"}]
    assert card.data.configs[0] == {"config_name": "corrected", "default": True, "data_files": files}
    assert {"synthetic", "clinical", "hf_synth", "simulated"} <= set(card.data.tags)
    model = ModelCard(model_card(model_card_facts(CLINIC, TRAINED, SCORES, repo_id="demo/grader")))
    assert model.data.base_model == "emilyalsentzer/Bio_ClinicalBERT"
    assert [(r.metric_type, r.metric_value) for r in model.data.eval_results][:2] == [("f1", 0.7123), ("accuracy", 0.8)]


def test_eval_results_can_be_parsed_by_the_hubs_own_reader() -> None:
    there = replace(CLINIC, source_url="https://huggingface.co/datasets/demo/clinic")
    facts = model_card_facts(there, TRAINED, SCORES, repo_id="demo/grader")
    (entry,) = parse_eval_result_entries(yaml.safe_load(eval_results(facts)))
    assert (entry.dataset_id, entry.task_id, entry.value) == ("demo/clinic", "default", 0.7123)
    assert "95% interval" in str(entry.notes)


def test_no_dataset_of_the_hub_is_made_up_for_gold_that_is_none() -> None:
    for url in ("", "https://physionet.org/content/mednli/1.0.0/", "https://huggingface.co/datasets"):
        facts = model_card_facts(replace(CLINIC, source_url=url), TRAINED, SCORES, repo_id="demo/grader")
        assert eval_results(facts) == ""
        told = ModelCard(model_card(facts)).data.eval_results
        assert {(r.dataset_type, r.dataset_name) for r in told} == {("unknown", "clinic: gold test rows, on no Hub")}


@pytest.mark.parametrize("access", ["restricted", "credentialed"])
def test_nothing_is_shown_of_what_is_not_open(access: Any) -> None:
    task = replace(CLINIC, access=access, name="own_notes", license="the owner's")
    facts = full_facts(task)
    card = dataset_card(facts)
    assert facts["examples"] == []
    assert "Purees" not in card
    assert check_card(card) == []
    header = DatasetCard(card).data
    assert header.license == "other"
    assert header.license_name == "the-owner-s"
    assert header.extra_gated_fields


def test_examples_are_kept_synthetic_rows_that_the_audit_let_pass() -> None:
    card = dataset_card(full_facts())
    assert "a regular | diet { { odd } };" in card  # no placeholder of a template
    assert "617-555" not in card  # refused by the audit
    assert "Nobody could" not in card  # dropped
    assert CANARY not in card
    gold_among = rows_of(CLINIC).remove_columns("source").add_column("source", ["gold"] * 6)
    assert dataset_facts(CLINIC, gold_among)["examples"] == []


def test_simulated_and_artificial_are_said_aloud() -> None:
    card = dataset_card(full_facts())
    assert "artificial clinic" in card
    assert "not a clinical benefit" in card
    own = replace(CLINIC, script=None)  # a task of one's own of that name
    real = dataset_card(dataset_facts(own, rows_of(CLINIC).remove_columns("generator")))
    assert "simulat" not in real


def test_the_file_that_wrote_the_rows_has_its_digest_and_licence() -> None:
    rows, known = rows_of(CLINIC).remove_columns("generator"), PACKAGED[0]
    made = rows.add_column("generator", [f"smollm2-135m-instruct@{known.sha256[:12]}"] * len(rows))
    card = dataset_card(dataset_facts(CLINIC, made))
    assert f"({known.licence}), a GGUF file with sha256 {known.sha256}" in card
    assert known.sha256 not in dataset_card(dataset_facts(CLINIC, rows_of(CLINIC)))


def test_a_forged_name_names_no_file() -> None:
    """The start of a digest behind any name would make the card state another model than the true one."""
    known, rows = PACKAGED[0], rows_of(CLINIC).remove_columns("generator")
    for name in (f"X@{known.sha256[:12]}", f"{known.answers_as}-2@{known.sha256[:12]}", known.answers_as.upper()):
        card = dataset_card(dataset_facts(CLINIC, rows.add_column("generator", [name] * len(rows))))
        assert f"`{name}` (" in card
        assert known.sha256 not in card
        assert known.repo_id not in card
    other = {"name": "mine@" + "a" * 12, "licence": "mit", "sha256": "a" * 64}
    made = rows.add_column("generator", [other["name"]] * len(rows))

    def card_with(weights: Any) -> str:
        return dataset_card(dataset_facts(CLINIC, made, recorded=Recorded({"weights": weights})))

    assert (
        f"`{other['name']}` is a GGUF file with sha256 {other['sha256']}; licence by its own header: mit."
        in card_with(other)
    )
    for wrong in ({"sha256": known.sha256}, {"sha256": "a" * 63}, {"name": "else@" + "a" * 12}):
        assert "is a GGUF file" not in card_with(other | wrong)
        assert known.sha256 not in card_with(other | wrong)
    assert "licence by its own header: unknown" in card_with(other | {"licence": "<b>mine</b>"})
    assert "GGUF" not in card_with("no mapping")


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (
            {"approved_by_hand": {"train.parquet": "d" * 64}},
            "edited these rows after they were written (train.parquet)",
        ),
        ({"follows_from_edited": {"train.parquet": "d" * 64}}, "rows that a person had edited (train.parquet)"),
        ({"follows_from_edited": {"synthetic": {"train.parquet": "d"}}}, "edited (synthetic/train.parquet)"),
        ({"approved_by_hand": {f"{CANARY}.parquet": "d"}}, "after they were written (a file)"),
    ],
)
def test_what_a_person_edited_is_on_the_card(manifest: dict[str, Any], said: str) -> None:
    card = dataset_card(dataset_facts(CLINIC, rows_of(CLINIC), recorded=Recorded(manifest)))
    assert said in card
    assert CANARY not in card
    assert "d" * 64 not in card
    assert check_card(card) == []
    assert "edited" not in dataset_card(
        dataset_facts(CLINIC, rows_of(CLINIC), recorded=Recorded({"files": {"a": "b"}}))
    )


REALISM = {
    "n": 40, "plausibility_mean": 3.75, "plausibility_ci95": [3.4, 4.1], "taken_for_real": 0.4,
    "taken_for_real_ci95": [0.25, 0.56], "real_taken_for_real": 0.9, "reviewers": 2,
}  # fmt: skip


def test_what_people_thought_of_the_notes_is_on_the_card() -> None:
    def card_of(realism: Any) -> str:
        card = dataset_card(dataset_facts(CLINIC, rows_of(CLINIC), recorded=Recorded({"realism": realism})))
        assert check_card(card) == []
        return card

    card = card_of(REALISM)
    assert "40 notes, looked at by 2 reviewers." in card
    assert "| plausibility of synthetic notes, 1 to 5, with its 95% interval | 3.8 (3.4-4.1) |" in card
    assert "taken for real ones, with its 95% interval | 0.40 (0.25-0.56) |" in card
    assert "| share of real notes among them taken for real ones | 0.90 |" in card
    without = card_of({k: v for k, v in REALISM.items() if k not in ("real_taken_for_real", "taken_for_real_ci95")})
    assert "share of real notes" not in without
    assert "| 0.40 |" in without
    for broken in (None, [], {"n": 40}, REALISM | {"n": 0}, REALISM | {"n": "many"}, "text"):
        assert "Realism" not in card_of(broken)
    assert CANARY not in card_of(REALISM | {"plausibility_mean": CANARY, CANARY: 1})
    assert "| 7" not in card_of(REALISM | {"plausibility_mean": 7.0})


@pytest.mark.parametrize("access", ["open", "restricted", "credentialed"])
def test_a_card_says_whom_to_ask_and_invents_nobody(access: Any) -> None:
    task = replace(CLINIC, access=access)

    def cards(contact: str | None) -> list[str]:
        facts = dataset_facts(task, rows_of(task), repo_id="ward/x", recorded=Recorded(contact=contact))
        model = model_card_facts(task, {"access": access}, None, repo_id="ward/m") | {"contact": contact or ""}
        return [dataset_card(facts), model_card(model)]

    for card in cards("data office, data@ward.example"):
        assert "write to\ndata office, data@ward.example. Say who you are" in card
        assert ("Questions: data office" in card) == (access != "open")
        assert check_card(card) == []
    for card in cards(None):
        assert "@" not in card
        assert ("the owners of ward on this Hub (no other contact was given)" in card) == (access != "open")
        assert ("First sign the data use agreement of the source: https://example.org/clinic." in card) == (
            access == "credentialed"
        )
        assert check_card(card) == []


def test_an_example_is_the_surest_row_of_its_label() -> None:
    def shown(*rows: tuple[str, int, int, list[float], str]) -> list[dict[str, str]]:
        made = rows_of(CLINIC).select([0] * len(rows)).to_list()
        for row, (text, meant, label, probs, reason) in zip(made, rows, strict=True):
            row |= {"text": text, "llm_label": meant, "label": label, "label_probs": probs, "reason": reason}
        facts = dataset_facts(CLINIC, Dataset.from_list(made, features=CLINIC.corrected_features()))
        return facts["examples"]

    doubtful, sure = ("first", 0, 0, [0.4, 0.3, 0.2, 0.1], "agrees"), ("sure", 0, 0, [0.9, 0.1, 0.0, 0.0], "agrees")
    split, wrong = (
        ("moved", 1, 0, [0.97, 0.0, 0.0, 0.03], "posterior"),
        ("against", 0, 0, [0.1, 0.9, 0.0, 0.0], "abstained"),
    )
    tie = ("tie", 0, 0, [0.5, 0.5, 0.0, 0.0], "agrees")
    assert shown(doubtful, wrong, split, sure) == [{"label": "grade_0", "sure": "probability 0.90", "text": "sure"}]
    assert [e["text"] for e in shown(tie, doubtful)] == ["first"]  # of two labels as probable neither is sure
    assert shown(tie, wrong) == []
    assert [e["text"] for e in shown(sure, ("by hand", 1, 0, [0.2] * 4, "audited"))] == ["by hand"]
    assert shown(split)[0]["sure"] == "probability 0.97"
    none = dataset_facts(CLINIC, rows_of(CLINIC, corrected=False))
    assert {e["sure"] for e in none["examples"]} == {""}
    assert "nobody has checked them" in dataset_card(none)


def test_a_model_card_tells_what_is_not_known() -> None:
    card = model_card(model_card_facts(CLINIC, {"access": "credentialed"}, None, repo_id="o/m"))
    assert "Not scored" in card
    assert "credentialed" in card
    assert check_card(card) == []
    assert "d" * 64 not in model_card(model_card_facts(CLINIC, TRAINED, SCORES, repo_id="o/m"))
    local = model_card(model_card_facts(CLINIC, {**TRAINED, "base_model": "my-encoder"}, None, repo_id="o/m"))
    assert ModelCard(local).data.base_model is None


def test_a_model_of_long_notes_says_how_to_read_one() -> None:
    for how, said in (("windows", "the highest logits"), ("windows_mean", "the mean of its windows"), ("cut", "")):
        card = model_card(model_card_facts(CLINIC, {**TRAINED, "long_notes": {"how": how}}, SCORES, repo_id="o/m"))
        assert ("overlapping windows" in card) == bool(said)
        assert said in card
        assert check_card(card) == []


def test_every_kind_of_task_has_a_card_that_passes() -> None:
    summary = Task.from_columns("sums", text_columns="note", label_column="summary", kind="text2text", access="open")
    rows = Dataset.from_list([{**summary.gold_row("a", None, "short", "long text"), "source": "synthetic"}])
    assert check_card(dataset_card(dataset_facts(summary, rows, repo_id="o/s"))) == []
    multi = Task.from_columns(
        "multi", text_columns=("a", "b"), label_column="tags", labels=("x", "y"), kind="multi_label", access="open"
    )
    rows = Dataset.from_list(
        [{**multi.gold_row("a", None, None, "one", "two"), "tags": [0, 1], "source": "synthetic"}],
        features=multi.gold_features(),
    )
    facts = dataset_facts(multi, rows, repo_id="o/m")
    assert [row["raw"] for row in facts["labels"]] == [1, 1]
    assert check_card(dataset_card(facts)) == []


def test_cards_of_every_builtin_task_pass() -> None:
    for task in list_tasks():
        if task.kind == "single_label":
            features = task.corrected_features()
            rows = Dataset.from_dict({c: [] for c in features}, features=features)
            assert check_card(dataset_card(dataset_facts(task, rows, repo_id="o/s"))) == [], task.full_name
            assert check_card(model_card(model_card_facts(task, TRAINED, None, repo_id="o/m"))) == [], task.full_name


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("---\nannotations", "annotations", "does not begin with a YAML header"),
        ("license: apache-2.0", "license: proprietary", "license 'proprietary'"),
        ("license: apache-2.0", "license: other", "needs a license_name"),
        ("n<1K", "tiny", "size_categories"),
        ("text-classification", "grading", "task categories"),
        ("- synthetic\n", "", "tags"),
        ("# synth-notes", "# {{ title }}", "placeholder"),
        ("pretty_name: synth-notes", "pretty_name: null", "empty value"),
        ("pretty_name: synth-notes", "pretty_name: [", "not valid YAML"),
        ("this is not de-identification", "this is safe", "does not say"),
        (
            "- config_name: raw\n  data_files:\n  - split: train\n    path: raw/train-*.parquet\n",
            "- config_name: raw\n",
            "config",
        ),
    ],
)
def test_the_check_finds(old: str, new: str, problem: str) -> None:
    card = dataset_card(full_facts())
    assert check_card(card) == []
    assert old in card
    problems = check_card(card.replace(old, new))
    assert len(problems) == 1
    assert problem in problems[0]


@pytest.mark.parametrize("words", ["name Ann Example of ward 7", "have no label Ann", "have no text " * 8])
def test_a_reason_from_a_foreign_folder_is_not_shown(words: str) -> None:
    def said(note: str) -> Any:
        return dataset_facts(CLINIC, rows_of(CLINIC), gold_notes=[note])["gold_left_out"]

    assert said(f"x.csv, split train: rows left out, since they {words.strip()}: 3") == "3 of split `train`"
    assert said("x.csv, split Ann: rows left out, since they have no label: 3") == ""
    assert said("x.csv, split test: rows left out, since they have no label: 3") == (
        "3 of split `test`, since they have no label"
    )


def test_the_reasons_of_our_scripts_are_shown() -> None:
    scripts = Path(__file__).parents[2] / "dataset_scripts"
    reasons = [r for file in scripts.glob("*.py") for r in re.findall(r'leave_out\([^"]*"([^"{]+)"', file.read_text())]
    assert len(reasons) > 10
    for reason in [*reasons, "are changes without Action", "have only answers of several pieces", "have no text"]:
        note = f"split train: rows left out, since they {reason}: 3"
        facts = dataset_facts(CLINIC, rows_of(CLINIC), gold_notes=[note])
        assert facts["gold_left_out"] == f"3 of split `train`, since they {reason}"


def test_a_label_breaks_no_table() -> None:
    table = _table([{"a": "<b>", "b": 1}], [["x|y", "a"], ["<i>", "b"]])
    assert table.splitlines()[0] == "| x\\|y | &lt;i> |"
    assert table.splitlines()[2] == "| &lt;b> | 1 |"


HOSTILE = ("<img src=x onerror=y>", "a|b", "**b**", "[x](javascript:y)", "`c`", "{{ 7*7 }}", "$$x$$", "&lt;i&gt;",
           "~~s~~", "_e_", "line\nend", "\\\\(q\\\\)", "www.example.org", "{% z %}")  # fmt: skip


def test_a_hostile_name_of_a_label_shows_as_it_is() -> None:
    markdown_it = pytest.importorskip("markdown_it")
    markdown = markdown_it.MarkdownIt("commonmark", {"html": True}).enable("table")
    task = replace(CLINIC, labels=HOSTILE[:4], label_meanings=HOSTILE[4:8], description=HOSTILE[0])
    facts = dataset_facts(task, rows_of(task), repo_id="ward/x", policy=POLICY)
    model = model_card_facts(task, {"base_model": "`x`<b>", "rows": {"gold": 3}}, None, repo_id="ward/y")
    for card in (dataset_card(facts), model_card(model)):
        assert check_card(card) == []
        html = markdown.render(card.split("---\n", 2)[2])
        assert "<img" not in html
        assert '<a href="javascript' not in html
        assert "<strong>b</strong>" not in html
        assert "&lt;img src=x onerror=y&gt;" in html
    for name in HOSTILE:
        shown = unescape(markdown.renderInline(plain(name).replace("\\|", "|")))
        assert shown == " ".join(name.split())


@pytest.mark.parametrize(
    "contact", ["<svg onload=x>", "[x](javascript:y)", "javascript:y", "http://a.example", "{{x}}"]
)
def test_a_contact_is_plain_text(contact: str) -> None:
    with pytest.raises(PublishError, match="--contact takes plain text"):
        dataset_facts(CLINIC, rows_of(CLINIC), repo_id="ward/x", recorded=Recorded(contact=contact))


def test_a_label_is_no_markup_and_doubts_stand_first() -> None:
    facts = full_facts()
    facts["examples"] = [{"label": "a](http://x) <b>*|", "sure": "", "text": "one"}]
    facts["doubts"] = ("no row is left of <i>",)
    card = dataset_card(facts | {"version": "0.0.0"})
    assert "**a&#93;(http&#58;//x) &lt;b>&#42;" in card
    assert card.index("**Caution:** no row is left of &lt;i>.") < card.index("## Use it")


def test_a_label_whose_rows_the_audit_withholds_is_said() -> None:
    """Row 5 is the only one of grade_3 that correction left, and it holds a telephone number."""
    line = "the audit withholds every row of these labels: grade_3: generate other notes of them"
    rows = rows_of(CLINIC)
    assert doubts_of(rows, POLICY, {5}) == (*doubts_of(rows, POLICY), line)
    assert doubts_of(rows, POLICY, {0, 2, 3}) == (*doubts_of(rows, POLICY), line.replace("grade_3", "grade_0"))
    assert doubts_of(rows, POLICY, {2, 3}) == doubts_of(rows, POLICY), "these rows do not count anyway"
    facts = full_facts()
    assert facts["audit_rows"]
    assert facts["doubts"][-1] == line


def test_a_task_without_a_licence_grants_none() -> None:
    task = Task.from_columns("wards", text_columns="text", label_column="label", labels=["a", "b"], access="open")
    card = model_card(model_card_facts(task, {}, None) | {"version": "0.0.0"})
    assert "licence below" not in card
    assert "- Licence: the task states none;" in card
