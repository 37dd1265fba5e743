"""Who may come in, and which names are theirs. On disk, each of mode 0600:

ROOT/users.json   {sha256 of a token: user}: no token can be read from it
ROOT/orgs.json    {organisation: [its members]}, the first of them made it; edit it to let others in, then restart
ROOT/token        token of user "local", made when a Hub is served without other users
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import threading
from pathlib import Path
from typing import Any

from hf_synth.hub.disk import write_whole
from hf_synth.hub.names import HubError, check_namespace

_TOKEN = re.compile(r"[!-~]{8,512}")


class Users:
    """Users, their tokens and their organisations; safe for the threads of one server."""

    def __init__(self, root: Path) -> None:
        self._root, self._lock = root, threading.Lock()
        self._users: dict[str, str] = _read(root / "users.json")
        self._orgs: dict[str, list[str]] = _read(root / "orgs.json")

    def default_token(self) -> str:
        """Give the token of user "local"; it is made the first time."""
        file = self._root / "token"
        if not file.is_file():
            self._write("token", f"hf_{secrets.token_hex(16)}")
        token = file.read_text(encoding="ascii").strip()
        self.add("local", token)
        return token

    def add(self, name: str, token: str) -> None:
        """Let a user in with this token and no other of before; only its hash is kept.

        Raises:
            ValueError: the name or the token cannot be one, or is taken; the message holds no token.
        """
        try:
            check_namespace(name)
        except HubError:
            raise ValueError(f"{name!r} cannot be the name of a user") from None
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"the token of {name} must be 8 to 512 visible ASCII characters")
        with self._lock:
            mark = _mark(token)
            if name in self._orgs or self._users.get(mark, name) != name:
                raise ValueError(f"{name} cannot be added: the name is an organisation's, or the token another user's")
            self._users = {m: n for m, n in self._users.items() if n != name} | {mark: name}
            self._write("users.json", json.dumps(self._users, indent=1))

    def of_token(self, token: str) -> str:
        """Give the user of a token.

        Raises:
            HubError: 401, nobody has this token.
        """
        name = self._users.get(_mark(token))
        if name is None:
            raise HubError(401, "Invalid user token.")
        return name

    def is_member(self, user: str | None, namespace: str) -> bool:
        """Tell whether a namespace is a user's own name, or an organisation that they belong to."""
        return user is not None and user in self._orgs.get(namespace, [namespace])

    def orgs_of(self, user: str) -> list[str]:
        """Give the organisations a user belongs to."""
        return sorted(name for name, members in self._orgs.items() if user in members)

    def claim(self, user: str, namespace: str) -> None:
        """Take a namespace that nobody has for a user; it stays theirs when its last repository is deleted.

        Raises:
            HubError: 403, it is somebody else's; 404, nothing can have this name.
        """
        check_namespace(namespace)
        with self._lock:
            if self.is_member(user, namespace):
                return
            if namespace in self._orgs or namespace in self._users.values():
                raise HubError(403, "You have no right to create a repository in this namespace")
            self._orgs = self._orgs | {namespace: [user]}
            self._write("orgs.json", json.dumps(self._orgs, indent=1))

    def _write(self, name: str, text: str) -> None:
        write_whole(self._root / "tmp", self._root / name, text.encode())


def _mark(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def _read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
