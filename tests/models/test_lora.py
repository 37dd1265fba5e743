"""LoRA: small matrices learn, the folder stays a plain model; what pretraining has not seen is trained in full."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from support.tiny import TINY_ARGS, tiny_base, toy_rows, toy_task
from transformers import AutoModelForSequenceClassification

from hf_synth.errors import HfSynthError
from hf_synth.evaluation.evaluation import evaluate
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import model_facts, weights_sha256
from hf_synth.models.training import train

pytestmark = pytest.mark.skipif(find_spec("peft") is None, reason="needs peft")  # the import takes seconds


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pretrain the tiny encoder on another task of the same notes, so that there is something to freeze."""
    work = tmp_path_factory.mktemp("base")
    bare = tiny_base(work / "tiny")
    return train(toy_task(), toy_rows(160, seed=5), base_model=bare, output_dir=work / "base", args=TINY_ARGS)


def run(base: Path, out: Path, **options: Any) -> Path:
    options = {"args": {"num_train_epochs": 6, "learning_rate": 1e-2}, "lora": True, **options}
    other = toy_task(labels=("absent", "present", "grave", "unknown"))  # a head of another size: new weights
    rows = toy_rows(120).cast(other.gold_features())
    return train(other, rows, base_model=base, output_dir=out, **options)


def test_it_learns_and_leaves_a_plain_model(base: Path, tmp_path: Path) -> None:
    folder = run(base, tmp_path / "m", lora={"r": 4})
    task = toy_task(labels=("absent", "present", "grave", "unknown"))
    test = toy_rows(80, seed=1).cast(task.gold_features())
    assert evaluate(task, folder, test, n_bootstrap=0).values["accuracy"] > 0.8
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "hf_synth.json", "hf_synth_facts.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    network, seen = AutoModelForSequenceClassification.from_pretrained(folder, output_loading_info=True)
    assert not seen["missing_keys"]
    assert not seen["unexpected_keys"]
    before = AutoModelForSequenceClassification.from_pretrained(base)
    words, other = (n.bert.embeddings.word_embeddings.weight for n in (network, before))
    assert (words == other).all()  # frozen
    query, other = (n.bert.encoder.layer[0].attention.self.query.weight for n in (network, before))
    assert (query != other).any()  # merged
    facts = model_facts(folder)
    assert facts["lora"] == {"r": 4}
    assert facts["parents"] == [weights_sha256(base)]


def test_the_same_seed_gives_the_same_weights_and_long_notes_go_with_it(base: Path, tmp_path: Path) -> None:
    args = {"max_steps": 4}
    one, two = (run(base, tmp_path / n, args=args, long_notes="windows", seed=2) for n in "ab")
    assert weights_sha256(one) == weights_sha256(two)
    assert model_facts(one)["hyperparameters"]["learning_rate"] == 3e-4


def test_it_can_be_resumed_and_the_best_epoch_is_kept(base: Path, tmp_path: Path) -> None:
    task, args = toy_task(), {"num_train_epochs": 3, "learning_rate": 1e-2}
    options: dict[str, Any] = {"base_model": base, "args": args, "lora": True}
    held = toy_rows(40, seed=6)
    one = train(task, toy_rows(64), held, output_dir=tmp_path / "a", **options)
    two = train(task, toy_rows(64), held, output_dir=tmp_path / "b", resume=2, **options)
    assert weights_sha256(one) == weights_sha256(two)
    score = evaluate(task, one, held, n_bootstrap=0).values["macro_f1"]
    assert model_facts(one)["best_validation"] == pytest.approx(score)
    assert predict_proba(task, two, held).shape == (40, 3)


def test_wrong_options_are_one_sentence(base: Path, tmp_path: Path) -> None:
    for options, problem in (({"rank": 3}, "rank"), ({"target_modules": ["nowhere"]}, "No modules")):
        with pytest.raises(HfSynthError, match=problem) as caught:
            run(base, tmp_path / "m", lora=options)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "m").exists()
