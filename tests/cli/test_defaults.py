"""Options from a configuration file: what goes before what, what is refused, what a run writes down."""

from __future__ import annotations

import os
import tomllib
from argparse import Namespace
from pathlib import Path

import pytest

from hf_synth.cli.cli import _write_run, main, parse_command, verb_parser
from hf_synth.cli.defaults import _PATHS, RECORDED, _absolute, keys_of, values_of, write_run
from hf_synth.publishing.export import EXPORTED
from hf_synth.task.columns import RUN_CONFIG


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def options(*words: str) -> Namespace:
    return parse_command(words)[1]


def write(text: str, name: str = "hf_synth.toml") -> Path:
    Path(name).write_text(text, encoding="utf-8")
    return Path(name)


def test_command_line_table_top_default(capsys: pytest.CaptureFixture[str]) -> None:
    write('task = "clinic"\nllm = "simulator"\nn = 7\nseed = 3\n[generate]\nn = 8\nshare = 0.5\nout = "o"\n')
    args = options("generate", "--seed", "4")
    assert (args.task, args.llm, args.n, args.seed, args.share) == ("clinic", "simulator", 8, 4, 0.5)
    assert (args.out, args.balance) == (Path("o"), "equal")
    assert capsys.readouterr().err == "hf-synth: hf_synth.toml gives task, llm, n, share, out\n"
    assert options("sample", "-q", "mednli", "rows").n == 7
    assert capsys.readouterr().err == ""


def test_another_file_is_named_and_none_can_be_taken(capsys: pytest.CaptureFixture[str]) -> None:
    write("n = 7")
    other = str(write("n = 9", "other.toml"))
    words = ["sample", "clinic", "rows"]
    assert options(*words, "--config", other).n == options(*words, f"--config={other}").n == 9
    assert "other.toml gives n" in capsys.readouterr().err
    assert options(*words, "--no-config").n == 100
    assert options(*words, "--n", "1").n == 1
    assert capsys.readouterr().err == "", "nothing is said of a file that gives nothing"
    for wrong, says in ((["--config", "no.toml"], "there is no configuration file"),
                        (["--config", other, "--no-config"], "exclude each other")):  # fmt: skip
        assert main([*words, *wrong]) == 2
        assert says in capsys.readouterr().err


def test_values_are_read_as_on_the_command_line() -> None:
    write(
        'price = [1, 2.5]\nsampling = ["seed=none", "top_k=20"]\nby = "confidence"\nbase-model = "minilm"\n'
        'hedge = false\npreview = true\nresume = true\nsizes = [60, 0]\nno-membership = true\ntext_column = "note"\n'
    )
    made = options("generate", "clinic", "--llm", "m")
    assert (made.price, made.sampling, made.hedge, made.preview) == ([1.0, 2.5], ["seed=none", "top_k=20"], False, 5)
    assert options("generate", "clinic", "--llm", "m", "--sampling", "x=1").sampling == ["x=1"]
    sampled = options("sample", "clinic", "rows")
    assert (sampled.by, sampled.text_column) == (["confidence"], ["note"])
    assert options("train", "clinic", "d", "--out", "o").resume is True
    tried = options("experiment", "clinic", "--out", "o")
    assert (tried.base_models, tried.sizes) == (["minilm"], [60, 0])
    assert options("publish", "clinic", "f", "--repo-id", "a/b").membership is False


def test_words_fill_the_places_that_a_configuration_leaves(capsys: pytest.CaptureFixture[str]) -> None:
    write('task = "clinic"\n[correct]\nout = "o"\n[train]\ndata = "d"\nout = "o"\n')
    assert options("correct", "--base-model", "tiny", "rows").synthetic == Path("rows")
    assert (options("train").task, options("train").data) == ("clinic", Path("d"))
    assert (options("train", "other").task, options("train", "other").data) == ("clinic", Path("other"))
    assert (options("train", "t", "other").task, options("train", "t", "other").data) == ("t", Path("other"))
    assert options("gold", "notes.csv").path == Path("notes.csv")
    with pytest.raises(SystemExit, match="2"):
        options("correct")
    assert "SYNTHETIC is missing" in capsys.readouterr().err


def test_one_file_serves_verbs_whose_options_differ() -> None:
    """`gold` is a path, but a flag of `label`; `labels` a text of `gold`, a list of `experiment`."""
    write('gold = "g"\nlabels = ["raw", "auto"]\nrepo-id = "a/b"\nmodel = "m"\n')
    assert options("label", "clinic", "notes", "--llm", "m", "--out", "o").gold is False
    assert options("train", "clinic", "d", "--out", "o").gold == Path("g")
    assert options("experiment", "clinic", "--out", "o").labels == ["raw", "auto"]
    assert options("gold", "x").labels == ""


