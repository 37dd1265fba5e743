"""The help of the command line: groups of verbs, and the common options and examples of each verb.

A test parses every example with the parser of its verb.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

ABOUT = "Gold clinical notes in; label-corrected synthetic notes and a better fine-tuned encoder out."

GROUPS: dict[str, tuple[str, ...]] = {
    "Start": ("demo", "init", "doctor", "status", "tasks", "gold", "new-task", "models"),
    "Make": ("generate", "correct", "regenerate", "augment"),
    "Judge": ("sample", "review", "label", "assess"),
    "Train": ("train", "evaluate", "run", "experiment"),
    "Share": ("audit", "publish", "withdraw", "hub"),
    "Look after": ("merge", "journal", "completion"),
}

# Options that `VERB --help` shows, in this order; a verb without an entry has few and shows all. Names that a verb does
# not have are left out.
COMMON: dict[str, tuple[str, ...]] = {
    "gold": (
        "--out", "--validation", "--text-column", "--label-column", "--labels", "--group-column", "--name",
        "--meaning", "--skip-empty", "--access",
    ),
    "generate": (
        "--gold", "--llm", "--base-url", "--n", "--balance", "--out", "--preview", "--dry-run", "--concurrency",
        "--timeout",
    ),
    "correct": (
        "--gold", "--base-model", "--corrector", "--judge", "--method", "--audited", "--error", "--out", "--dry-run",
        "--set",
    ),
    "regenerate": (
        "--gold", "--llm", "--base-url", "--base-model", "--corrector", "--method", "--audited", "--rounds", "--out",
        "--dry-run",
    ),
    "init": (
        "--out", "--work", "--yes", "--text-column", "--label-column", "--group-column", "--meaning", "--llm",
        "--base-url", "--base-model",
    ),
    "review": (
        "--reviewer", "--show-llm", "--blind", "--export", "--per-label", "--n", "--error", "--realism", "--gold",
        "--port",
    ),
    "label": (
        "--llm", "--base-url", "--gold", "--as", "--text-column", "--access", "--votes", "--out", "--concurrency",
        "--timeout",
    ),
    "train": (
        "--gold", "--base-model", "--out", "--set", "--resume", "--class-weights", "--long-notes", "--lora",
        "--dry-run", "--seed",
    ),
    "publish": (
        "--repo-id", "--gold", "--scores", "--push", "--public", "--gated", "--tag", "--out", "--dry-run", "--yes",
    ),
    "run": (
        "--gold", "--gold-size", "--synthetic", "--llm", "--base-url", "--n", "--base-model", "--method", "--out",
        "--dry-run",
    ),
    "experiment": (
        "--gold", "--synthetic", "--llm", "--base-url", "--grid", "--sizes", "--seeds", "--base-model", "--out",
        "--dry-run",
    ),
}  # fmt: skip

EXAMPLES: dict[str, tuple[str, ...]] = {
    "demo": (
        "hf-synth demo",
        "hf-synth demo --out work/demo --full",
        "hf-synth demo --real --out work/demo-real",
    ),
    "init": (
        "hf-synth init notes.csv",
        "hf-synth init notes.csv --text-column message --label-column urgency --yes",
        "hf-synth init clinic --work work",
    ),
    "doctor": ("hf-synth doctor", "hf-synth doctor --llm smollm2", "hf-synth doctor --json"),
    "status": ("hf-synth status", "hf-synth status work", "hf-synth status work --json"),
    "tasks": (
        "hf-synth tasks",
        "hf-synth tasks --gold /secure/data",
        "hf-synth tasks --json",
    ),
    "gold": (
        "hf-synth gold notes.csv",
        "hf-synth gold notes.csv --text-column message --label-column urgency --out work/gold",
        "hf-synth gold mednli /secure/mednli.zip --out work/gold",
    ),
    "new-task": (
        "hf-synth new-task triage",
        "hf-synth new-task triage --out tasks",
        "hf-synth new-task falls --out tasks --json",
    ),
    "models": (
        "hf-synth models",
        "hf-synth models clinic",
        "hf-synth models mednli --gold /secure/mednli.zip --no-mimic",
    ),
    "generate": (
        "hf-synth generate clinic --llm simulator --n 50 --out work/synthetic",
        "hf-synth generate work/gold --llm smollm2 --preview",
        "hf-synth generate work/gold --llm llama3.1:8b --base-url http://127.0.0.1:11434/v1 --out work/synthetic",
    ),
    "correct": (
        "hf-synth correct work/gold work/synthetic --base-model minilm --out work/corrected",
        "hf-synth correct work/gold work/synthetic --corrector work/model --split validation --out work/corrected",
        "hf-synth correct work/gold work/synthetic --base-model minilm --error 0.05 --out work/corrected",
    ),
    "regenerate": (
        "hf-synth regenerate work/gold work/corrected --llm smollm2 --base-model minilm --out work/more",
        "hf-synth regenerate work/gold work/corrected --llm smollm2 --base-model minilm --rounds 1 --out work/more",
        "hf-synth regenerate work/gold work/corrected --llm smollm2 --dry-run",
    ),
    "augment": (
        "hf-synth augment work/gold work/corrected --out work/training",
        "hf-synth augment work/gold work/corrected --ratio 2 --out work/training",
        "hf-synth augment work/gold work/corrected --strategy synthetic --out work/training",
    ),
    "sample": (
        "hf-synth sample work/gold work/corrected --n 100",
        "hf-synth sample work/gold work/corrected --by label confidence --out to_label.csv",
        "hf-synth sample work/gold pool.jsonl --text-column note --llm-label-column label",
    ),
    "review": (
        "hf-synth review work/corrected",
        "hf-synth review work/corrected --reviewer ana --per-label 10",
        "hf-synth review work/corrected --export",
    ),
    "label": (
        "hf-synth label work/gold notes.parquet --llm mistral --base-url http://127.0.0.1:8000/v1 --out work/labels",
        "hf-synth label work/gold --gold --llm model.gguf --out work/gold-labelled",
        "hf-synth label work/gold work/synthetic --as llama --llm model.gguf --out work/two-opinions",
    ),
    "assess": (
        "hf-synth assess work/gold",
        "hf-synth assess work/gold --synthetic work/synthetic --audited work/audit_sample.csv",
        "hf-synth assess clinic --gold-size 200 --label 100",
    ),
    "train": (
        "hf-synth train work/gold work/training --base-model minilm --out work/model",
        "hf-synth train work/gold work/training --gold work/gold --base-model minilm --resume --out work/model",
        "hf-synth train work/gold work/gold --base-model minilm --set num_train_epochs=3 --out work/model-gold",
    ),
    "evaluate": (
        "hf-synth evaluate work/gold work/model",
        "hf-synth evaluate work/gold work/model --out work/scores.json",
        "hf-synth evaluate work/gold work/model --split validation --subgroups",
    ),
    "run": (
        "hf-synth run clinic --llm simulator --n 200 --gold-size 100 --out work/run",
        "hf-synth run work/gold --synthetic work/synthetic --base-model minilm --out work/run",
        "hf-synth run work/gold --llm smollm2 --base-model minilm --out work/run",
    ),
    "experiment": (
        "hf-synth experiment clinic --grid clinic --llm simulator --dry-run --out work/experiment",
        "hf-synth experiment work/gold --synthetic work/synthetic --sizes 0 --seeds 0 1 2 --out work/experiment",
        "hf-synth experiment work/gold --llm smollm2 --base-model minilm --processes 2 --out work/experiment",
    ),
    "audit": (
        "hf-synth audit work/gold work/corrected",
        "hf-synth audit work/gold work/corrected --out work/audit",
        "hf-synth audit work/gold work/corrected --model work/model --out work/audit",
    ),
    "publish": (
        "hf-synth publish work/gold work/corrected --gold work/gold --repo-id ward/synth-triage --dry-run",
        "hf-synth publish work/gold work/corrected --gold work/gold --repo-id ward/synth-triage --push",
        "hf-synth publish work/gold work/model --gold work/gold --scores work/scores.json --repo-id ward/grader --push",
    ),
    "withdraw": (
        "hf-synth withdraw ward/synth-triage --dry-run",
        "hf-synth withdraw ward/synth-triage --tag v1",
        "hf-synth withdraw ward/grader --kind model --yes",
    ),
    "hub": (
        "hf-synth hub serve --root work/hub",
        "hf-synth hub create-user ana --root work/hub --org ward",
        "hf-synth hub ls --root work/hub --check",
    ),
    "hub serve": (
        "hf-synth hub serve --root work/hub",
        "hf-synth hub serve --root work/hub --port 8090 --members-only",
    ),
    "hub create-user": ("hf-synth hub create-user ana --root work/hub --org ward --token-file ana.token",),
    "hub remove-user": ("hf-synth hub remove-user ana --root work/hub --repos-to ward",),
    "hub org": ("hf-synth hub org ward --root work/hub --add ana --role read",),
    "hub token": ("hf-synth hub token create ana --root work/hub --days 30", "hf-synth hub token list --root work/hub"),
    "hub token create": ("hf-synth hub token create ana --root work/hub --token-role read --days 30",),
    "hub token list": ("hf-synth hub token list ana --root work/hub",),
    "hub token revoke": ("hf-synth hub token revoke 3f2a --root work/hub",),
    "hub ls": ("hf-synth hub ls --root work/hub --check",),
    "hub gc": ("hf-synth hub gc --root work/hub --dry-run",),
    "merge": (
        "hf-synth merge work/corrected",
        "hf-synth merge work/synthetic --journal /scratch/notes.sqlite",
        "hf-synth merge work/labelled -q",
    ),
    "journal": (
        "hf-synth journal ls work",
        "hf-synth journal export work --out answers.jsonl",
        "hf-synth journal gc work --status empty --dry-run",
    ),
    "journal ls": ("hf-synth journal ls work",),
    "journal show": ("hf-synth journal show work 3f2a --text",),
    "journal verify": ("hf-synth journal verify work",),
    "journal export": ("hf-synth journal export work --out answers.jsonl",),
    "journal merge": ("hf-synth journal merge node1 node2 --out work/journal.sqlite",),
    "journal gc": ("hf-synth journal gc work --days 90 --dry-run",),
    "completion": (
        'eval "$(hf-synth completion bash)"',
        "hf-synth completion zsh > ~/.hf-synth.zsh",
        "hf-synth completion fish > ~/.config/fish/completions/hf-synth.fish",
    ),
}

_FIRST_COMMANDS = (  # the start page; a verb that does not exist is left out
    ("demo", "hf-synth demo", "the whole journey on artificial notes: no network, no key"),
    ("init", "hf-synth init notes.csv", "your own table: looks at it, asks, writes hf_synth.toml"),
    ("gold", "hf-synth gold notes.csv", "your own table: its columns, and the command that reads it"),
    ("tasks", "hf-synth tasks", "tasks that are known, and the files they need"),
    ("models", "hf-synth models", "base models, and which of them are here"),
)


def start_page(verbs: Mapping[str, object]) -> str:
    """Return what `hf-synth` alone prints: four first commands, and where the help is."""
    lines = [(command, text) for verb, command, text in _FIRST_COMMANDS if verb in verbs][:4]
    width = max(len(command) for command, _ in lines)
    first = "\n".join(f"  {command:{width}}  {text}" for command, text in lines)
    return f"hf-synth: {ABOUT}\n\nStart with\n{first}\n\nAll verbs: hf-synth --help. One of them: hf-synth VERB --help."


def overview(verbs: Mapping[str, tuple[str, str]]) -> str:
    """Return what `hf-synth --help` prints: the verbs in groups, each in one line.

    Args:
        verbs: name -> (module, line of help).
    """
    width = max(map(len, verbs))
    parts = ["usage: hf-synth VERB [options]", textwrap.fill(ABOUT, 100)]
    grouped = {name for names in GROUPS.values() for name in names}
    groups = {**GROUPS, "More": tuple(name for name in verbs if name not in grouped)}
    for title, names in groups.items():
        lines = [f"  {name:{width}}  {verbs[name][1]}" for name in names if name in verbs]
        if lines:
            parts.append("\n".join([title, *lines]))
    parts.append(
        "gold -> generate -> correct -> augment -> train -> evaluate -> publish; `run` does most of it at once.\n"
        "hf-synth VERB --help shows its common options, --help-all every one; hf-synth --version."
    )
    return "\n\n".join(parts)
