"""Training: what rows count and how, the same seed the same weights, what is left in the folder, clear errors."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from support.tiny import LABELS, TINY_ARGS, toy_rows, toy_task
from transformers import AutoModelForSequenceClassification, TrainingArguments

from hf_synth.errors import AccessError, ColumnError, HfSynthError, ModelError, OutputError, TaskError
from hf_synth.evaluation.evaluation import evaluate
from hf_synth.models.arguments import mention_bf16, training_arguments
from hf_synth.models.inference import predict_proba
from hf_synth.models.record import model_facts, weights_sha256
from hf_synth.models.training import train, trainer_fit
from hf_synth.task.labels import row_digests, soft_labels, usable_rows

CANARY = "Wxyzzy Canaryname"


def corrected(n: int = 12, **columns: list[Any]) -> Dataset:
    """Make corrected synthetic rows; columns as given, else kept with their label and weight 1."""
    task = toy_task()
    rows = [
        {
            **row, "source": "synthetic", "seed_ids": [], "prompt_sha256": "", "generator": "", "journal_key": "",
            "answer_code": "", "sampling": "", "created": "",
            **dict.fromkeys(("fold", "prompt_tokens", "completion_tokens", "cost_usd")),
            "llm_label": row["label"], "label_status": "kept", "reason": "agrees",
            "label_probs": np.eye(3)[row["label"]].tolist(), "label_confidence": 1.0, "weight": 1.0,
            **{name: values[i] for name, values in columns.items()},
        }
        for i, row in enumerate(toy_rows(n, seed=9))
    ]  # fmt: skip
    return Dataset.from_list(rows, features=task.corrected_features())


def run(base: Path, out: Path, rows: Dataset | None = None, validation: Dataset | None = None, **more: Any) -> Path:
    options = {"args": TINY_ARGS, **more}
    return train(
        toy_task(), toy_rows(96) if rows is None else rows, validation, base_model=base, output_dir=out, **options
    )


# --- what is trained on ---------------------------------------------------------------------------------------------
def test_it_learns_and_the_folder_is_a_plain_transformers_model(base: Path, tmp_path: Path) -> None:
    folder = run(base, tmp_path / "m", toy_rows(120))
    test = toy_rows(80, seed=1)
    majority = max(np.bincount(test["label"])) / 80
    assert evaluate(toy_task(), folder, test).values["accuracy"] > majority + 0.3
    network = AutoModelForSequenceClassification.from_pretrained(folder)
    assert network.config.id2label == dict(enumerate(LABELS))
    assert network.config.label2id == {label: i for i, label in enumerate(LABELS)}
    assert network.config.problem_type == "single_label_classification"
    assert sorted(p.name for p in folder.iterdir()) == [
        "config.json", "hf_synth.json", "hf_synth_facts.json", "model.safetensors", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m"]


def test_the_same_seed_gives_the_same_weights(base: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In another process, too: a training that a killed process began ends with them (test_checkpoints)."""
    args = {"max_steps": 12, "learning_rate": 1e-2}
    runs = (("a", 4), ("b", 4), ("c", 5))
    one, two, other = (run(base, tmp_path / name, args=args, seed=seed) for name, seed in runs)
    assert weights_sha256(one) == weights_sha256(two) != weights_sha256(other)
    assert capfd.readouterr().out == ""


def test_dropped_rejected_and_weightless_rows_are_left_out() -> None:
    rows = corrected(
        5,
        label_status=["kept", "relabelled", "dropped", "rejected", "kept"],
        text=["a", "b", "c", None, "e"],
        label=[0, 1, 2, None, 1],
        label_probs=[[1, 0, 0], [0, 1, 0], [0, 0, 1], None, [0, 1, 0]],
        weight=[1.0, 0.5, 0.0, None, 0.0],
    )
    assert usable_rows(rows)["text"] == ["a", "b"]
    gold = toy_rows(4)
    assert len(usable_rows(gold)) == 4
    with pytest.raises(ColumnError, match="none of 3 rows"):
        usable_rows(rows.select([2, 3, 4]))


