"""The documents: links lead somewhere, commands parse and run, figures are those measured, the site builds."""

from __future__ import annotations

import importlib
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import pytest
from support.blocks import PAGES, ROOT, blocks, run_page, wrong_with
from support.gold_files import WRITERS, write_csv
from support.tiny import tiny_base

from hf_synth.cli import main
from hf_synth.hub import running_hub
from hf_synth.llm.endpoints import parse_origin
from hf_synth.llm.providers import provider_of

DOCS = ROOT / "docs"
ALL = [*PAGES, DOCS / "messages.md", DOCS / "api.md", ROOT / "SKILL.md", ROOT / "llms.txt"]
WRITTEN = ("docs/messages.md", "docs/api.md", "docs/recipes.md", "docs/scale.md", "SKILL.md", "llms.txt")
PLAIN = {"csv", "text", "nginx", "ini", "toml", "json", "yaml", ""}  # languages that nothing runs


# --- links and figures -----------------------------------------------------------------------------------------------
def anchors(page: Path) -> set[str]:
    heads = re.findall(
        r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S), re.M
    )
    return {re.sub(r"[^\w\- ]", "", head).strip().lower().replace(" ", "-") for head in heads}


def test_every_link_leads_somewhere() -> None:
    dead = []
    for page in ALL:
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            if target.startswith(("http://", "https://")):
                continue
            path, _, anchor = target.partition("#")
            file = (page.parent / path) if path else page
            if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
                dead.append(f"{page.name}: {target}")
    assert not dead


def numbers(text: str) -> set[float]:
    return {
        float(number.replace(",", ""))
        for number in re.findall(r"(?<![\w.])\d[\d,]*\.?\d*(?![\w])|(?<![\w.])\.\d+", text)
    }


def test_figures_of_scale_stand_on_the_pages_that_it_names() -> None:
    rows = [
        line
        for line in (DOCS / "scale.md").read_text(encoding="utf-8").splitlines()
        if "](results/" in line and line[0] == "|"
    ]
    assert len(rows) > 8
    for row in rows:
        page = re.search(r"\]\((results/\w+\.md)\)", row)
        assert page
        measured = (DOCS / page[1]).read_text(encoding="utf-8")
        written = numbers(row.split("|")[2])
        assert all(
            any(abs(a - b) < 0.51 if a >= 30 else abs(a - b) < 0.01 for b in numbers(measured)) for a in written
        ), row


def test_every_page_of_results_names_what_measured_it() -> None:
    for page in sorted((DOCS / "results").glob("*.md")):
        text = page.read_text(encoding="utf-8")
        assert text.startswith("# "), page.name
        names = re.findall(r"benchmarks/[\w/]+\.py", text)
        assert names or "`make demo-real`" in text, page.name
        assert all((ROOT / name).is_file() for name in names), page.name


@pytest.mark.parametrize(("name", "model", "url"), [
    ("Ollama", "llama3.1", "http://127.0.0.1:11434/v1"),
    ("TGI or llama.cpp", "model", "http://127.0.0.1:8080/v1"),
    ("transformers serve, or vLLM", "Qwen/Qwen2.5-7B-Instruct", "http://127.0.0.1:8000/v1"),
    ("Azure OpenAI v1", "my-deployment", "https://my-resource.openai.azure.com/openai/v1"),
])  # fmt: skip
def test_recipes_are_those_of_the_providers_table(name: str, model: str, url: str) -> None:
    commands = [words for block in blocks(DOCS / "recipes.md") if block.language == "bash" for words in block.commands]
    assert any({"--llm", model, "--base-url", url} <= set(words) for words in commands)
    assert provider_of(parse_origin(url), model).name == name