def test_verbs_outside_a_journey_take_their_own_table_alone() -> None:
    write('task = "mednli"\ngold = "g"\nroot = "h"\n[hub]\nroot = "hub"\n[hub.serve]\nport = 9\n[demo]\nfull = true\n')
    assert options("tasks").gold is None
    assert (options("demo").task, options("demo").full) == ("clinic", True)
    served = options("hub", "serve")
    assert (served.root, served.port) == (Path("hub"), 9)
    assert options("hub", "ls").root == Path("hub")
    write('mine = 1\nout = "o"\n')
    assert options("tasks").gold is None, "a fault at the top stops a journey, not a look at the tasks"
    write("no TOML")
    assert options("completion", "bash").shell == "bash"


def test_the_command_line_undoes_what_excludes_it() -> None:
    write("private = true")
    args = options("publish", "clinic", "f", "--repo-id", "a/b", "--public")
    assert (args.public, args.private) == (True, False)
    assert options("publish", "clinic", "f", "--repo-id", "a/b").private is True


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('tsak = "clinic"', "line 1: no verb has an option --tsak; did you mean 'task'?"),
        ("\n\n[generate]\nm = 3", "line 4, [generate]: `hf-synth generate` has no option --m"),
        ("[generate]\nresume = true", "`hf-synth generate` has no option --resume"),
        ("[generat]\nn = 3", "line 1: there is no verb 'generat'; did you mean 'generate'?"),
        ("n = 3.5", "line 1: n takes a whole number from 1, not 3.5"),
        ('n = "many"', 'line 1: n takes a whole number from 1, not "many"'),
        ("n = true", "n takes a whole number from 1, not true"),
        ("n = [1]", "n takes a whole number from 1, one value alone, not [1]"),
        ("price = [1]", "price takes a list of 2 values (a number each), not [1]"),
        ('balance = "eqal"', "balance takes one of equal, gold, fill, not \"eqal\"; did you mean 'equal'?"),
        ("hedge = 1", "hedge takes true or false, not 1"),
        ("llm = 2020-01-01", "llm takes text, not 2020-01-01"),
        ("[generate.deep]\nn = 1", "there is no verb 'generate deep'"),
        ('\nout = "o"', "line 2: each verb would replace the folder of the one before: put it into the table"),
        ("yes = true", "line 1: --yes is taken from the command line alone"),
        ('token = "x"', "would put a secret into a file"),
        ('[generate]\nn = "many"', "line 2, [generate]: n takes a whole number from 1, not"),
        ("generate.n = 0", "line 1, [generate]: n takes a whole number from 1, not 0"),
        ("generate = {seed = 1, n = -3}", "line 1, [generate]: n takes a whole number from 1, not -3"),
        ("[generate]\nshare = nan", "line 2, [generate]: share takes a number, not nan"),
        ('[generate]\nout = ""', 'line 2, [generate]: out takes a path, not ""'),
        ("generate = 3", "line 1: generate is a verb: its options belong in a table [generate]"),
        ("quiet = 'yes'", 'line 1: quiet takes true or false, not "yes"'),
        ('config = "a"', "no verb has an option --config"),
    ],
)
def test_what_is_wrong_is_one_sentence_and_exit_2(capsys: pytest.CaptureFixture[str], text: str, says: str) -> None:
    write(text)
    assert main(["generate", "clinic", "--llm", "m", "--out", "o"]) == 2
    error = capsys.readouterr().err
    assert says in error
    assert error.startswith("hf-synth: hf_synth.toml")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "text", "says"),
    [
        (["hub", "serve"], "[hub.serv]\nport = 1", "there is no verb 'hub serv'; did you mean 'serve'?"),
        (["hub", "ls"], "[hub]\npor = 1", "line 2, [hub]: `hf-synth hub` has no option --por; did you mean 'port'?"),
        (
            ["publish", "clinic", "f"],
            "[publish]\npush = true",
            "line 2, [publish]: --push is taken from the command line alone",
        ),
        (["publish", "clinic", "f"], 'attestation = "x"', "line 1: --attestation is taken from the command line"),
    ],
)
def test_tables_and_keys_of_the_verb_that_runs_stop_it(
    capsys: pytest.CaptureFixture[str], words: list[str], text: str, says: str
) -> None:
    write(text)
    assert main(words) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[train]\nseed = "x"', 'line 2, [train]: seed takes a whole number from 0, not "x"'),
        ("[train]\nlong-note = 1", "line 2, [train]: `hf-synth train` has no option --long-note; did you mean"),
        ("[trian]\nseed = 1", "line 1: there is no verb 'trian'; did you mean 'train'?"),
        ("[publish]\npush = true", "line 2, [publish]: --push is taken from the command line alone"),
        ("[hub.serv]\nport = 1", "line 1: there is no verb 'hub serv'; did you mean 'serve'?"),
        ("[hub]\nport = 'x'", "line 2, [hub]: port takes a whole number from 0"),
        ("[generate]\nn = 7\nratio = 2", "line 2, [generate]: n and ratio exclude each other"),
        ("resume = 3", "line 1: resume takes true or false, not 3"),
    ],
)
def test_a_fault_that_the_verb_does_not_meet_is_a_warning(
    text: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(text)
    args = options("sample", "clinic", "rows")
    assert args.n == 100
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"hf-synth: hf_synth.toml, {says}")
    assert line.endswith("(a warning: `hf-synth sample` does not use it)")