def test_targets_are_probabilities_times_weight_and_gold_is_hard() -> None:
    rows = corrected(
        4,
        source=["synthetic", "synthetic", "gold", "synthetic"],
        label=[0, 1, 2, 1],
        label_probs=[[0.7, 0.2, 0.1], [0, 1, 0], [0.5, 0.5, 0], None],
        weight=[0.5, None, 0.3, 0.25],
    )
    expected = [[0.35, 0.1, 0.05], [0, 1, 0], [0, 0, 1], [0, 0.25, 0]]
    assert soft_labels(toy_task(), rows) == pytest.approx(np.array(expected))
    for column, values in {
        "label_probs": [[0.7, 0.7, 0.1]] + [[1, 0, 0]] * 3,
        "weight": [float("nan"), 1.0, 1.0, 1.0],
    }.items():
        with pytest.raises(ColumnError, match=f"row 0: '{column}'"):
            soft_labels(toy_task(), corrected(4, **{column: values}))


def test_soft_labels_and_weights_reach_the_loss(base: Path, tmp_path: Path) -> None:
    rows = corrected(60, label_probs=[[0.5, 0.3, 0.2]] * 60)
    probs = predict_proba(toy_task(), run(base, tmp_path / "soft", rows), toy_rows(40, seed=2))
    assert probs.mean(0) == pytest.approx([0.5, 0.3, 0.2], abs=0.05)
    # the same text with two labels: the heavier one wins in proportion
    gold = toy_rows(60, seed=9)
    double = {
        "text": list(gold["text"]) * 2,
        "label": [0] * 60 + [1] * 60,
        "label_probs": [[1, 0, 0]] * 60 + [[0, 1, 0]] * 60,
    }
    weighed = corrected(120, **double, weight=[0.75] * 60 + [0.25] * 60)
    probs = predict_proba(toy_task(), run(base, tmp_path / "weighed", weighed), toy_rows(40, seed=2))
    assert probs.mean(0) == pytest.approx([0.75, 0.25, 0], abs=0.08)


def test_gradient_accumulation_keeps_the_loss(base: Path, tmp_path: Path) -> None:
    rows = toy_rows(64)
    args = {**TINY_ARGS, "train_sampling_strategy": "random", "num_train_epochs": 2}
    whole = run(base, tmp_path / "a", rows, args=args)
    parts = run(
        base, tmp_path / "b", rows, args=args | {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 4}
    )
    test = toy_rows(30, seed=3)
    a, b = (predict_proba(toy_task(), folder, test) for folder in (whole, parts))
    assert a == pytest.approx(b, abs=1e-3)


def test_class_weights_lift_a_rare_class(base: Path, tmp_path: Path) -> None:
    rows = toy_rows(300)
    few = [i for i, label in enumerate(rows["label"]) if label == 0] + [
        i for i, label in enumerate(rows["label"]) if label == 1
    ][:6]
    rare, test = rows.select(few), toy_rows(100, seed=1)
    args = TINY_ARGS | {"num_train_epochs": 1}
    plain, lifted = (
        predict_proba(toy_task(), run(base, tmp_path / str(w), rare, args=args, class_weights=w), test)
        for w in (False, True)
    )
    assert lifted[:, 1].mean() > 3 * plain[:, 1].mean()


def test_validation_keeps_the_best_epoch_and_stops_early(base: Path, tmp_path: Path) -> None:
    # at this learning rate the score jumps about: the last epoch is hardly ever the best
    args = TINY_ARGS | {"learning_rate": 0.05, "num_train_epochs": 40, "lr_scheduler_type": "constant"}
    held = toy_rows(40, seed=6)
    folder = run(base, tmp_path / "m", toy_rows(48), held, args=args)
    facts = model_facts(folder)
    assert facts["epochs"] < 40
    score = evaluate(toy_task(), folder, held, n_bootstrap=0).values["macro_f1"]
    assert facts["best_validation"] == pytest.approx(score)
    last = run(base, tmp_path / "last", toy_rows(48), args=args | {"num_train_epochs": int(facts["epochs"])})
    assert evaluate(toy_task(), last, held, n_bootstrap=0).values["macro_f1"] < score
    assert facts["validation_rows"] == 40
    assert set(row_digests(toy_task(), held)) <= set(facts["row_digests"])