# --- blocks ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("init")
    says = {"urgent": "cannot breathe", "routine": "needs a refill", "admin": "has a new address"}
    rows = [[f"P{i}", f"Made-up person {i} {says[k]} today.", k] for i, k in enumerate([*says] * 10)]
    write_csv(folder / "messages.csv", ["patient", "message", "urgency"], rows)
    given = ["--llm", "simulator", "--base-model", "tiny", "--out", str(folder / "hf_synth.toml"), "--yes", "--quiet"]
    assert main(["init", str(folder / "messages.csv"), *given]) == 0
    return folder / "hf_synth.toml"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_parses(page: Path, config: Path) -> None:
    wrong, written = [], None  # the configuration that `init` wrote, where a page has come to it
    for block in blocks(page):
        assert block.language in PLAIN | {"bash", "python"}, f"{page.name} has a block of {block.language!r}"
        if block.language == "python":
            compile(block.code, page.name, "exec")
        elif block.language == "bash":
            written = (
                config if any(words[1:2] == ["init"] or "--config" in words for words in block.commands) else written
            )
            wrong += [f"{' '.join(words)}: {why}" for words in block.commands if (why := wrong_with(words, written))]
            foreign = {words[0] for words in block.commands} & {"ollama", "llama-server", "vllm", "hf", "curl"}
            assert block.needs or not foreign, f"{page.name}: say what the block with {foreign} needs"
            ours = any(words[0] == "hf-synth" for words in block.commands)
            examples = ROOT / "examples" in page.parents  # their own tests run them
            assert block.is_run or block.needs or examples or not ours, (
                f"{page.name}: a block of hf-synth that is not run: {block.code}"
            )
        elif not block.language:  # output, perhaps with the commands that printed it
            typed = re.findall(r"^\$ (hf-synth .*)$", block.code, re.M)
            wrong += [f"{line}: {why}" for line in typed if (why := wrong_with(shlex.split(line), written))]
            assert not re.search("^hf-synth [a-z]", block.code, re.M), f"{page.name}: name the block's language"
    assert not wrong


