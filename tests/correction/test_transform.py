"""GenerateAndCorrect in user code: the three uses, streaming, a running loop, fingerprints, failing rows."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset, concatenate_datasets
from datasets.fingerprint import Hasher
from support.llm_server import Said, content, serving
from support.tiny import TINY_ARGS, tiny_base

from hf_synth import LLM, GenerateAndCorrect, Task, fit_policy, generate, load_gold, load_task
from hf_synth.correction.correction import corrector_identity
from hf_synth.correction.fitting import fit
from hf_synth.correction.judging import LLMJudge
from hf_synth.correction.lineage import lineage_of
from hf_synth.correction.policy import GENERATOR, Policy, apply
from hf_synth.demo.simulator import Faults, running_simulator, true_label
from hf_synth.errors import ColumnError, ModelError, TaskError
from hf_synth.models.linear import linear_fit
from hf_synth.models.record import FACTS
from hf_synth.models.training import train
from hf_synth.task.columns import access_of

CLINIC = load_task("clinic")


def tiny_classifier(folder: Path, gold: Dataset, *, seed: int) -> Path:
    """Train a model that knows next to nothing, on a few rows."""
    base = tiny_base(folder / "base")
    return train(
        CLINIC, gold, base_model=base, output_dir=folder / "model", args=TINY_ARGS | {"max_steps": 2}, seed=seed
    )


@pytest.fixture(scope="module")
def gold() -> Dataset:
    return load_gold(CLINIC, n_train=24, n_validation=40, n_test=10)["train"]


@pytest.fixture(scope="module")
def corrector(gold: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_classifier(tmp_path_factory.mktemp("corrector"), gold, seed=0)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with running_simulator(seed=0) as base_url:
        yield base_url


@pytest.fixture
def llm(url: str, tmp_path: Path) -> LLM:
    return LLM("simulator", base_url=url, journal=tmp_path / "journal.sqlite", concurrency=8)


@pytest.fixture(scope="module")
def policy(url: str, corrector: Path, gold: Dataset, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    llm = LLM("simulator", base_url=url, journal=tmp_path_factory.mktemp("pilot") / "journal.sqlite")
    held = load_gold(CLINIC, n_train=24, n_validation=40, n_test=10)["validation"]
    return fit_policy(CLINIC, generate(CLINIC, gold, llm, 40), corrector, gold=held, method="posterior")


def dead(tmp_path: Path) -> LLM:
    """Make an LLM whose endpoint answers nothing: a second run must not need it."""
    return LLM("simulator", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "journal.sqlite", max_retries=0)


def test_one_row_becomes_n_rows(gold: Dataset, llm: LLM, corrector: Path, policy, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    transform = GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=policy, n=3)
    made = gold.map(transform, **transform.map_kwargs)
    assert made.features == CLINIC.corrected_features()
    assert len(made) >= 2 * len(gold)
    kept = made.filter(lambda s: s in ("kept", "relabelled"), input_columns="label_status")
    assert set(kept["source"]) == {"synthetic"}
    assert not set(kept["text"]) & set(gold["text"])
    assert np.allclose(np.sum(kept["label_probs"], axis=1), 1, atol=1e-3)
    assert access_of(made) == "open"
    again = GenerateAndCorrect(CLINIC, dead(tmp_path), corrector, exemplars=gold, policy=policy, n=3)
    assert gold.map(again, **again.map_kwargs).to_list() == made.to_list()


def test_one_row_becomes_one_row_and_no_gold_survives(gold: Dataset, llm: LLM) -> None:
    extra = gold.add_column("free_text_of_the_user", gold["text"])
    paired = extra.map(GenerateAndCorrect(CLINIC, llm, exemplars=gold))
    assert len(paired) == len(gold)
    assert paired.features == CLINIC.corrected_features()
    everything = repr(paired.remove_columns("seed_ids").to_list())
    assert not any(text in everything for text in gold["text"])
    kept = [r for r in paired.to_list() if r["label_status"] == "kept"]
    assert kept
    assert all(r["label"] == r["llm_label"] for r in kept)


def test_the_exemplars_of_a_row_are_of_its_own_fold(gold: Dataset, llm: LLM) -> None:
    made = gold.map(GenerateAndCorrect(CLINIC, llm, exemplars=gold))
    assert all(id in seeds for id, seeds in zip(gold["id"], made["seed_ids"], strict=True))
    assert set(made["fold"]) == set(range(5))
    fold_of: dict[str, set[int]] = {}
    for seeds, fold in zip(made["seed_ids"], made["fold"], strict=True):
        for id in seeds:
            fold_of.setdefault(id, set()).add(fold)
    assert all(len(folds) == 1 for folds in fold_of.values())
    strangers = load_gold(CLINIC, n_train=24, n_validation=40, n_test=10)["validation"].select(range(8))
    other = strangers.map(GenerateAndCorrect(CLINIC, llm, exemplars=gold))
    traced = lineage_of(CLINIC, concatenate_datasets([gold, strangers]), concatenate_datasets([made, other]))
    assert traced.shows.sum(axis=1).tolist() == [1] * 32, (
        "a row that is no exemplar lies in the fold of those beside it"
    )


def test_streaming(gold: Dataset, llm: LLM) -> None:
    transform = GenerateAndCorrect(CLINIC, llm, exemplars=gold, n=2)
    rows = list(gold.to_iterable_dataset().map(transform, **transform.map_kwargs))
    assert rows == gold.map(transform, **transform.map_kwargs).to_list()
    single = GenerateAndCorrect(CLINIC, llm, exemplars=gold)
    streamed = next(iter(gold.to_iterable_dataset().map(single)))
    assert streamed["text"] not in set(gold["text"])
    assert {k: streamed[k] for k in ("id", "text", "label")} == {
        k: v for k, v in gold.map(single)[0].items() if k in ("id", "text", "label")
    }


def test_inside_a_running_loop(gold: Dataset, llm: LLM) -> None:
    async def notebook() -> int:
        return len(gold.select(range(4)).map(GenerateAndCorrect(CLINIC, llm, exemplars=gold)))

    assert asyncio.run(notebook()) == 4


CODE = """
import sys
from datasets.fingerprint import Hasher
from hf_synth import LLM, GenerateAndCorrect, load_gold, load_task
task = load_task("clinic")
gold = load_gold(task, n_train=24, n_validation=40, n_test=10)["train"]
print(Hasher.hash(GenerateAndCorrect(task, LLM("simulator", base_url="http://127.0.0.1:1/v1"), exemplars=gold, n=2)))
"""


def test_the_fingerprint_is_equal_elsewhere_and_follows_what_decides(
    gold: Dataset,
    llm: LLM,
    corrector: Path,
    policy,
    tmp_path: Path,  # type: ignore[no-untyped-def]
) -> None:
    def fingerprint(**changes: object) -> str:
        task = changes.pop("task", CLINIC)
        given = {"llm": llm, "exemplars": gold, "n": 2} | changes
        return Hasher.hash(GenerateAndCorrect(task, **given))  # type: ignore[arg-type]

    here = fingerprint()
    there = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True).stdout.strip()
    assert here == there
    corrected = fingerprint(corrector=corrector, policy=policy)
    other = tiny_classifier(tmp_path / "other", gold, seed=1)
    changed = {
        here,
        corrected,
        fingerprint(corrector=other, policy=dataclasses.replace(policy, corrector=corrector_identity(other))),
        fingerprint(corrector=corrector, policy=dataclasses.replace(policy, temperature=policy.temperature * 2)),
        fingerprint(exemplars=gold.select(range(20))),
        fingerprint(llm=LLM("other", base_url="http://127.0.0.1:1/v1")),
        fingerprint(task=dataclasses.replace(CLINIC, version="2.0.0")),
        fingerprint(n=3),
    }
    assert len(changed) == 8


def test_a_failing_row_is_a_rejected_row(gold: Dataset, tmp_path: Path) -> None:
    with running_simulator(seed=0, faults=Faults(refusal=1.0)) as url:
        llm = LLM("simulator", base_url=url, journal=tmp_path / "j.sqlite")
        made = gold.select(range(3)).map(GenerateAndCorrect(CLINIC, llm, exemplars=gold))
    assert made["label_status"] == ["rejected"] * 3
    assert made["reason"] == ["refusal"] * 3
    assert made["text"] == [None] * 3
    assert made.features == CLINIC.corrected_features()


def test_bad_input_is_one_sentence(gold: Dataset, llm: LLM, corrector: Path, policy) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TaskError, match="needs the corrector"):
        GenerateAndCorrect(CLINIC, llm, exemplars=gold, policy=policy)
    with pytest.raises(ColumnError, match="the exemplars"):
        GenerateAndCorrect(CLINIC, llm, exemplars=gold.remove_columns("text"))
    with pytest.raises(TaskError, match="map_kwargs"):
        gold.map(GenerateAndCorrect(CLINIC, llm, exemplars=gold, n=2))
    with pytest.raises(ColumnError, match="lack columns"):
        gold.remove_columns("label").map(GenerateAndCorrect(CLINIC, llm, exemplars=gold))
    other = Task.from_columns("t", text_columns="text", label_column="label", labels=["a", "b"])
    with pytest.raises((ColumnError, TaskError), match="labels"):
        GenerateAndCorrect(other, llm, corrector, exemplars=gold, policy=policy)


def test_a_corrector_of_unknown_origin_is_told(corrector: Path, url: str, gold: Dataset, tmp_path: Path) -> None:
    llm = LLM("simulator", base_url=url, journal=tmp_path / "journal.sqlite")
    held = load_gold(CLINIC, n_train=24, n_validation=40, n_test=10)["validation"]
    rows = generate(CLINIC, gold, llm, 20)
    (shutil.copytree(corrector, tmp_path / "bare") / FACTS).unlink()
    known, unknown = (
        fit_policy(CLINIC, rows, model, gold=held, method="argmax") for model in (corrector, tmp_path / "bare")
    )
    assert not [w for w in known.warnings if "training rows are unknown" in w]
    assert [w for w in unknown.warnings if "training rows are unknown" in w]
    assert known.figures == unknown.figures


def test_the_files_and_the_access_of_a_corrector_decide(
    gold: Dataset, llm: LLM, corrector: Path, policy, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    def by(folder: Path) -> GenerateAndCorrect:
        return GenerateAndCorrect(CLINIC, llm, folder, exemplars=gold, policy=policy)

    moved, cut, closed = (shutil.copytree(corrector, tmp_path / name) for name in ("moved", "cut", "closed"))
    config = json.loads((cut / "config.json").read_text())
    (cut / "config.json").write_text(json.dumps(config | {"long_notes": "windows_mean"}))
    facts = json.loads((closed / FACTS).read_text())
    (closed / FACTS).write_text(json.dumps(facts | {"access": "credentialed"}))
    (moved / "README.md").write_text("decides nothing")
    assert by(moved).fingerprint == by(corrector).fingerprint
    assert len({by(folder).fingerprint for folder in (corrector, cut, closed)}) == 3
    few, learnt = gold.select(range(12)), by(closed)
    assert set(few.map(by(corrector))["access"]) == {"open"}
    assert set(few.map(learnt)["access"]) == {"credentialed"}, "what a model learnt is in its labels"
    changed = by(cut)
    (cut / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="has changed: create the GenerateAndCorrect again"):
        few.map(changed)
    loosened = pickle.dumps(by(cut))
    (cut / FACTS).write_text((closed / FACTS).read_text())  # the same weights are found to have learnt from other notes
    with pytest.raises(ModelError, match="has changed: create the GenerateAndCorrect again"):
        few.map(pickle.loads(loosened), load_from_cache_file=False)
    touched = by(moved)
    (moved / "config.json").write_text((moved / "config.json").read_text())  # other times, same files
    assert "kept" in few.map(touched)["label_status"] or "relabelled" in few.map(touched)["label_status"]


# --- a judge in the place of a corrector ----------------------------------------------------------------------------
def reader(gold: Dataset) -> Any:
    """Make a judge that knows the grades of gold notes, and reads those of simulated ones off their sentences."""
    known = dict(zip(gold["text"], gold["label"], strict=True))

    def judge(request: dict[str, Any], _: int) -> Said:
        note = json.loads(next(line for line in content(request).splitlines() if line.startswith('{"')))["text"]
        return Said(json.dumps({"label": CLINIC.labels[known.get(note, true_label(note))]}))

    return judge


def test_a_judge_corrects_what_the_simulator_writes(gold: Dataset, llm: LLM, tmp_path: Path) -> None:
    held = load_gold(CLINIC, n_train=24, n_validation=40, n_test=10)["validation"]
    with serving(reader(held)) as server:
        asked = LLM("judge", base_url=server.url, api_key="none", journal=tmp_path / "judge.sqlite")
        judging = LLMJudge(CLINIC, asked, votes=1)
        policy = fit_policy(CLINIC, generate(CLINIC, gold, llm, 40), judging, gold=held, method="llm_judge")
        assert policy.method == "posterior"
        transform = GenerateAndCorrect(CLINIC, llm, exemplars=gold, policy=policy, judge=judging, n=2)
        made = gold.map(transform, **transform.map_kwargs)
        assert made.features == CLINIC.corrected_features()
        kept = made.filter(lambda s: s != "rejected", input_columns="label_status")
        done = apply(policy, np.array(kept["llm_label"]), judging.predict(kept))
        assert kept["label"] == done.label.tolist()
        assert kept["label_status"] == done.status.tolist()
        assert np.allclose(kept["label_probs"], done.probs, atol=1e-6)
        assert "relabelled" in kept["label_status"]
        questions = len(server.requests)
    again = LLMJudge(CLINIC, LLM("judge", base_url="http://127.0.0.1:9/v1", journal=tmp_path / "judge.sqlite"), votes=1)
    once_more = GenerateAndCorrect(CLINIC, dead(tmp_path), exemplars=gold, policy=policy, judge=again, n=2)
    assert once_more.fingerprint == transform.fingerprint  # where it is asked does not matter
    remade = gold.map(once_more, **once_more.map_kwargs, load_from_cache_file=False)
    assert remade.to_list() == made.to_list()  # all of it from the journals
    assert questions == len(server.requests)


def test_what_decides_a_judges_opinion_is_in_the_fingerprint(gold: Dataset, llm: LLM, corrector: Path, policy) -> None:  # type: ignore[no-untyped-def]
    free = dataclasses.replace(policy, corrector="")  # bound to no judge

    def by(**how: Any) -> str:
        return GenerateAndCorrect(
            CLINIC, llm, exemplars=gold, policy=free, judge=LLMJudge(CLINIC, how.pop("llm", llm), **how)
        ).fingerprint

    other = LLM("another", base_url="http://127.0.0.1:9/v1")
    prints = {by(), by(votes=3), by(seed=1), by(sampling={"temperature": 0.1}), by(llm=other), by(logprobs=True)}
    prints.add(GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=policy).fingerprint)
    assert len(prints) == 7
    judging = LLMJudge(CLINIC, llm)
    with pytest.raises(TaskError, match="exclude each other"):
        GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=policy, judge=judging)
    with pytest.raises(TaskError, match="give the policy that was fitted with it"):
        GenerateAndCorrect(CLINIC, llm, exemplars=gold, judge=judging)
    strange = dataclasses.replace(CLINIC, version="9.0.0")
    with pytest.raises(TaskError, match="the judge is one of task"):
        GenerateAndCorrect(CLINIC, llm, exemplars=gold, policy=policy, judge=LLMJudge(strange, llm))


def test_a_policy_of_another_corrector_is_refused(
    gold: Dataset, llm: LLM, corrector: Path, policy, tmp_path: Path
) -> None:  # type: ignore[no-untyped-def]
    assert policy.corrector == corrector_identity(corrector)
    GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=policy)
    GenerateAndCorrect(
        CLINIC, llm, corrector, exemplars=gold, policy=dataclasses.replace(policy, corrector="")
    )  # earlier
    other = tiny_classifier(tmp_path / "other", gold, seed=1)
    with pytest.raises(TaskError, match="fitted for another corrector: fit one for this corrector"):
        GenerateAndCorrect(CLINIC, llm, other, exemplars=gold, policy=policy)
    rows = generate(CLINIC, gold, llm, 20)
    folded = fit_policy(CLINIC, rows, linear_fit(CLINIC, gold, rows), gold=gold, method="posterior")
    with pytest.raises(TaskError, match="fitted for models that were trained in folds"):
        GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=folded)
    with pytest.raises(TaskError, match="fitted for another corrector"):
        GenerateAndCorrect(CLINIC, llm, exemplars=gold, policy=policy, judge=LLMJudge(CLINIC, llm))
    counted = Policy("measured", 4, annotators=(GENERATOR,))
    with pytest.raises(TaskError, match="labels of LLMs that new rows do not have"):
        GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=counted)
    with pytest.raises(TaskError, match="'gold_only' drops every row"):
        GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=Policy("gold_only", 4))
    unasked = fit_policy(CLINIC, rows, linear_fit(CLINIC, gold, rows), gold=gold, method="none")
    GenerateAndCorrect(CLINIC, llm, corrector, exemplars=gold, policy=unasked)


class Hunch:
    """Hold a fixed opinion of each text, whatever it says."""

    def __init__(self, llm: LLM) -> None:
        self.task, self.llm, self.identity = CLINIC, llm, "hunch"

    def predict(self, rows: Dataset) -> np.ndarray:
        seeds = [int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) for text in rows["text"]]
        return np.array([np.random.default_rng(seed).dirichlet(np.ones(4)) for seed in seeds])


@pytest.mark.parametrize("method", ["clean_drop", "posterior"])
def test_a_row_is_corrected_alike_row_by_row_and_in_any_batch(method: str, gold: Dataset, llm: LLM) -> None:
    rng = np.random.default_rng(0)
    meant, held = np.arange(200) % 4, np.arange(80) % 4
    probs = [0.25 * np.eye(4)[labels] + 0.75 * rng.dirichlet(np.ones(4), len(labels)) for labels in (meant, held)]
    policy = fit(method, llm_label=meant, pred_probs=probs[0], gold_label=held, gold_probs=probs[1])
    transform = GenerateAndCorrect(CLINIC, llm, exemplars=gold, policy=policy, judge=Hunch(llm))  # type: ignore[arg-type]
    alone = gold.map(transform)
    statuses = [
        gold.map(transform, **transform.map_kwargs | {"batch_size": size})["label_status"][:] for size in (1, 5, 256)
    ]
    assert statuses == [alone["label_status"][:]] * 3
    if method == "clean_drop":
        assert 0 < statuses[0].count("dropped") < len(gold)
