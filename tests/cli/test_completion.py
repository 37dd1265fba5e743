"""Shell completion: the script of bash is run in bash; those of zsh and fish hold the same words."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from hf_synth.cli.cli import VERBS, main, verb_parser
from hf_synth.cli.completion import SHELLS
from hf_synth.cli.options import PACKAGED_LLMS
from hf_synth.cli.parsing import options_of
from hf_synth.llm.gguf_files import PACKAGED
from hf_synth.task.scripts import task_names

BASH = shutil.which("bash")


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from contextlib import redirect_stdout

    file = tmp_path_factory.mktemp("completion") / "hf-synth.bash"
    with file.open("w", encoding="utf-8") as out, redirect_stdout(out):
        assert main(["completion", "bash"]) == 0
    return file


def completed(script: Path, cases: list[list[str]], cwd: Path) -> list[list[str]]:
    """Return what bash proposes for the last word of each command line, as its `complete` calls the function."""
    lines = [f"source {script}", "complete -p hf-synth | grep -q _hf_synth || exit 9"]
    for words in cases:
        quoted = " ".join(f"'{word}'" for word in words)
        lines += [
            f"COMP_WORDS=(hf-synth {quoted}); COMP_CWORD={len(words)}; COMPREPLY=(); _hf_synth",
            '(IFS="|"; echo "${COMPREPLY[*]}")',
        ]
    assert BASH is not None
    done = subprocess.run([BASH, "--norc", "-c", "\n".join(lines)], capture_output=True, text=True, cwd=cwd, check=True)
    assert done.stderr == ""
    return [line.split("|") for line in done.stdout.splitlines()]


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes_verbs_options_values_and_files(script: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.csv").touch()
    (tmp_path / "work").mkdir()
    (tmp_path / "old notes.csv").touch()
    cases: dict[tuple[str, ...], set[str]] = {
        ("gen",): {"generate"},
        ("",): set(VERBS),
        ("--v",): {"--version"},
        ("generate", "--bal"): {"--balance"},
        ("generate", "clinic", "--balance", ""): {"equal", "gold", "fill"},
        ("correct", "--method", "post"): {"posterior"},
        ("train", "clini"): {"clinic", "clinic:facts"},
        ("train", "mednli", ":", "pa"): {"pair"},
        ("train", "mednli", ":"): {"pair", "text2text"},
        ("train", "mednli:pa"): {"mednli:pair"},  # in zsh, and where : divides no word
        ("demo", "--task", "=", "mednli", ":", "te"): {"text2text"},
        ("review", "--task", "n"): {"notes.csv"},
        ("correct", "--judge", "n"): {"notes.csv"},
        ("correct", "--judge", "s"): {"simulator", "smollm2"},
        ("train", "--base-model", "mi"): {"minilm"},
        ("generate", "--balance", "n"): {""},
        ("tasks", ""): {""},
        ("completion", ""): {"bash", "zsh", "fish"},
        ("train", "no"): {"notes.csv"},
        ("train", "clinic", "--out", "wo"): {"work"},
        ("train", "clinic", "--n"): {"--no-config"},
        ("generate", "clinic", "--n", ""): {"notes.csv", "old notes.csv", "work"},
        ("train", "old"): {"old notes.csv"},
        ("train", '"old no'): {"old notes.csv"},
        ("train", "old\\ no"): {"old notes.csv"},
        ("generate", "--balance", "=", "fi"): {"fill"},
        ("generate", "--balance", "="): {"equal", "gold", "fill"},
        ("generate", "--gold", "=", "old"): {"old notes.csv"},
        ("generate", "--balance=fi"): {"--balance=fill"},  # in zsh, which divides no word
        ("demo", "--task=mednli:te"): {"--task=mednli:text2text"},
        ("generate", "--gold=old"): {"--gold=old notes.csv"},
        ("generate", "--llm", "s"): {"simulator", "smollm2"},
        ("generate", "--llm", "n"): {"notes.csv"},
        ("hub", "to"): {"token"},
        ("hub", "token", "cr"): {"create"},
        ("hub", "token", "create", "ana", "--token-r"): {"--token-role"},
        ("hub", "serve", "--po"): {"--port"},
        ("journal", "ls", "--no"): {"--no-config"},
        ("completion", "fi"): {"fish"},
        ("run", "clinic", "--long-notes", "windows_"): {"windows_mean"},
    }
    found = completed(script, [list(words) for words in cases], tmp_path)
    for (words, expected), got in zip(cases.items(), found, strict=True):
        assert set(got) == expected, words


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_every_option_of_every_verb_is_completed(script: Path, tmp_path: Path) -> None:
    verbs = [verb for verb in VERBS if verb not in ("hub", "journal")]
    for verb, got in zip(verbs, completed(script, [[verb, "-"] for verb in verbs], tmp_path), strict=True):
        assert set(got) == {name for action in options_of(verb_parser(verb)) for name in action.option_strings}, verb


@pytest.mark.parametrize("shell", SHELLS)
def test_the_scripts_are_free_of_errors_of_syntax(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, shell: str
) -> None:
    if (program := shutil.which(shell)) is None:
        pytest.skip(f"needs {shell}")
    assert main(["completion", shell]) == 0
    file = tmp_path / "script"
    file.write_text(capsys.readouterr().out)
    done = subprocess.run([program, "-n", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_nothing_heavy_is_loaded_for_the_script() -> None:
    assert [packaged.name for packaged in PACKAGED] == list(PACKAGED_LLMS)
    code = "import sys; from hf_synth.cli.cli import main; main(['completion', 'fish']); print('numpy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_the_same_words(capsys: pytest.CaptureFixture[str], shell: str) -> None:
    assert main(["completion", shell]) == 0
    text = capsys.readouterr().out
    for word in (*VERBS, *task_names(), "posterior", "simulator"):
        assert word in text
    if shell == "zsh":
        assert "bashcompinit" in text
        assert "complete -o" in text
    else:
        _, functions, text = text.partition("function ")
        lines = text[text.rindex("\nend\n") + 5 :].splitlines()
        assert functions
        assert all(line.startswith("complete -c hf-synth ") for line in lines)
        assert all(line.count("'") % 2 == line.count("\\'") % 2 for line in lines), "quotes are closed"
        assert any("-l balance -x -a 'equal gold fill'" in line for line in lines)


FISH = shutil.which("fish")


@pytest.mark.skipif(FISH is None, reason="needs fish")
def test_fish_completes_verbs_options_values_and_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "notes.csv").touch()
    assert main(["completion", "fish"]) == 0
    file = tmp_path / "hf-synth.fish"
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    cases: dict[str, set[str]] = {
        "gen": {"generate"}, "--": {"--help", "--version"}, "generate --bal": {"--balance"}, "tasks ": set(),
        "generate gold --meani": set(), "completion ": set(SHELLS), "train mednli:pa": {"mednli:pair"},
        "correct --judge n": {"notes.csv"}, "correct --judge s": {"simulator", "smollm2"}, "hub to": {"token"},
        "hub token cr": {"create"}, "hub token create ana --token-r": {"--token-role"}, "train hub toke": set(),
        "generate --balance=fi": {"--balance=fill"}, "train clinic --out no": {"notes.csv"},
    }  # fmt: skip
    assert FISH is not None
    for typed, expected in cases.items():
        code = f"source {file}; complete -C 'hf-synth {typed}'"
        done = subprocess.run([FISH, "-N", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True)
        assert {line.split("\t")[0] for line in done.stdout.splitlines()} == expected, (typed, done.stderr)
