"""Paths of a machine in the files of an export: they name users, projects and servers."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path

# Folders under which people keep files on Unix, on clusters and in notebooks of a cloud; with what this machine has.
_ROOTS = (
    r"home\d*", "Users", "users", "root", "mnt", r"scratch\w*", "tmp", "var", "private", "secure", "work", r"work\d+",
    r"data\d*", "opt", "srv", "media", "Volumes", r"gpfs\w*", r"lustre\w*", r"beegfs\w*", r"cephfs\w*", r"nfs\w*",
    r"nas\d*", "projects?", "workspaces?", "storage", "cluster", "archive", "content", "kaggle", "dbfs", "export",
)  # fmt: skip
_OF_THE_SYSTEM = re.compile("bin|boot|dev|etc|lib.*|proc|run|sbin|snap|sys|usr")
_WINDOWS = r"(?<![\w/.:])[A-Za-z]:(?:\\{1,2}|/)[\w.~-]+(?:\\|/)|(?<![\w\\])\\\\[A-Za-z][\w.-]+\\[A-Za-z$][\w.$-]*"
_OTHERS = r"\bfile:/|(?<![\w/.~])~/[\w.-]+"


def has_local_path(text: str) -> bool:
    """Return whether a text holds an absolute path of a machine, or one below this user's home or working folder."""
    own = (os.path.expanduser("~"), os.getcwd())
    return bool(_pattern().search(text)) or any(p in text for p in own if len(p) > 5)


@cache
def _pattern() -> re.Pattern[str]:
    try:
        here = [f.name for f in Path("/").iterdir() if f.is_dir() and not f.name.startswith(".")]
    except OSError:
        here = []
    roots = "|".join([*_ROOTS, *(re.escape(name) for name in here if not _OF_THE_SYSTEM.fullmatch(name))])
    return re.compile(rf"(?<![\w/.:])/(?:{roots})/[\w.-]+|{_WINDOWS}|{_OTHERS}")
