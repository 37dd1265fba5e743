"""Users, access tokens and organisations of the local Hub: ROOT/users.json (0600).

    users    {name: {founder, created, removed}}    a removed user stays, so that nobody else gets the name
    tokens   {id: {sha256, user, name, role, created, expires, revoked}}    only hashes of tokens are stored
    orgs     {organisation: {member: read | write}}

A namespace is a user's name or an organisation. A member with role `read` sees its private repositories, with `write`
changes all. A token is for reading or writing, whatever its user may do. The file is read again when it has changed, so
that a token revoked on the command line is refused from the next request on.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from hf_synth.hub.disk import locked, write_atomic
from hf_synth.hub.names import HubError, check_namespace

ROLES = ("read", "write")
_TOKEN = re.compile(r"[!-~]{8,512}")
_DAY = 86_400.0


@dataclass(frozen=True)
class Token:
    """The record of a token."""

    sha256: str = field(repr=False)
    user: str
    name: str
    role: str
    created: float
    expires: float | None = None
    revoked: float | None = None

    def works(self) -> bool:
        """Return whether it is valid now."""
        return self.revoked is None and (self.expires is None or time.time() < self.expires)


@dataclass
class _State:
    users: dict[str, dict[str, Any]] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict)
    orgs: dict[str, dict[str, str]] = field(default_factory=dict)
    ids: dict[str, str] = field(default_factory=dict)  # sha256 of a token -> its id

    def has(self, user: str) -> bool:
        """Return whether a user exists and was not removed."""
        return user in self.users and not self.users[user].get("removed")


class Users:
    """Users, tokens and organisations of a Hub; safe for the threads and processes that share its folder."""

    def __init__(self, root: Path) -> None:
        self._root, self._file = root, root / "users.json"
        self._seen: tuple[object, _State] = (None, _State())

    # --- queries ------------------------------------------------------------------------------------------------

    def of_token(self, token: str) -> Token:
        """Return the record of a valid token.

        Raises:
            HubError: 401, it is unknown, revoked or expired.
        """
        state = self._state()
        record = state.tokens.get(state.ids.get(_sha256(token), ""))
        if record is None or not record.works():
            raise HubError(401, "Invalid user token.")
        return record

    def role(self, user: str | None, namespace: str) -> str | None:
        """Return a user's role in a namespace: write, read, or None."""
        state = self._state()
        if user is None or not state.has(user):
            return None
        return "write" if user == namespace else state.orgs.get(namespace, {}).get(user)

    def orgs_of(self, user: str) -> dict[str, str]:
        """Return the organisations of a user, and the role in each."""
        return {org: members[user] for org, members in sorted(self._state().orgs.items()) if user in members}

    def names(self) -> list[str]:
        """Return the names of all users."""
        state = self._state()
        return sorted(filter(state.has, state.users))

    def orgs(self) -> dict[str, dict[str, str]]:
        """Return all organisations with their members and the role of each."""
        return {org: dict(members) for org, members in sorted(self._state().orgs.items())}

    def tokens(self, user: str | None = None) -> dict[str, Token]:
        """Return the records of all tokens, or of one user's, by id; oldest first."""
        by_age = sorted(self._state().tokens.items(), key=lambda item: item[1].created)
        return {id: token for id, token in by_age if user in (None, token.user)}

    # --- changes ------------------------------------------------------------------------------------------------

    def add_user(self, name: str, *, founder: bool = False, orgs: Mapping[str, str] | None = None) -> None:
        """Add a user. A founder may create repositories in a namespace that nobody has, which becomes an organisation.

        Args:
            orgs: organisations and the role in each; missing ones are created.

        Raises:
            ValueError: a name is not valid, or taken.
        """
        _check(name)
        with self._changing() as state:
            if name in state.users or name in state.orgs:
                raise ValueError(f"the name {name} is taken")
            state.users[name] = {"founder": founder, "created": time.time()}
            for org, role in (orgs or {}).items():
                _join(state, org, name, role)

    def add_token(
        self, user: str, *, name: str = "", role: str = "write", days: float | None = None, token: str | None = None
    ) -> tuple[str, str]:
        """Add a token for a user; only its hash is stored.

        Args:
            days: until it expires; None is never.
            token: the token; None is a random one.

        Returns:
            Its id, and the token, which cannot be read later.

        Raises:
            ValueError: there is no such user, or the token is not valid; the message holds no token.
        """
        if role not in ROLES:
            raise ValueError(f"the role of a token is {' or '.join(ROLES)}")
        check_days(days)
        token = f"hf_{secrets.token_hex(20)}" if token is None else token
        if not _TOKEN.fullmatch(token):
            raise ValueError(f"the token of {user} must be 8 to 512 visible ASCII characters")
        now, id = time.time(), secrets.token_hex(4)
        with self._changing() as state:
            if not state.has(user):
                raise ValueError(f"there is no user {user!r}")
            if _sha256(token) in state.ids:
                raise ValueError(f"the token of {user} is in use, or was revoked")
            expires = None if days is None else now + days * _DAY
            state.tokens[id] = Token(_sha256(token), user, name, role, now, expires)
        return id, token

    def revoke(self, id: str) -> Token:
        """Revoke a token; its record stays, so that it cannot be added again.

        Raises:
            ValueError: there is no such token.
        """
        with self._changing() as state:
            if id not in state.tokens:
                raise ValueError(f"there is no token {id!r}")
            old = state.tokens[id]
            state.tokens[id] = Token(**(asdict(old) | {"revoked": old.revoked or time.time()}))
            return state.tokens[id]

    def remove_user(self, name: str) -> list[str]:
        """Remove a user: revoke their tokens and memberships. The name stays taken.

        Returns:
            The organisations without any member left who may write.

        Raises:
            ValueError: there is no such user.
        """
        now = time.time()
        with self._changing() as state:
            if not state.has(name):
                raise ValueError(f"there is no user {name!r}")
            state.users[name]["removed"] = now
            for id, token in state.tokens.items():
                if token.user == name and token.revoked is None:
                    state.tokens[id] = Token(**(asdict(token) | {"revoked": now}))
            mine = [org for org, members in state.orgs.items() if members.pop(name, None)]
            return sorted(org for org in mine if "write" not in state.orgs[org].values())

    def set_member(self, org: str, user: str, role: str | None) -> None:
        """Set a user's role in an organisation, which is created if missing; None removes the user from it.

        Raises:
            ValueError: there is no such user or role, or the name of the organisation is taken or not valid.
        """
        with self._changing() as state:
            if role is None:
                state.orgs.get(org, {}).pop(user, None)
            else:
                _join(state, org, user, role)

    def admit(self, name: str, token: str) -> None:
        """Set the token of a user, instead of earlier ones set so; a new user becomes a founder.

        Raises:
            ValueError: the name or token is not valid, or taken; the message holds no token.
        """
        if name not in self.names():
            self.add_user(name, founder=True)
        known = {t.sha256: id for id, t in self.tokens(name).items() if t.works()}
        if _sha256(token) not in known:
            self.add_token(name, name="given", token=token)
        for id, old in self.tokens(name).items():
            if old.name == "given" and old.works() and old.sha256 != _sha256(token):
                self.revoke(id)

    def default_token(self) -> str | None:
        """Return the token of user "local" (ROOT/token), created if there are no users; None if there are others."""
        file = self._root / "token"
        token = file.read_text(encoding="ascii").strip() if file.is_file() else None
        others = [name for name in self.names() if name != "local"]
        if token is not None:
            with contextlib.suppress(HubError):
                return token if self.of_token(token).user == "local" else None
        if others or ("local" in self._state().users and "local" not in self.names()):  # ... or it was removed
            return None
        if token is None or any(t.sha256 == _sha256(token) for t in self.tokens().values()):  # it was revoked
            token = f"hf_{secrets.token_hex(20)}"
            with locked(self._root, "users"):
                write_atomic(self._root / "tmp", file, token.encode())
        if "local" not in self.names():
            self.add_user("local", founder=True)
        return self.add_token("local", name="ROOT/token", token=token)[1]

    def claim(self, user: str, namespace: str) -> None:
        """Check that a user may create a repository in a namespace; a founder gets one that nobody has.

        Raises:
            HubError: 403, the user may not; 404, the name is not valid.
        """
        check_namespace(namespace)
        if self.role(user, namespace) == "write":
            return
        with self._changing() as state:
            if state.orgs.get(namespace, {}).get(user) == "write":  # by another request of the user
                return
            if namespace in state.orgs or namespace in state.users or not state.users[user]["founder"]:
                raise HubError(403, "You have no right to create a repository in this namespace")
            state.orgs[namespace] = {user: "write"}

    # --- on disk ------------------------------------------------------------------------------------------------

    def _state(self) -> _State:
        """Return the state, read again if the file has changed; it must not be modified."""
        try:
            stat = self._file.stat()
        except FileNotFoundError:
            return _State()
        mark = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if self._seen[0] != mark:
            body = json.loads(self._file.read_text(encoding="utf-8"))
            tokens = {id: Token(**values) for id, values in body["tokens"].items()}
            ids = {token.sha256: id for id, token in tokens.items()}
            self._seen = mark, _State(body["users"], tokens, body["orgs"], ids)
        return self._seen[1]

    @contextlib.contextmanager
    def _changing(self) -> Iterator[_State]:
        """Yield the state for changes, which are saved atomically."""
        with locked(self._root, "users"):
            state = copy.deepcopy(self._state())
            yield state
            tokens = {id: asdict(token) for id, token in state.tokens.items()}
            body = json.dumps({"users": state.users, "tokens": tokens, "orgs": state.orgs}, indent=1)
            write_atomic(self._root / "tmp", self._file, body.encode())


def _join(state: _State, org: str, user: str, role: str) -> None:
    _check(org)
    if role not in ROLES:
        raise ValueError(f"the role of a member is {' or '.join(ROLES)}")
    if org in state.users:
        raise ValueError(f"the name {org} is taken")
    if not state.has(user):
        raise ValueError(f"there is no user {user!r}")
    state.orgs.setdefault(org, {})[user] = role


def check_days(days: float | None) -> None:
    """Check how many days a token is to work; None is for ever.

    Raises:
        ValueError: they are not a number above 0.
    """
    if days is not None and not 0 < days < 1e6:
        raise ValueError("days must be a number above 0")


def _check(name: str) -> None:
    try:
        check_namespace(name)
    except HubError:
        raise ValueError(f"{name!r} cannot be the name of a user or an organisation") from None


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