def test_a_wrong_command_is_found() -> None:
    assert "--ot" in wrong_with(["hf-synth", "gold", "clinic", "--ot", "x"])
    assert wrong_with(["hf-synth", "generat", "clinic"])
    assert wrong_with(["make", "nothing"])
    assert wrong_with(["pip", "install", "hf_synth[nothing]"])
    assert wrong_with(["rm", "-rf", "work"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [p for p in PAGES if p.parent in (ROOT, DOCS) and p.name != "python.md" and any(b.is_run for b in blocks(p))],
    ids=lambda p: p.name,
)
def test_every_block_runs_in_order(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the simulator for an LLM, a tiny base model, few notes and a local Hub; python.md runs in test_readme.py."""
    work = tmp_path / "work"
    work.mkdir()
    says = {"urgent": "cannot breathe well", "routine": "needs a refill of tablets", "admin": "has a new address"}
    rows = [
        [f"P{i % 40:02d}", f"Made-up person {i} {says[k]}, day {i * 7 % 31}.", k] for i, k in enumerate([*says] * 40)
    ]
    for folder in (tmp_path, work):
        write_csv(folder / "messages.csv", ["patient", "message", "urgency"], rows)
    write_csv(
        tmp_path / "triage.csv",
        ["note", "urgency"],
        [[row[1], "high" if row[2] == "urgent" else "low"] for row in rows],
    )
    WRITERS["mednli"](tmp_path / "mednli")
    scripts = [b.code for b in blocks(page) if page.name == "zero_gold.md" and b.code.startswith("from hf_synth.task")]
    for code in scripts:
        (work / "reflux.py").write_text(code, encoding="utf-8")
    base = tiny_base(tmp_path / "base")
    with running_hub(tmp_path / "hub") as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_TOKEN", hub.token)
        monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
        monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
        here = {
            r"--llm \S+ --base-url \S+": "--llm simulator",
            r" --base-model \S+": "",
            r"^(hf-synth init .*)$": r"\1 --yes",
            r"^(hf-synth run)$": r"\1 --n 24 --method none",
            r"--n (600|100)\b": "--n 24",
            r"^(hf-synth (?:run|correct) work/gold .*)$": r"\1 --method none",  # few notes: auto would use none of them
            r"^(hf-synth (?:run|correct|train|regenerate) .*)$": rf"\1 --base-model {base} --set num_train_epochs=1",
            r"(--push)(?! --yes)": r"\1 --yes",
            r"ward/messages": "local/messages",
            r"/secure/triage.csv": str(tmp_path / "triage.csv"),
            r"/secure/hub": str(tmp_path / "hub"),
            r"/secure": str(tmp_path),
        }
        assert list(run_page(page, work, here))


# --- pages from the code ---------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def pages() -> Iterator[ModuleType]:
    sys.path.insert(0, str(DOCS))
    yield importlib.import_module("pages")
    sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def listed(pages: ModuleType) -> ModuleType:
    return importlib.import_module("written.messages")


@pytest.mark.parametrize("name", WRITTEN)
def test_pages_from_the_code_are_up_to_date(pages: ModuleType, name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == pages.PAGES[name]().rstrip("\n") + "\n", (
        "run python docs/pages.py"
    )


def test_costs_are_reckoned_from_the_largest_size_measured(pages: ModuleType) -> None:
    costs = importlib.import_module("written.costs")
    scaling = (
        "# Time\n\n## CPU microseconds a row\n\n| stage | 1,000 rows | 10,000 rows |\n|---|---|---|\n"
        "| audit | 1,200 | 400 |\n| adopt | 50 | |\n\n## Seconds\n\n| stage | 1,000 rows |\n|---|---|\n| audit | 9 |\n"
    )
    audit = "# Audit\n\n| synthetic rows | CPU µs a row |\n|---|---|\n| 100,000 | 326 |\n| 25,000 | 343 |\n"
    found = {one.stage: one for one in costs.costs({"scaling": scaling, "audit": audit})}
    assert found["Audit"].measured == "326 µs a note, 100,000 rows", "the larger measurement, whatever its page"
    smaller = costs.costs({"scaling": scaling, "audit": audit.replace("100,000", "1,000").replace("25,000", "500")})
    assert next(one for one in smaller if one.stage == "Audit").measured == "400 µs a note, 10,000 rows"
    prediction = "Tokens of the texts: 27,745, 145 on average.\n\n| setting | rows |\n|---|---|\n"
    rows = "| predict_proba | 26.8 |\n| predict_proba, bfloat16 | 69.0 |\n"
    assert {one.stage[-17:] for one in costs.costs({"prediction": prediction + rows})} == {"145 tokens a note"}
    assert found["Adopt rows from elsewhere"].seconds == pytest.approx(50e-6)
    [alone] = costs.costs({"audit": audit})
    assert costs.costs_table([alone]).splitlines()[2:] == [
        "| Audit | 326 µs a note, 100,000 rows | 5.4 minutes | 9.1 hours | [audit](results/audit.md) |"
    ]
    assert [costs.duration(s) for s in (0.5, 99, 120, 7_300, 1e6)] == [
        "0.5 s",
        "99 s",
        "2 minutes",
        "2 hours",
        "12 days",
    ]


def test_every_kind_of_error_has_a_cure_and_every_room_a_heading(listed: ModuleType) -> None:
    assert listed.error_classes() <= set(listed.CURES)
    rooms = {room for room, _, _ in listed.messages()}
    assert rooms <= set(listed.STAGES)
    assert set(listed.CURES_OF) <= {(room, kind) for room, kind, _ in listed.messages()}


def test_messages_of_every_form_are_found(listed: ModuleType) -> None:
    found = {text for _, _, text in listed.messages()}
    assert "<folder> holds no config.json: it is not a model folder" in found  # a template
    assert "is protected by a password; unpack it first" in found  # built by a function
    assert "<where> refuses the key (401); …" in found  # of a table
    assert any(text.startswith("no note was made: <cause>") for text in found)  # joined of two
    stated = len(
        re.findall(
            r"raise [A-Z]\w+Error\(", "".join(f.read_text(encoding="utf-8") for f in (ROOT / "hf_synth").rglob("*.py"))
        )
    )
    assert len(found) > 0.8 * stated


def test_the_skill_knows_every_verb(pages: ModuleType) -> None:
    from hf_synth.cli.cli import VERBS

    text = (ROOT / "SKILL.md").read_text(encoding="utf-8")
    assert all(f"### hf-synth {verb}" in text for verb in VERBS)
    assert "`--gold-size N`" in text


def test_every_verb_and_option_in_the_text_exists(pages: ModuleType) -> None:
    skill = importlib.import_module("written.skill")
    options: dict[str, set[str]] = {}
    for name, _, parser in skill._verbs():
        options[name] = {one for action in skill._options(parser) for one in action.option_strings} | {"--help"}
    for names in options.values():
        names |= {f"--no-{name[2:]}" for name in names if name.startswith("--")}  # undoes a flag of a configuration
    known = set().union(*options.values())
    foreign = {"--no-FLAG", "--no-deps", "--reasoning-parser", "--version"}
    wrong = []
    for page in PAGES:
        text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
        for code in re.findall(r"`([^`\n]+)`", text):
            said = re.match(r"hf-synth ((?:hub |journal )?(?:token )?[a-z][\w-]*)", code)
            here = options.get(said[1], known) if said else known
            if said and not any(verb == said[1] or verb.startswith(f"{said[1]} ") for verb in options):
                wrong.append(f"{page.name}: {code}")
            named = re.findall(r"(?<![\w-])--[a-z][\w-]*", code)
            wrong += [f"{page.name}: {code}" for one in named if one not in here | foreign]
    assert not wrong


def test_pictures_have_a_text_and_a_dark_form_and_load_nothing() -> None:
    pictures = sorted(DOCS.glob("*.svg"))
    assert len(pictures) == 4
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for picture in pictures:
        text = picture.read_text(encoding="utf-8")
        ElementTree.fromstring(text)
        assert "<title" in text
        assert "<desc" in text
        assert "prefers-color-scheme: dark" in text
        assert not re.search(r"(?:href|src)=|url\((?!#)|<script|@import", text)
        assert re.search(rf"!\[[^\]]{{40,}}\]\((?:docs/)?{picture.name}\)", shown), (
            "a picture is described where it is shown"
        )


# --- the site --------------------------------------------------------------------------------------------------------
def build(source: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(source / "mkdocs.yml"), "-d", str(site)]
    return subprocess.run(command, capture_output=True, text=True, timeout=600)


@pytest.mark.slow
def test_the_site_builds_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="needs hf_synth[docs]")
    built = build(ROOT, tmp_path / "site")
    assert built.returncode == 0, built.stderr
    outside = re.compile(r"""(?:\bsrc=|<link\b[^>]*\bhref=|@import\s+|url\()\s*["']?(?:https?:)?//""")
    for file in [
        *(tmp_path / "site").rglob("*.html"),
        *(tmp_path / "site").rglob("*.css"),
        *(tmp_path / "site").rglob("*.svg"),
    ]:
        text = file.read_text(encoding="utf-8").replace('<link rel="canonical"', "<canonical")
        assert not outside.search(text), f"{file.name} loads {outside.search(text)}"
        assert 'class="mermaid"' not in text  # its script would come from a CDN
    for page in DOCS.rglob("*.md"):
        assert (tmp_path / "site" / page.relative_to(DOCS)).read_bytes() == page.read_bytes()
    assert "](docs/" not in (tmp_path / "site" / "llms.txt").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("line", ["[gone](gone.md)", "[gone](start.md#gone)", "![gone](gone.svg)"])
def test_a_dead_link_fails_the_build(tmp_path: Path, line: str) -> None:
    pytest.importorskip("material", reason="needs hf_synth[docs]")
    shutil.copytree(DOCS, tmp_path / "docs")
    for name in ("mkdocs.yml", "llms.txt"):
        shutil.copy(ROOT / name, tmp_path / name)
    with (tmp_path / "docs" / "start.md").open("a", encoding="utf-8") as page:
        page.write(f"\n{line}\n")
    assert build(tmp_path, tmp_path / "site").returncode != 0