# --- facts and access -----------------------------------------------------------------------------------------------
def test_facts_say_what_was_seen_and_access_is_the_strictest(base: Path, tmp_path: Path) -> None:
    gold = toy_rows(40)
    first = run(base, tmp_path / "first", gold)
    facts = model_facts(first)
    assert facts["access"] == "open"
    assert facts["row_digests"] == sorted(set(row_digests(toy_task(), gold)))
    assert (facts["task"], facts["labels"], facts["rows"]) == ("toy", list(LABELS), {"gold": 40})
    assert (facts["base_model"], facts["base_revision"], facts["parents"], facts["seed"]) == ("tiny", None, [], 0)
    assert facts["hyperparameters"]["learning_rate"] == TINY_ARGS["learning_rate"]
    assert first.stat().st_mode & 0o777 == 0o755

    closed = toy_rows(20, seed=8).map(lambda row: {"access": "restricted"})
    second = run(first, tmp_path / "second", closed)
    facts = model_facts(second)
    assert (facts["access"], facts["parents"]) == ("restricted", [weights_sha256(first)])
    assert set(row_digests(toy_task(), gold)) < set(facts["row_digests"])  # what the parent saw, this one saw
    assert second.stat().st_mode & 0o777 == 0o700
    third = run(second, tmp_path / "third", gold)
    assert model_facts(third)["access"] == "restricted"
    assert model_facts(run(base, tmp_path / "bare", gold.remove_columns("access")))["access"] == "credentialed"
    assert json.loads((second / "hf_synth.json").read_text())["stage"] == "train"


def test_no_text_of_a_row_lies_in_the_folder(base: Path, tmp_path: Path) -> None:
    rows = toy_rows(20).map(lambda row: {"text": f"{CANARY} {row['text']}", "id": CANARY + row["id"]})
    folder = run(base, tmp_path / "m", rows)
    for file in folder.iterdir():
        assert CANARY.encode() not in file.read_bytes()


# --- arguments ------------------------------------------------------------------------------------------------------
def test_training_arguments_of_the_user_are_used_untouched(base: Path, tmp_path: Path) -> None:
    own = TrainingArguments(
        output_dir=str(tmp_path / "own"), max_steps=2, learning_rate=1e-3, report_to="none", disable_tqdm=True,
        save_strategy="no", dataloader_pin_memory=False,
    )  # fmt: skip
    before = own.to_dict()
    folder = run(base, tmp_path / "m", args=own)
    assert model_facts(folder)["hyperparameters"]["max_steps"] == 2
    assert own.to_dict() == before


def test_wrong_arguments_are_one_sentence(base: Path, tmp_path: Path) -> None:
    for args, problem in (({"learning_rat": 1}, "learning_rat"), ({"push_to_hub": True}, "publish_model")):
        with pytest.raises(HfSynthError, match=problem):
            run(base, tmp_path / "m", args=args)
    rows = toy_rows(9)
    rows = rows.remove_columns(set(rows.column_names) & {"access"}).add_column("access", ["credentialed"] * 9)
    with pytest.raises(AccessError, match="on credentialed data does not report to wandb"):
        run(base, tmp_path / "m", rows, args={"report_to": "wandb"})
    assert not (tmp_path / "m").exists()