def test_flags_from_a_file_and_their_negations(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("publish", "clinic", "f", "--repo-id", "a/b")
    write("quiet = true\nmembership = false\n[generate]\nquiet = false\nhedge = true\n")
    assert (options(*words).quiet, options(*words).membership) == (True, False)
    assert options(*words, "--no-quiet").quiet is False
    assert "hf_synth.toml gives membership" in capsys.readouterr().err
    made = options("generate", "clinic", "--llm", "m")
    assert (made.quiet, made.hedge) == (False, True)
    assert options("generate", "clinic", "--llm", "m", "--no-hedge").hedge is False
    write("no-quiet = true\nno-membership = false\nno-membershp = true\n")
    assert main([*words]) == 2
    assert "line 3: no verb has an option --no-membershp; did you mean 'no-membership'?" in capsys.readouterr().err
    write("[publish]\nprivate = true\n")
    assert options(*words, "--no-public").private is True, "a flag that is not meant excludes nothing"
    with pytest.raises(SystemExit):
        options(*words, "--quiet", "--no-quiet")
    assert "--quiet and --no-quiet exclude each other" in capsys.readouterr().err


def test_a_file_of_another_user_is_not_taken_unasked(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write("n = 9")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    os.chown("hf_synth.toml", 54321, -1) if os.geteuid() == 0 else pytest.skip("only root gives a file away")
    assert main(["sample", "clinic", "rows"]) == 2
    assert "belongs to another user" in capsys.readouterr().err
    assert options("sample", "clinic", "rows", "--config", "hf_synth.toml").n == 9


def test_a_run_is_written_down_and_repeated() -> None:
    words = ["generate", "clinic", "--llm", "simulator", "--n", "4", "--gold-size", "20", "--out", "syn", "-q"]
    assert main([*words, "--sampling", "seed=1", "--timeout", "60"]) == 0
    file = Path("syn", RUN_CONFIG)
    assert file.stat().st_mode & 0o777 == 0o600
    facts = tomllib.loads(file.read_text(encoding="utf-8"))["generate"]
    assert facts == {
        "task": "clinic", "llm": "simulator", "n": 4, "gold-size": 20, "out": str(Path("syn").absolute()),
        "sampling": ["seed=1"], "timeout": 60.0,
        "balance": "equal", "prompt": "examples", "share": 0.2, "fact-rounds": 2, "seed": 0,
        "check-facts": "rules",
    }  # fmt: skip
    first = options(*words, "--sampling", "seed=1", "--timeout", "60")
    again = options("generate", "--config", str(file), "-q")
    ignored = ("argv", "config", "started")
    first.out = first.out.absolute()
    assert {k: v for k, v in vars(again).items() if k not in ignored} == {
        k: v for k, v in vars(first).items() if k not in ignored
    }
    assert f"generate --config {file.absolute()}" in file.read_text(encoding="utf-8")
    other = options("correct", "clinic", "rows", "--out", "c", "--config", str(file))
    assert (other.out, other.seed) == (Path("c"), 0), "the options of one verb are not those of another"


def test_every_option_that_is_a_path_is_listed_as_one() -> None:
    found = {key for verb in RECORDED for key, of in keys_of(verb_parser(verb)).items() if of.type is Path}
    assert found == set(_PATHS)


def test_a_run_file_names_the_same_files_from_every_folder(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("out", "rows", "gold", "elsewhere", "clinic", "org/base"):
        Path(folder).mkdir(parents=True)
    Path("own.py").write_text("")
    values = {"task": "gold", "synthetic": "rows", "out": "out", "base-model": "org/base", "seed": 3}
    write_run("correct", values, [], Path("out"))
    file = (here / "out" / RUN_CONFIG).resolve()
    assert file.read_text(encoding="utf-8").splitlines()[0].endswith("its paths are absolute.")
    monkeypatch.chdir("elsewhere")
    again = options("correct", "--config", str(file), "-q")
    assert (Path(again.task), again.synthetic, again.out) == tuple(here.resolve() / n for n in ("gold", "rows", "out"))
    assert (again.base_model, again.seed) == (str(here.resolve() / "org/base"), 3)
    monkeypatch.chdir(here)
    # names stay names, and a script keeps its config
    assert _absolute("clinic", "task") == "clinic"
    assert _absolute("minilm", "base-model") == "minilm"
    assert _absolute("own.py:pair", "task") == f"{Path('own.py').absolute()}:pair"
    assert _absolute("org/other", "base-model") == "org/other"
    # the file of an earlier version holds paths as they were typed: it works where it did
    file.write_text('[correct]\ntask = "gold"\nsynthetic = "rows"\nout = "out"\n', encoding="utf-8")
    old = options("correct", "--config", str(file), "-q")
    assert (old.task, old.synthetic, old.out) == ("gold", Path("rows"), Path("out"))


def test_what_writes_no_folder_writes_no_options(here: Path) -> None:
    (here / "o").mkdir()
    for verb, facts in (
        ("generate", {"preview": "p"}),
        ("generate", {"dry_run": True}),
        ("publish", {}),
        ("tasks", None),
    ):
        _write_run(Namespace(verb=verb, out=Path("o")), ({"n": 1}, []), facts)
    _write_run(Namespace(verb="evaluate", out=Path("scores.json")), ({}, []), {})
    assert list(Path("o").iterdir()) == []
    _write_run(Namespace(verb="demo", out=None), ({}, ["base-url"]), {"out": "o"})
    assert "--base-url held a secret" in Path("o", RUN_CONFIG).read_text(encoding="utf-8")


def test_a_secret_is_not_written_down(here: Path) -> None:
    parser, args = parse_command(
        ["publish", "clinic", "f", "--repo-id", "a/b", "--token", "hf_" + "a" * 30, "--push", "--yes", "--public"]
    )
    values, _ = values_of(parser, args)
    assert not {"token", "push", "yes", "public"} & set(values)
    parser, args = parse_command(["generate", "clinic", "--llm", "m", "--base-url", "https://a:b@host/v1"])
    values, secret = values_of(parser, args)
    assert (secret, "base-url" in values) == (["base-url"], False)


def test_the_options_of_a_run_never_leave() -> None:
    assert EXPORTED.fullmatch(RUN_CONFIG) is None
    assert "publish" not in RECORDED


def test_every_verb_that_is_written_down_is_one() -> None:
    for verb in RECORDED:
        assert any(action.dest == "out" for action in verb_parser(verb)._actions), verb


EXCLUDING = (
    ("generate", "--n", "5", "ratio", "2.0"), ("generate", "--ratio", "3", "n", "7"),
    ("correct", "--corrector", "m", "judge", '"j"'), ("correct", "--judge", "m", "corrector", '"c"'),
    ("review", "--n", "5", "per-label", "3"), ("review", "--per-label", "5", "error", "0.1"),
    ("review", "--error", ".1", "by", '"label"'), ("review", "--realism", "", "error", "0.1"),
    ("review", "--blind", "", "show-llm", "true"), ("publish", "--public", "", "private", "true"),
)  # fmt: skip
_PLACES = {"generate": ["clinic"], "correct": ["clinic", "rows"], "review": ["rows"], "publish": ["clinic", "rows"]}
_MUST = {"generate": ["--llm", "m"], "correct": ["--out", "o"], "publish": ["--repo-id", "a/b"]}


@pytest.mark.parametrize(("verb", "option", "value", "key", "given"), EXCLUDING)
def test_of_options_that_exclude_each_other_the_command_line_decides(
    verb: str, option: str, value: str, key: str, given: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [verb, *_PLACES[verb], *_MUST.get(verb, [])]
    typed = [option, *([value] if value else [])]
    write(f"[{verb}]\n{key} = {given}\n")
    before, after = options(*words, "--no-config"), options(*words, *typed)
    name = key.replace("-", "_")
    assert getattr(after, name) == getattr(before, name), "what the configuration gives is dropped"
    assert getattr(options(*words), name) != getattr(before, name)
    other = [f"--{key}", *([] if given == "true" else [given.strip('"')])]
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main([*words, *typed, *other, "--no-config"])
    assert stopped.value.code == 2
    assert "not allowed with" in capsys.readouterr().err


def test_tables_that_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("generate", "clinic", "--llm", "m")
    write("ratio = 2\nseed = 3\n[generate]\nn = 600\nseed = 4\n")
    assert (options(*words).n, options(*words).ratio) == (600, None), "the table goes before the top"
    write("n = 7\n[generate]\nratio = 2\n")
    assert (options(*words).n, options(*words).ratio) == (600, 2.0)
    write("[generate]\nn = 600\nratio = 2\nllm = 'm'\n")
    assert options(*words).ratio == 2.0, "as earlier versions wrote a run down, with its defaults"
    write("[generate]\nn = 7\nratio = 2\n")
    assert main([*words]) == 2
    assert "n and ratio exclude each other" in capsys.readouterr().err
