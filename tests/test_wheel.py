"""A wheel, built and installed in an environment of its own, is the whole tool."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a wheel of a copy of the tree; return its folder."""
    root, folder = Path(__file__).resolve().parent.parent, tmp_path_factory.mktemp("wheel")
    files = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=root).splitlines()
    for name in files:
        if name.startswith(("hf_synth/", "dataset_scripts/", "model_cards/")) or "/" not in name:
            target = folder / "tree" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes((root / name).read_bytes())
    run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, folder / "tree", cwd=folder)
    return folder


@pytest.fixture(scope="module")
def installed(built: Path) -> Path:
    """Install the wheel in a clean environment that borrows only the dependencies."""
    folder = built
    run(sys.executable, "-m", "venv", "--without-pip", folder / "env", cwd=folder)
    python = folder / "env" / "bin" / "python"
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    # a folder added by a .pth file is searched, but its own .pth files (our editable install) are not read
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    wheel = next(folder.glob("*.whl"))
    run(*PIP, "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder


def test_the_wheel_holds_scripts_and_cards(built: Path) -> None:
    names = zipfile.ZipFile(next(built.glob("*.whl"))).namelist()
    for wanted in (
        "hf_synth/dataset_scripts/esophagitis.py",
        "hf_synth/model_cards/dataset_card.md",
        "hf_synth/model_cards/model_card.md",
        "hf_synth/py.typed",
        "hf_synth/__init__.pyi",
        "hf_synth/cluster/__init__.pyi",
        "hf_synth/gold/__init__.pyi",
        "hf_synth/hub/__init__.py",
        "hf_synth/cli/tasks.json",
        "hf_synth/llm/prices.json",
        "hf_synth/reports/page.html",
        "hf_synth/task/__init__.pyi",
    ):
        assert wanted in names
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)


def test_the_installed_tool_works(installed: Path) -> None:
    binary = installed / "env" / "bin"
    where = run(binary / "python", "-c", "import hf_synth; print(hf_synth.__file__)", cwd=installed)
    assert where.startswith(str(installed))
    assert "hf-synth 0" in run(binary / "hf-synth", "--version", cwd=installed)
    tasks = json.loads(run(binary / "hf-synth", "tasks", "--json", cwd=installed).splitlines()[-1])["tasks"]
    assert {"clinic", "esophagitis:grade"} <= {t["task"] for t in tasks}
    run(binary / "hf-synth", "gold", "clinic", "--out", "gold", cwd=installed)
    assert (installed / "gold" / "train.parquet").is_file()