# Every field of TrainingArguments: a field that cannot act is refused, with the value here; the others are passed on.
REFUSED = {
    "label_smoothing_factor": 0.1, "remove_unused_columns": False, "label_names": ["labels"],
    "length_column_name": "words", "include_for_metrics": ["inputs"], "batch_eval_metrics": True,
    "prediction_loss_only": True, "eval_do_concat_batches": False, "ignore_data_skip": True,
    "resume_from_checkpoint": "checkpoint-1", "do_train": True, "do_eval": True, "do_predict": True, "local_rank": 1,
    "push_to_hub": True, "hub_token": "none", "hub_private_repo": True, "hub_model_id": "org/m", "hub_strategy": "end",
    "hub_always_push": True, "hub_revision": "main", "data_seed": 1, "eval_strategy": "epoch", "eval_on_start": True,
}  # fmt: skip
PASSED: dict[str, Any] = {
    "per_device_train_batch_size": 3, "num_train_epochs": 4, "max_steps": 5, "learning_rate": 1e-3,
    "lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": 1}, "warmup_steps": 3, "optim": "adafactor",
    "optim_args": "a=1", "weight_decay": 0.5, "adam_beta1": 0.5, "adam_beta2": 0.5, "adam_epsilon": 1e-3,
    "optim_target_modules": ["q"], "gradient_accumulation_steps": 2, "average_tokens_across_devices": False,
    "max_grad_norm": 0.1, "bf16": True, "bf16_full_eval": True, "activation_checkpointing": True,
    "activation_checkpointing_kwargs": {"a": 1}, "torch_compile_mode": "default", "use_liger_kernel": True,
    "liger_kernel_config": {"a": True}, "use_cache": True, "neftune_noise_alpha": 5.0, "torch_empty_cache_steps": 3,
    "auto_find_batch_size": True, "logging_strategy": "epoch", "logging_steps": 3, "logging_first_step": True,
    "log_on_each_node": False, "logging_nan_inf_filter": False, "include_num_input_tokens_seen": "all",
    "log_level": "error", "log_level_replica": "error", "disable_tqdm": False, "report_to": ["tensorboard"],
    "run_name": "mine", "project": "p", "trackio_space_id": "s", "trackio_bucket_id": "b",
    "trackio_static_space_id": "t", "eval_steps": 7, "eval_delay": 1, "per_device_eval_batch_size": 3,
    "eval_use_gather_object": True, "eval_accumulation_steps": 2, "save_only_model": False, "save_strategy": "epoch",
    "save_steps": 3, "save_on_each_node": True, "save_total_limit": 2, "enable_jit_checkpoint": True,
    "metric_for_best_model": "loss", "greater_is_better": False, "restore_callback_states_from_checkpoint": True,
    "full_determinism": True, "seed": 3, "use_cpu": True, "dataloader_drop_last": True, "dataloader_num_workers": 1,
    "dataloader_persistent_workers": True, "dataloader_prefetch_factor": 2,
    "dataloader_multiprocessing_context": "spawn", "dataloader_in_order": False, "train_sampling_strategy": "random",
    "ddp_find_unused_parameters": True, "ddp_bucket_cap_mb": 5, "ddp_broadcast_buffers": True,
    "ddp_static_graph": True, "ddp_timeout": 100, "skip_memory_metrics": False,
}  # fmt: skip
# Fields that need hardware, another package or a file; each is read by Trainer, and none is refused by us.
ELSEWHERE = {
    "fp16", "fp16_full_eval", "tf32", "gradient_checkpointing", "gradient_checkpointing_kwargs", "torch_compile",
    "torch_compile_backend", "accelerator_config", "parallelism_config", "fsdp", "fsdp_config", "deepspeed", "debug",
    "load_best_model_at_end", "output_dir", "dataloader_pin_memory", "ddp_backend",
}  # fmt: skip


