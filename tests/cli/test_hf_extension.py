"""`hf extensions install OWNER/hf-synth`, then `hf synth ...`: by huggingface_hub's own installer, without a network.

A local git repository of this tree stands for GitHub. The installer takes the client that `set_client_factory` names,
which answers from the repository; pip gets the archive as a file, since the installer writes the address of GitHub into
its command line. Everything else is the installer's: the choice between a script and a package, the virtual
environment, the build, the console script, the manifest, the dispatch of `hf synth`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent

# What runs in the place of the program `hf`: it ends in the program's own main.
HF = """
import subprocess, sys
import httpx2
from huggingface_hub import set_client_factory

repository = sys.argv.pop(1)
REPO, asked = "ward/hf-synth", []

def git(*words):
    return subprocess.run(["git", "-C", repository, *words], capture_output=True)

def answer(request):
    host, path = request.url.host, request.url.path
    asked.append(f"{host}{path}")
    if host == "github.com" and path == f"/{REPO}":
        return httpx2.Response(200)
    if host == "github.com" and path == f"/{REPO}.git/info/refs":
        sha = git("rev-parse", "HEAD").stdout.decode().strip()
        return httpx2.Response(200, text=f"0000{sha} HEAD\\0symref=HEAD:refs/heads/main")
    if host == "raw.githubusercontent.com" and path.startswith(f"/{REPO}/HEAD/"):
        shown = git("show", f"HEAD:{path.removeprefix(f'/{REPO}/HEAD/')}")
        return httpx2.Response(404 if shown.returncode else 200, content=shown.stdout)
    return httpx2.Response(404)

set_client_factory(lambda: httpx2.Client(transport=httpx2.MockTransport(answer)))
run = subprocess.run

def run_with_file(command, **keywords):
    url = f"https://github.com/{REPO}/archive/HEAD.zip"
    if url in command:
        archive = f"{repository}/HEAD.zip"
        git("archive", "--format=zip", "--prefix=hf-synth-HEAD/", "-o", archive, "HEAD")
        command = [f"file://{archive}" if word == url else word for word in command]
    return run(command, **keywords)

subprocess.run = run_with_file
import shutil
which = shutil.which
shutil.which = lambda name, *rest, **keywords: None if name == "uv" else which(name, *rest, **keywords)
from huggingface_hub.cli.hf import main
sys.argv[0] = "hf"
main()
"""


def repository_of(folder: Path) -> Path:
    """Make a git repository of this tree, as it would lie on GitHub."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for name in listed.stdout.splitlines():
        if name.startswith(("hf_synth/", "dataset_scripts/", "model_cards/")) or "/" not in name:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((ROOT / name).read_bytes())
    who = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    for words in (["init", "-q", "-b", "main"], ["add", "-A"], [*who, "commit", "-q", "-m", "as on GitHub"]):
        subprocess.run(["git", *words], cwd=folder, check=True)
    return folder


def place_of(package: str) -> Path:
    """Return the folder that holds an installed package."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent.parent


def setuptools_wheel(site: Path, folder: Path) -> Path:
    """Make a wheel of the setuptools that is installed here; return its folder."""
    folder.mkdir()
    info = next(site.glob("setuptools-*.dist-info"))
    with zipfile.ZipFile(folder / f"{info.name.removesuffix('.dist-info')}-py3-none-any.whl", "w") as wheel:
        for top in (site / "setuptools", site / "_distutils_hack", info):
            for file in top.rglob("*"):
                if file.is_file() and "__pycache__" not in file.parts:
                    wheel.write(file, file.relative_to(site))
    return folder


@pytest.mark.slow
def test_hf_installs_and_runs_it(tmp_path: Path) -> None:
    repository = repository_of(tmp_path / "github")
    assert not (repository / "hf-synth").exists(), "a file of this name would be taken for the whole extension"
    site = place_of("lazy_loader")
    links = setuptools_wheel(place_of("setuptools"), tmp_path / "links")  # what pip would fetch for the build
    home = tmp_path / "home"
    home.mkdir()
    kept = ("PATH", "LANG", "HF_HOME", "SSL_CERT_DIR", "TMPDIR")
    env = {name: os.environ[name] for name in kept if name in os.environ} | {"HOME": str(home), "NO_COLOR": "1"}
    install = {"PIP_NO_INDEX": "1", "PIP_NO_DEPS": "1", "PIP_FIND_LINKS": str(links)}

    def hf(*words: str, **more: str) -> str:
        command = [sys.executable, "-c", HF, str(repository), *words]
        done = subprocess.run(command, env=env | more, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == int(more.get("expected", 0)), done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout + done.stderr

    assert "hf synth" in hf("extensions", "install", "ward/hf-synth", **install)
    root = home / ".local" / "share" / "hf" / "extensions" / "hf-synth"
    manifest = json.loads((root / "manifest.json").read_text(encoding="utf-8"))
    assert (manifest["type"], manifest["repo_id"], manifest["short_name"]) == ("python", "ward/hf-synth", "synth")
    assert manifest["executable_path"].startswith(str(root / "venv"))
    assert manifest["description"].startswith("Gold clinical notes in")
    assert len(manifest["commit_sha"]) == 40

    # the dependencies, which were left out, are borrowed from this environment
    borrowed = {"PYTHONPATH": str(site)}
    assert hf("synth", "--version", **borrowed).startswith("hf-synth 0")
    assert "esophagitis" in hf("synth", "tasks", **borrowed)
    assert "usage: hf-synth train TASK DATA --out DIR" in hf("synth", "train", "--help", **borrowed)
    wrong = hf("synth", "generat", expected="2", **borrowed)
    assert "did you mean 'generate'?" in wrong
    assert "ward/hf-synth" in hf("extensions", "list")
