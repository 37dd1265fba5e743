"""Help: the start page, the groups of verbs, short and full help, and examples that parse."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache

import pytest

from hf_synth.cli.cli import VERBS, main, parse_command, verb_parser
from hf_synth.cli.help import COMMON, EXAMPLES, GROUPS
from hf_synth.cli.parsing import Parser, options_of, verbs_of
from hf_synth.errors import did_you_mean


@cache
def leaves() -> dict[str, Parser]:
    def below(parser: Parser) -> Iterator[Parser]:
        verbs = verbs_of(parser)
        for verb in verbs.values():
            yield from below(verb)
        if not verbs:
            yield parser

    return {leaf.prog.removeprefix("hf-synth "): leaf for name in VERBS for leaf in below(verb_parser(name))}


def test_without_a_word_a_start_page_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 0
    page = capsys.readouterr().out
    commands = re.findall(r"^  (hf-synth \S+)", page, re.MULTILINE)
    assert len(commands) == 4
    assert all(command.split()[1] in VERBS for command in commands)
    assert "hf-synth --help" in page
    assert len(page.splitlines()) <= 12


@pytest.mark.parametrize("words", [["--help"], ["-h"], ["help"]])
def test_help_groups_every_verb_once(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    assert main(words) == 0
    page = capsys.readouterr().out
    assert re.findall(r"^  (\S+)  ", page, re.MULTILINE) == [
        n for names in GROUPS.values() for n in names if n in VERBS
    ]
    assert [line for line in page.splitlines() if line in GROUPS] == list(GROUPS)
    assert "More" not in page.splitlines(), "a verb stands in no group"


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert re.fullmatch(r"hf-synth \d+\.\d+\.\d+\n", capsys.readouterr().out)


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_has_three_examples_that_parse(verb: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    assert len(EXAMPLES[verb]) == 3
    assert len(set(EXAMPLES[verb])) == 3
    for example in EXAMPLES[verb]:
        line = example.removeprefix('eval "$(').removesuffix(')"').partition(" > ")[0]
        words = shlex.split(line)
        assert words[:2] == ["hf-synth", verb]
        _, args = parse_command(words[1:])
        assert callable(args.run), example


def test_examples_of_verbs_below_parse_too(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    below = [name for name in EXAMPLES if " " in name]
    assert {name for name in leaves() if " " in name} <= set(below)
    for name in below:
        for example in EXAMPLES[name]:
            assert example.startswith(f"hf-synth {name}")
            parse_command(shlex.split(example)[1:])


def test_every_option_is_explained() -> None:
    for name, parser in leaves().items():
        for action in [*parser.places, *options_of(parser)]:
            what = f"{name}: {action.option_strings or action.dest}"
            text = action.help or ""
            assert len(text) > 8, what
            assert not re.search(r"^\(|, too$|\bso often\b", text), f"{what}: {text}"
            if action.nargs != 0:
                assert action.metavar or action.choices, f"{what} has no metavar"
            text % dict(vars(action), prog="x")  # a % in it would end the help


def test_help_is_short_and_help_all_is_whole(capsys: pytest.CaptureFixture[str]) -> None:
    for name, parser in leaves().items():
        pages = []
        for word in ("--help", "--help-all"):
            with pytest.raises(SystemExit, match="0"):
                main([*name.split(), word])
            pages.append(capsys.readouterr().out)
        short, whole = (set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", page, re.MULTILINE)) for page in pages)
        every = {name for action in options_of(parser) for name in action.option_strings if name.startswith("--")}
        assert whole == every, name
        assert len(short - {"--help-all", "--config", "--json", "--quiet"}) <= 12, name
        assert pages[0].startswith(f"usage: hf-synth {name}")
        for action in parser.places:
            assert all(re.search(rf"^  {action.metavar}  ", page, re.MULTILINE) for page in pages)
        assert "\nexamples:\n  hf-synth" in pages[0] or name == "completion"
        if short < whole - {"--help", "--no-config"}:
            assert re.search(r"^\d+ more options: hf-synth", pages[0], re.MULTILINE), name


def test_common_options_are_those_of_their_verb() -> None:
    later = {"--dry-run"}  # of correct, train and run
    for name, common in ((name, common) for name, common in COMMON.items() if name in VERBS):
        options = {o for action in options_of(leaves()[name]) for o in action.option_strings}
        assert set(common) - later <= options, name


def test_the_default_of_an_option_is_said_and_is_the_default() -> None:
    for name, parser in leaves().items():
        for action in options_of(parser):
            said = re.search(r"\(default: (\d+(?:\.\d+)?)[);,]", action.help or "")
            if said and action.default is not None:
                assert float(said[1]) == float(action.default), f"{name} {action.option_strings}"


@pytest.mark.parametrize("word", ["--help", "--help-all"])
def test_the_help_holds_defaults_that_their_text_does_not_name(capsys: pytest.CaptureFixture[str], word: str) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["augment", word])
    assert "(default: augment)" in " ".join(capsys.readouterr().out.split())
    for name, parser in leaves().items():
        for action in options_of(parser):
            if action.nargs != 0 and action.default not in (None, argparse.SUPPRESS, "", []):
                assert "default: " in str(action.help), f"{name} {action.option_strings}"


def test_options_without_effect_are_gone() -> None:
    for name in ("tasks", "models", "new-task", "withdraw", "completion", "journal ls", "hub serve", "hub ls"):
        assert not any(action.dest == "seed" for action in options_of(leaves()[name])), name
    assert not any(action.dest == "json" for action in options_of(leaves()["hub serve"]))
    assert parse_command(["hub", "serve", "--root", "x", "--no-config"])[1].json is False


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["generat"], "there is no verb 'generat'; did you mean 'generate'?"),
        (["xyz"], "there is no verb 'xyz'; there are "),
        (["-q", "generate"], "name the verb before its options (-q)"),
        (["generate", "clinic", "--ot", "x"], "there is no option --ot; did you mean '--out'?"),
        (["generate", "clinic", "--valid"], "there is no option --valid"),
        (["gold", "clinic", "--valid", "1"], "did you mean '--validation'?"),
        (["demo", "--n"], "there is no option --n"),
        (["generate", "clinic"], "--llm MODEL is missing: the LLM"),
        (["train", "clinic", "--out", "o"], "DATA is missing: "),
        (["tasks", "mednli"], "there is no place for 'mednli': the verb takes options only"),
        (["correct", "a", "b", "--out", "o", "--method", "posteror"], "did you mean 'posterior'?"),
        (["hub", "serv"], "there is no verb 'serv'; did you mean 'serve'?"),
        (["hub"], "name a verb: serve, create-user"),
        (["hub", "--root", "x"], "name a verb: serve, create-user"),
        (["hub", "token", "lst"], "did you mean 'list'?"),
        (["completion", "bsh"], "did you mean 'bash'?"),
        (["generate", "clinic", "--n", "many"], "argument --n"),
        (["generate", "clinic", "--out"], "--out"),
    ],
)
def test_a_wrong_command_line_is_explained(capsys: pytest.CaptureFixture[str], words: list[str], says: str) -> None:
    try:
        code = main(words)
    except SystemExit as ended:
        code = int(str(ended.code))
    usage, line = capsys.readouterr().err.splitlines()
    assert code == 2
    assert says in line
    verb = words[0] if words[0] in VERBS else "VERB"
    assert usage.startswith(f"usage: hf-synth {verb}")
    assert "--help` " in line


def test_what_is_not_near_is_not_proposed() -> None:
    assert did_you_mean("xyz", ["generate", "gold"]) == ""
    assert did_you_mean("g", ["generate", "gold"]) == ""
    assert did_you_mean("Simulater", ["simulator"]) == "; did you mean 'simulator'?"
    assert did_you_mean("Bio_ClinicalBER", ["emilyalsentzer/Bio_ClinicalBERT"]).endswith("ClinicalBERT'?")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["generate", "clinik", "--llm", "simulator", "--out", "o"],
            "there is no task 'clinik'; did you mean 'clinic'?",
        ),
        (["generate", "clinic", "--llm", "simulater", "--out", "o"], "did you mean 'simulator'?"),
        (["generate", "clinic", "--llm", "smolm2", "--out", "o"], "did you mean 'smollm2'?"),
    ],
)
def test_a_name_that_is_almost_right_is_proposed(
    capsys: pytest.CaptureFixture[str], tmp_path: object, monkeypatch: pytest.MonkeyPatch, words: list[str], says: str
) -> None:
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert main(words) == 1
    assert says in capsys.readouterr().err


def test_a_base_model_that_is_almost_right_is_proposed(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub

    from hf_synth.errors import ModelError
    from hf_synth.models.loading import model_folder

    def missing(*_: object, **__: object) -> None:
        raise huggingface_hub.errors.LocalEntryNotFoundError("offline")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", missing)
    for wrong, right in (("minilmm", "minilm"), ("emilyalsentzer/Bio_ClinicalBER", "emilyalsentzer/Bio_ClinicalBERT")):
        with pytest.raises(ModelError, match=f"did you mean '{right}'"):
            model_folder(wrong)


def test_words_may_stand_between_and_after_options(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))
    for words in (
        ["gold", "--out", "o", "mednli", "m.zip"],
        ["gold", "mednli", "--out", "o", "m.zip"],
        ["gold", "mednli", "m.zip", "--out", "o"],
        ["gold", "--out=o", "--", "mednli", "m.zip"],
    ):
        args = parse_command(words)[1]
        assert (args.task, str(args.path), str(args.out)) == ("mednli", "m.zip", "o")
    assert parse_command(["label", "clinic", "-5", "--llm", "m", "--out", "o"])[1].notes.name == "-5"


def test_the_parsers_use_argparse_as_it_is_documented() -> None:
    parser = leaves()["correct"]
    assert isinstance(parser, argparse.ArgumentParser)
    before = [(action.dest, action.default, action.required) for action in options_of(parser)]
    parse_command(["correct", "a", "b", "--out", "o", "--no-config"])
    assert [(action.dest, action.default, action.required) for action in options_of(parser)] == before


@pytest.mark.parametrize("empty", [["--out="], ["--out", ""], ["--out", " "]])
def test_an_empty_value_is_a_wrong_command_line(empty: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    for name, parser in leaves().items():
        if any("--out" in action.option_strings for action in options_of(parser)):
            with pytest.raises(SystemExit, match="2"):
                main([*name.split(), *empty, "--no-config"])
            assert "argument --out: takes a path, and its value is empty" in capsys.readouterr().err, name
    with pytest.raises(SystemExit, match="2"):
        main(["train", "", "data", "--out", "o", "--no-config"])
    assert "TASK: takes text, and its value is empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--n", "x"], "--n: takes a whole number from 1, not 'x'"),
        (["--n", "0"], "--n: takes a whole number from 1, not '0'"),
        (["--share", "inf"], "--share: takes a number, not 'inf'"),
        (["--balance", "x"], "'x' is not one of equal, gold, fill"),
    ],
)
def test_a_value_of_the_wrong_kind(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["generate", "clinic", "--llm", "m", "--no-config", *words])
    assert says in capsys.readouterr().err