def test_every_field_is_passed_on_or_refused(tmp_path: Path) -> None:
    known = {field.name for field in dataclasses.fields(TrainingArguments) if field.init}
    assert known == {*REFUSED, *PASSED, *ELSEWHERE}, "decide what becomes of a new field"
    for name, value in REFUSED.items():
        with pytest.raises(HfSynthError, match=name if name != "push_to_hub" else "does not push"):
            training_arguments({name: value, "use_cpu": True}, tmp_path, 50, False, 0)
    for name, value in PASSED.items():
        fields = {"use_cpu": True, "dataloader_num_workers": 2, name: value}  # a prefetch factor needs workers
        made = training_arguments(fields, tmp_path, 50, False, 0, access="open")
        assert getattr(made, name) == value, name


def test_fields_of_the_users_own_arguments_are_refused_too(tmp_path: Path) -> None:
    folder = str(tmp_path / "own")
    for name in ("label_smoothing_factor", "label_names", "hub_strategy", "data_seed", "do_train"):
        own = TrainingArguments(output_dir=folder, use_cpu=True, train_sampling_strategy="sequential")
        assert training_arguments(own, tmp_path, 50, False, 0) is own
        setattr(own, name, REFUSED[name])
        with pytest.raises(HfSynthError, match=f"{name} has no effect"):
            training_arguments(own, tmp_path, 50, False, 0)


def test_fields_that_break_a_validation_or_a_resumed_training_are_refused(tmp_path: Path) -> None:
    refused = {"dataloader_drop_last": True, "metric_for_best_model": "f1"}
    for name, value in refused.items():
        fields = {name: value, "use_cpu": True}
        assert training_arguments(fields, tmp_path, 50, False, 0)
        with pytest.raises(HfSynthError, match=name):
            training_arguments(fields, tmp_path, 50, True, 0)
    for metric in ("main", "loss", "eval_loss"):
        assert training_arguments({"metric_for_best_model": metric, "use_cpu": True}, tmp_path, 50, True, 0)
    for name, value in {"output_dir": str(tmp_path), "save_only_model": True}.items():
        fields = {name: value, "use_cpu": True}
        assert training_arguments(fields, tmp_path, 50, False, 0)
        with pytest.raises(HfSynthError, match=f"sets {name} itself"):
            training_arguments(fields, tmp_path, 50, False, 0, resumable=True)


def test_a_refused_field_would_have_changed_no_weight(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the refusal each of these trains to the same weights; a field that is passed on does not."""
    from hf_synth.models import arguments

    monkeypatch.setattr(arguments, "_ineffective_field", lambda args, validated: "")
    args = TINY_ARGS | {"max_steps": 4}
    plain = weights_sha256(run(base, tmp_path / "plain", args=args))
    for name in ("label_smoothing_factor", "label_names", "length_column_name", "remove_unused_columns", "data_seed"):
        assert weights_sha256(run(base, tmp_path / name, args=args | {name: REFUSED[name]})) == plain, name
    for name in ("weight_decay", "train_sampling_strategy"):
        assert weights_sha256(run(base, tmp_path / name, args=args | {name: PASSED[name]})) != plain, name


@pytest.mark.parametrize("access", ["restricted", "credentialed"])
def test_no_tracking_service_hears_of_data_that_is_not_open(access: Any, tmp_path: Path) -> None:
    from transformers import TrainingArguments

    own = TrainingArguments(output_dir=str(tmp_path), report_to=["tensorboard", "mlflow"])
    for args in ({"report_to": "wandb"}, own):
        with pytest.raises(AccessError, match="would leave the site"):
            training_arguments(args, tmp_path, 50, False, 0, access=access)
        assert training_arguments(args, tmp_path, 50, False, 0, access="open").report_to
    here = training_arguments({"report_to": "tensorboard"}, tmp_path, 50, False, 0, access=access)
    assert here.report_to == ["tensorboard"]


@pytest.mark.parametrize("door", ["all", "set afterwards", "kubeflow asked", "kubeflow own", "logs", "deepspeed"])
def test_no_door_to_a_tracking_service_stays_open(door: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, a list of every service that is installed, arguments changed after they were made."""
    own = TrainingArguments(output_dir=str(tmp_path), report_to="none")
    args: Any = {"report_to": "tensorboard"} if door == "logs" else own
    if door == "all":
        monkeypatch.setattr("transformers.integrations.get_available_reporting_integrations", lambda: ["trackio"])
        args = {"report_to": "all"}
    elif door == "set afterwards":
        own.report_to = "wandb"
    elif door.startswith("kubeflow"):
        monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9")
        named = {"report_to": ["kubeflow"]}
        args = named if door.endswith("asked") else TrainingArguments(output_dir=str(tmp_path), report_to="none")
    elif door == "logs":
        monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "s3://bucket/logs")
    else:
        (tmp_path / "ds.json").write_text('{"wandb": {"enabled": true}}')
        own.deepspeed = str(tmp_path / "ds.json")
    with pytest.raises(AccessError, match="restricted data"):
        training_arguments(args, tmp_path, 50, False, 0, access="restricted")
    training_arguments(args, tmp_path, 50, False, 0, access="open")  # open data may be reported


