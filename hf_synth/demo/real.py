"""The demo with nothing simulated but, unless real text is given, the notes: a small real LLM and a pretrained encoder.

SmolLM2 (135 million parameters) writes the notes, MiniLM (23 million) is the corrector and is fine-tuned. Both come
with Python packages and run on this machine. They are weak, so that the outcome may well be that synthetic notes bring
nothing: it is reported as it is.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.demo.journey import pull
from hf_synth.errors import GoldError, TaskError
from hf_synth.evaluation.comparison import compare
from hf_synth.experiments.journey import run, score_table
from hf_synth.experiments.journey_report import write_journey_report
from hf_synth.experiments.journey_sections import Journey
from hf_synth.generation.generation import generate, generation_table
from hf_synth.generation.prompts import prompt_for
from hf_synth.gold.gold import load_gold, subset
from hf_synth.hub import connected, running_hub
from hf_synth.llm.llm import LLM
from hf_synth.llm.local_server import servable
from hf_synth.llm.questions import Answer, Messages, Question
from hf_synth.models.base_models import licence_note
from hf_synth.models.loading import model_folder
from hf_synth.models.record import weights_sha256
from hf_synth.privacy.audit import audit
from hf_synth.publishing.publishing import publish_dataset, publish_model
from hf_synth.reports.page import Section, Table
from hf_synth.task.columns import USAGE_COLUMNS
from hf_synth.task.folders import clear_disk_errors, private_folder, work_folder, write_stage
from hf_synth.task.scripts import load_task

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from hf_synth.task.task import Prompt, Task

GENERATOR, ENCODER = "smollm2", "minilm"
ENCODER_REPO = "sentence-transformers/all-MiniLM-L6-v2"
ARTIFICIAL = "The LLM and the encoder are real and small; the notes of the gold are artificial."
REAL = "The LLM and the encoder are real and small; the gold is real text."
_CONTEXT = 2_048  # tokens; the short prompt needs no more
_SHORTEST_TEXT, _LONGEST_TEXT = 15, 500  # characters of a note; the name of a label alone is none
_MOST_WORDS = 160  # of an exemplar; longer gold is not shown to a model this small
# `TrainingArguments` of every model: MiniLM learns little at the learning rates of larger encoders.
TRAINING: dict[str, Any] = {"learning_rate": 2e-4, "max_steps": 100, "per_device_train_batch_size": 16}


@dataclass(frozen=True)
class Sizes:
    """How much the demo does: 23 minutes were measured on two busy cores.

    Args:
        gold: gold rows that the demo may use.
        shown: rows of them that the LLM, the corrector and the models learn from.
        test: test rows.
        notes: synthetic notes.
        calls: the most questions to the LLM.
    """

    gold: int = 400
    shown: int = 100
    test: int = 400
    notes: int = 150
    calls: int = 260


FULL = Sizes(gold=1_200, shown=200, test=1_000, notes=600, calls=1_200)


def demo_real(
    out: Path,
    *,
    task: str = "clinic",
    gold: Path | None = None,
    seed: int = 0,
    sizes: Sizes | None = None,
    threads: int | None = None,
    progress: bool = True,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run the demo into a folder; return its figures.

    Args:
        out: folder for everything; an earlier demo there is continued: answers in its journal are used again.
        task: name of a task, such as "sdoh_nli:pair" or "mts_dialog:section".
        gold: the files of the task; needed for every task but `clinic`.
        sizes: numbers of rows and calls; `Sizes()` when None.
        threads: of the LLM's server; one for each free core when None.
        progress: show a progress bar while the LLM writes.
        say: called with each line of progress.

    Raises:
        TaskError: the task has no single label.
        LLMError, ModelError: a package is missing; the sentence says how it is installed.
        HfSynthError: the error of a stage.
    """
    started, sizes = time.perf_counter(), sizes or Sizes()
    definition = load_task(task)
    if definition.kind != "single_label":
        raise TaskError(f"task {definition.full_name!r} is {definition.kind}; the demo needs one of a single label")
    servable(GENERATOR)  # a missing package is named before anything is done
    encoder = _encoder_facts()
    out = private_folder(Path(out))
    splits = _small_gold(definition, load_gold(definition, gold, seed=seed), sizes, seed)
    write_stage(definition, splits, out / "gold", stage="gold", seed=seed)
    artificial = definition.name == "clinic"
    shown = subset(definition, splits["train"], min(sizes.shown, len(splits["train"])), seed=seed)
    kind = "artificial notes" if artificial else "real text"
    say(f"gold ({kind}): {len(shown):,} rows to learn from, {len(splits['test']):,} test rows")
    noted: dict[str, Any] = {}

    def write(shown: Dataset) -> Dataset:
        how: dict[str, Any] = {"seed": seed, "threads": threads, "progress": progress}
        rows, weights, speed = _write_notes(definition, _short_notes(definition, shown), out, sizes, **how)
        say(f"{weights['name']}: {_yield(rows)}; {speed['written']:,} tokens in {speed['seconds']:,} s")
        noted.update(rows=rows, weights=weights, speed=speed)
        return rows

    journey = run(
        definition,
        write,
        gold=splits,
        base_model=ENCODER,
        out=out,
        gold_size=len(shown),
        arms=("gold", "gold_plus_raw", "gold_plus_corrected"),
        training={"args": TRAINING},
        seed=seed,
        say=say,
        caption=ARTIFICIAL if artificial else REAL,
    )
    outcome = describe_outcomes(journey)
    published = _publish(journey, splits, say)
    facts: dict[str, Any] = {
        "task": definition.full_name,
        "gold": kind,
        "generator": noted["weights"],
        "encoder": encoder,
        "answers": noted["speed"],
        "rows": dict(Counter(noted["rows"]["label_status"])),
        "policy": journey.policy.method,
        "outcome": outcome,
        "audit": _audited(definition, journey.corrected, shown, splits),
        "published": published,
        "seconds": dict(journey.seconds),
    }
    report = write_journey_report(journey, more=[_section(facts)])
    facts["seconds"]["all"] = round(time.perf_counter() - started, 1)
    with clear_disk_errors(out):
        (out / "demo.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    print(f"\n{generation_table(noted['rows'])}\n\n{score_table(definition, journey.scores)}\n")
    print("\n".join([*outcome.values(), *_verdict_lines(published), journey.caption]))
    print(f"\nreport: {report}   seconds: {facts['seconds']['all']}")
    return facts


def _encoder_facts() -> dict[str, str]:
    """Return name, licences and digest of the encoder."""
    folder = model_folder(ENCODER)
    licence = licence_note(ENCODER_REPO).removeprefix("licence ")
    return {"name": ENCODER_REPO, "licence": licence, "sha256": weights_sha256(folder)}


def _small_gold(task: Task, gold: DatasetDict, sizes: Sizes, seed: int) -> DatasetDict:
    from datasets import DatasetDict

    counts = {"train": sizes.gold, "test": sizes.test}
    if not set(counts) <= set(gold):
        raise GoldError(f"the demo needs gold with splits 'train' and 'test'; there are {', '.join(gold)}")
    return DatasetDict({s: subset(task, gold[s], min(n, len(gold[s])), seed=seed) for s, n in counts.items()})


def _short_notes(task: Task, gold: Dataset) -> Dataset:
    """Return the gold rows that are short enough to be shown; all of them where few are."""
    lengths = [sum(len(str(row[c]).split()) for c in task.text_columns) for row in gold]
    short = [i for i, words in enumerate(lengths) if words <= _MOST_WORDS]
    return gold.select(short) if len(short) >= len(gold) // 2 else gold


def short_prompt(task: Task) -> Prompt:
    """Return the task's prompt for a small model: two exemplars of one label, one note an answer, a low limit."""
    sampling = (("temperature", 0.8), ("top_p", 0.95), ("max_tokens", 220))
    how: dict[str, Any] = {"exemplars": "same_label", "n_exemplars": 2, "asks_for": "one_label", "rows": 1}
    return replace(prompt_for(task), name="short", sampling=sampling, attributes=(), facts=False, **how)


@dataclass(frozen=True)
class OneEntryLLM:
    """An LLM whose answers end after one short entry: a model this small goes on with entries that nobody asked for."""

    llm: LLM

    @property
    def model(self) -> str:
        """The name of the model."""
        return self.llm.model

    @property
    def journal(self) -> str | Path | None:
        """The file that keeps the answers."""
        return self.llm.journal

    @property
    def ahead(self) -> int:
        """How far a plan may run ahead of the oldest open question."""
        return self.llm.ahead

    def with_journal(self, path: str | Path) -> OneEntryLLM:
        """Return a copy with another journal."""
        return OneEntryLLM(self.llm.with_journal(path))

    def chat(self, list_of_messages: Iterable[Messages | Question], **options: Any) -> list[Answer]:
        """Ask all questions and return their answers in order."""
        return list(self.stream(list_of_messages, **{"ahead": None, **options}))

    def stream(self, list_of_messages: Iterable[Messages | Question | None], **options: Any) -> Iterator[Answer]:
        """Yield the answers in order as they arrive."""
        return self.llm.stream(list_of_messages, **{**options, "schema": one_entry_schema(options.get("schema"))})

    def keep(self, keys: Sequence[str]) -> None:
        """Keep answers that were cut by the server after all."""
        self.llm.keep(keys)


def one_entry_schema(schema: Any) -> Any:
    """Return the schema of an answer (`answer_schema`) with one entry, whose texts have a bounded length."""
    if isinstance(schema, list):
        return [one_entry_schema(value) for value in schema]
    if not isinstance(schema, Mapping):
        return schema
    inner = {name: one_entry_schema(value) for name, value in schema.items()}
    if inner.get("type") == "array" and isinstance(inner.get("items"), dict) and inner["items"].get("type") == "object":
        inner |= {"minItems": 1, "maxItems": 1}
    if "maxLength" in inner:
        inner |= {"minLength": _SHORTEST_TEXT, "maxLength": _LONGEST_TEXT}
    return inner


def _write_notes(
    task: Task, shown: Dataset, out: Path, sizes: Sizes, *, seed: int, threads: int | None, progress: bool
) -> tuple[Dataset, dict[str, str], dict[str, Any]]:
    """Let the LLM write notes; return the rows, the facts of its weights, and its speed."""
    started = time.perf_counter()
    journal = work_folder(out) / "journal.sqlite"
    with LLM.local_gguf(GENERATOR, context=_CONTEXT, threads=threads, journal=journal) as llm:
        rows = generate(
            task,
            shown,
            OneEntryLLM(llm),
            sizes.notes,
            prompt=short_prompt(task),
            max_calls=sizes.calls,
            seed=seed,
            progress=progress,
        )
        weights = llm.weights.facts if llm.weights else {}
    read, written = (sum(n for n in rows[c] if n) for c in USAGE_COLUMNS[:2])
    return rows, weights, {"read": read, "written": written, "seconds": round(time.perf_counter() - started, 1)}


def _yield(rows: Dataset) -> str:
    counts = Counter(rows["label_status"])
    return f"{counts['kept']:,} notes, {counts['rejected']:,} answers rejected"


def describe_outcomes(journey: Journey) -> dict[str, str]:
    """Compare each mixture with gold alone; return a sentence for each, whatever it says."""
    alone = next(name for name in journey.scores if "_plus_" not in name)
    main = journey.task.metrics[0]
    sentences = {}
    for name, scores in journey.scores.items():
        if name == alone:
            continue
        gain = compare(scores, journey.scores[alone], main)
        if gain.ci95 is None:
            words, interval = "cannot be told from none", f"no interval: {gain.no_interval}"
        else:
            low, high = gain.ci95
            words = "is a gain" if low > 0 else "is a loss" if high < 0 else "is no gain that can be told from chance"
            interval = f"95% interval {low:+.3f} to {high:+.3f}"
        sentences[name] = f"{name} against {alone}: {main} {gain.value:+.3f} ({interval}): this {words}"
    return sentences


def _audited(task: Task, rows: Dataset, shown: Dataset, gold: DatasetDict) -> dict[str, Any]:
    findings = audit(task, rows, gold=shown, held_out=gold["test"])
    return {"rows": len(rows), "refused": len(findings.refused)}


def _publish(journey: Journey, gold: DatasetDict, say: Callable[[str], None]) -> dict[str, Any]:
    """Publish rows and the model that learnt from them to a local Hub; a refusal is a result like any other."""
    task, folder = journey.task, journey.out / "published"
    best = [name for name in journey.models if "_plus_" in name][-1]
    names = {"dataset": f"demo/synth-{_plain(task)}", "model": f"demo/{_plain(task)}-model"}
    with running_hub(journey.out / "hub") as hub, connected(hub):
        say("publishing to a local Hub, after audit and gate")
        how: dict[str, Any] = {"gold": gold, "private": False, "token": hub.token, "endpoint": hub.url}
        verdicts = {
            "dataset": publish_dataset(
                task, journey.corrected, names["dataset"], scores=journey.scores, policy=journey.policy,
                export_dir=folder / "dataset", **how,
            ),
            "model": publish_model(
                task, journey.models[best], journey.scores[best], names["model"], export_dir=folder / "model", **how
            ),
        }  # fmt: skip
        result: dict[str, Any] = {
            kind: {"name": names[kind], "allowed": v.allowed, "reasons": list(v.reasons), "counts": dict(v.counts)}
            for kind, v in verdicts.items()
        }
        if all(verdict.allowed for verdict in verdicts.values()):
            result["pulled"] = pull(hub, journey.out, names["dataset"], names["model"])
    return result


def _plain(task: Task) -> str:
    return task.name.replace("_", "-")


def _verdict_lines(published: Mapping[str, Any]) -> list[str]:
    return [
        f"{kind}: {'published to the local Hub' if one['allowed'] else 'not published: ' + '; '.join(one['reasons'])}"
        for kind, one in published.items()
        if kind != "pulled"
    ]


def _section(facts: Mapping[str, Any]) -> Section:
    """Show what was used, and what came of it."""
    models = [[one[name] for name in ("name", "licence", "sha256")] for one in (facts["generator"], facts["encoder"])]
    lines = [*facts["outcome"].values(), *_verdict_lines(facts["published"])]
    refused, rows = facts["audit"]["refused"], facts["audit"]["rows"]
    lines.append(f"privacy audit: {refused:,} of {rows:,} rows may not leave")
    table = Table(["model", "licence", "sha256"], models, "The models", "lll")
    return Section("What came of it", "\n".join(f"- {line}" for line in lines), tables=[table])