def test_a_cluster_that_wants_reports_gets_none_of_what_is_not_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBEFLOW_TRAINER_SERVER_URL", "http://127.0.0.1:9")
    assert training_arguments(None, tmp_path, 50, False, 0, access="open").report_to == ["kubeflow"]
    assert training_arguments(None, tmp_path, 50, False, 0, access="restricted").report_to == []


def test_bf16_on_a_cpu_needs_no_second_field(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr("torch.accelerator.is_available", lambda: False)
    monkeypatch.setattr("hf_synth.models.arguments.cpu_has_bf16", lambda: True)
    made = training_arguments({"bf16": True}, tmp_path, 50, False, 0)
    assert (made.bf16, made.use_cpu) == (True, True)
    assert caplog.text == ""
    monkeypatch.setattr("hf_synth.models.arguments.cpu_has_bf16", lambda: False)
    assert training_arguments({"bf16": True}, tmp_path, 50, False, 0).bf16
    assert "slower" in caplog.text
    with pytest.raises(HfSynthError, match="fp16 has no effect on a CPU"):
        training_arguments({"fp16": True, "use_cpu": True}, tmp_path, 50, False, 0)


def test_bf16_is_mentioned_once_where_the_cpu_has_it(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    monkeypatch.setattr("hf_synth.models.training._SMALL", 0)
    monkeypatch.setattr("hf_synth.models.training.cpu_has_bf16", lambda: True)
    mention_bf16.cache_clear()
    caplog.set_level("INFO", logger="hf_synth")
    for name in ("a", "b"):
        run(base, tmp_path / name, toy_rows(8), args={"max_steps": 1, "use_cpu": True})
    assert caplog.text.count("--set bf16=true") == 1
    half = run(base, tmp_path / "half", toy_rows(8), toy_rows(4), args={"max_steps": 1, "bf16": True, "use_cpu": True})
    assert model_facts(half)["hyperparameters"]["bf16"] is True


@pytest.mark.parametrize(("n", "epochs"), [(50, 20), (1_243, 8), (100_000, 3)])
def test_small_sets_get_more_epochs(tmp_path: Path, n: int, epochs: int) -> None:
    assert training_arguments(None, tmp_path, n, False, 0).num_train_epochs == epochs


# --- errors ---------------------------------------------------------------------------------------------------------
def test_bad_rows_are_one_sentence_without_text(base: Path, tmp_path: Path) -> None:
    rows = Dataset.from_dict({"text": [CANARY, CANARY], "label": ["mild", CANARY]})
    with pytest.raises(ColumnError, match="row 1: column 'label'") as caught:
        run(base, tmp_path / "m", rows)
    assert CANARY not in str(caught.value)
    with pytest.raises(ColumnError, match="none of 0 rows"):
        run(base, tmp_path / "m", toy_rows(3).select([]))
    with pytest.raises(ColumnError, match="no column 'label'"):
        run(base, tmp_path / "m", toy_rows(3).remove_columns("label"))
    with pytest.raises(TaskError, match="class_weights are for single_label"):
        train(toy_task(kind="multi_label"), rows, base_model=base, output_dir=tmp_path / "m", class_weights=True)
    with pytest.raises(ModelError, match="no model folder"):
        run(tmp_path / "nowhere", tmp_path / "m")
    assert list(tmp_path.iterdir()) == []


def test_other_folders_are_left_alone_and_models_of_ours_replaced(base: Path, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "thesis.txt").write_text("years")
    with pytest.raises(OutputError, match="not an earlier output"):
        run(base, tmp_path / "m")
    assert (tmp_path / "m" / "thesis.txt").read_text() == "years"
    first = weights_sha256(run(base, tmp_path / "n"))
    assert weights_sha256(run(base, tmp_path / "n", seed=1)) != first


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_place_is_one_sentence(base: Path, tmp_path: Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o500)
    with pytest.raises(OutputError, match="no permission"):
        run(base, tmp_path / "closed" / "m")


def test_a_full_disk_is_one_sentence_and_leaves_nothing(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetensors import SafetensorError
    from transformers import PreTrainedModel

    before = run(base, tmp_path / "m")
    digest = weights_sha256(before)
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("No space left on device (os error 28)"),
    ):

        def full(*_args: Any, error: Exception = error, **_options: Any) -> None:
            raise error

        monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
        with pytest.raises(OutputError, match="full"):
            run(base, tmp_path / "m", seed=1)
    assert weights_sha256(before) == digest  # the earlier model still stands
    assert [p.name for p in tmp_path.iterdir()] == ["m"]


# --- cross-fitting --------------------------------------------------------------------------------------------------
def test_trainer_fit_gives_predictors_that_outlive_their_folders(base: Path, tmp_path: Path) -> None:
    rows, test = toy_rows(96), toy_rows(30, seed=1)
    fit = trainer_fit(toy_task(), base_model=base, args=TINY_ARGS, work_dir=tmp_path / "folds")
    one, two = fit(rows), fit(rows.select(range(48)))
    assert one(test).shape == (30, 3)
    assert not np.array_equal(one(test), two(test))
    assert list((tmp_path / "folds").iterdir()) == []
    assert np.array_equal(one(test), fit(rows)(test))
    kept = trainer_fit(toy_task(), base_model=base, args=TINY_ARGS, work_dir=tmp_path / "folds", keep=True)
    kept(rows)
    (folder,) = (tmp_path / "folds").iterdir()
    assert folder.name.startswith("fold-")
    assert np.array_equal(predict_proba(toy_task(), folder, test), one(test))


def test_evaluate_tells_apart_rows_that_the_model_saw(base: Path, tmp_path: Path) -> None:
    seen, new = toy_rows(48), toy_rows(40, seed=1)
    folder = run(base, tmp_path / "m", seen)
    clean = evaluate(toy_task(), folder, new, n_bootstrap=50)
    assert clean.excluded is None
    assert (clean.model["name"], clean.model["rows"], clean.dataset["groups"]) == ("m", {"gold": 48}, 20)
    from datasets import concatenate_datasets

    mixed = evaluate(toy_task(), folder, concatenate_datasets([seen.select(range(8)), new]), n_bootstrap=50)
    assert mixed.n == 48
    assert mixed.excluded is not None
    assert mixed.excluded.n == 40
    assert mixed.excluded.values == pytest.approx(clean.values, nan_ok=True)  # other batches, other rounding
    held = evaluate(toy_task(), folder, new, exclude=new.select(range(10)), n_bootstrap=50)
    assert held.excluded is not None
    assert held.excluded.n == 30
    own = evaluate(toy_task(), folder, seen, n_bootstrap=50)
    assert (own.excluded, own.dataset["seen"], mixed.dataset["seen"], clean.dataset["seen"]) == (None, 48, 8, 0)
    with pytest.raises(ColumnError, match="no row"):
        evaluate(toy_task(), folder, new.select([]))
