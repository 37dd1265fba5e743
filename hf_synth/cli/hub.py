"""`hf-synth hub serve|create-user|remove-user|org|token|ls|gc`: serve a local Hub, say who may come in, look after it.

All but `serve` may run while the Hub is served, and what they change holds from the next request on. A token is
shown once, when it is made.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hf_synth.errors import OutputError
from hf_synth.hub.disk import make_root
from hf_synth.hub.store import Store
from hf_synth.hub.sweeping import KINDS, check, sweep
from hf_synth.hub.tree import Repo
from hf_synth.hub.users import Token, Users
from hf_synth.task.folders import clear_disk_errors

Facts = dict[str, Any]


def hub_serve(args: argparse.Namespace) -> Facts | None:
    """Serve the local Hub."""
    from hf_synth.hub import serve

    serve(args.root, host=args.host, port=args.port, url=args.url or "", members_only=args.members_only)
    return None


def hub_create_user(args: argparse.Namespace) -> Facts:
    """Add a user, with a first token."""
    with _hub(args.root, make=True), _token_place(args.token_file) as keep:
        users = Users(args.root)
        users.add_user(args.name, founder=args.founder, orgs=dict.fromkeys(args.org, args.role))
        id, token = users.add_token(args.name, name="first", role=args.token_role, days=args.days)
        orgs = users.orgs_of(args.name)
        keep(token)
    print(f"{args.name}: added" + "".join(f", {role} in {org}" for org, role in orgs.items()))
    shown = _show_new(args, id, token)
    return {"user": args.name, "founder": args.founder, "orgs": orgs, **shown}


def hub_remove_user(args: argparse.Namespace) -> Facts:
    """Let a user in no more; what they own goes to another namespace, or stays where nobody can change it."""
    with _hub(args.root):
        users, store = Users(args.root), Store(args.root, serve=False)
        if args.name not in users.names():
            raise ValueError(f"there is no user {args.name!r}")
        theirs = [repo for kind in KINDS for repo in store.repos(kind) if repo.namespace == args.name]
        moved = _give(store, users, theirs, args.repos_to) if args.repos_to else []
        orphaned = users.remove_user(args.name)
        left = [repo.id for kind in KINDS for repo in store.repos(kind) if repo.namespace == args.name]
    print(f"{args.name}: removed; their tokens work no more, and nobody gets the name again")
    if moved:
        print(f"{len(moved)} repositories are now at {', '.join(moved)}")
    if left:
        print(f"{len(left)} repositories stay where nobody can change them: {', '.join(left)}")
    if orphaned:
        print(f"nobody may write to {', '.join(orphaned)} now: hf-synth hub org NAME --add USER")
    return {"user": args.name, "removed": True, "moved": moved, "left": left, "orgs_without_writer": orphaned}


def _give(store: Store, users: Users, repos: list[Repo], namespace: str) -> list[str]:
    """Move repositories into another namespace, or none of them where one cannot go."""
    if namespace not in (*users.names(), *users.orgs()) or any(repo.namespace == namespace for repo in repos):
        raise ValueError(f"--repos-to {namespace}: there is no other user or organisation of this name")
    places = [(repo, f"{namespace}/{repo.id.split('/')[1]}") for repo in repos]
    if taken := [id for repo, id in places if store.repo(repo.type, id) is not None]:
        raise ValueError(f"{taken[0]} is there already: move or delete one of the two first")
    return [store.move(repo, id).id for repo, id in places]


def hub_org(args: argparse.Namespace) -> Facts:
    """Make an organisation, and let users into it or out of it."""
    with _hub(args.root, make=True):
        users = Users(args.root)
        for user in args.add:
            users.set_member(args.name, user, args.role)
        for user in args.remove:
            users.set_member(args.name, user, None)
        members = users.orgs().get(args.name)
        if members is None:
            raise ValueError(f"there is no organisation {args.name!r}; make it with --add USER")
    print(f"{args.name}: {', '.join(f'{user} ({role})' for user, role in members.items()) or 'no members'}")
    return {"org": args.name, "members": members}


def hub_token(args: argparse.Namespace) -> Facts:
    """Make a token, list what is known of all, or revoke one."""
    with _hub(args.root):
        users = Users(args.root)
        if args.token_verb == "create":
            with _token_place(args.token_file) as keep:
                id, token = users.add_token(args.user, name=args.name, role=args.token_role, days=args.days)
                keep(token)
            return {"user": args.user, "role": args.token_role, **_show_new(args, id, token)}
        if args.token_verb == "revoke":
            revoked = users.revoke(args.id)
            print(f"token {args.id} of {revoked.user}: revoked")
            return {"id": args.id, "user": revoked.user, "revoked": True}
        found = users.tokens(args.user)
    for id, known in found.items():
        print(f"{id}  {known.user}  {known.role:5}  {_state(known):23}  {known.name}")
    print(f"{len(found)} tokens; the tokens themselves are not kept")
    kept = ("user", "name", "role", "created", "expires", "revoked")
    rows = [{"id": id, **{name: asdict(t)[name] for name in kept}, "works": t.works()} for id, t in found.items()]
    return {"tokens": rows}


def hub_ls(args: argparse.Namespace) -> Facts:
    """List repositories, users and organisations; with --check, read all content and compare it with its hashes.

    Raises:
        OutputError: something is missing or damaged.
    """
    with _hub(args.root):
        store, users = Store(args.root, serve=False), Users(args.root)
        broken = [found for found in check(store) if found.problems] if args.check else []
        for found in broken:
            print(f"{found.repo.type[:-1]} {found.repo.id}: {'; '.join(found.problems)}")
        if broken:
            raise OutputError(f"{args.root}: {len(broken)} repositories are not whole; take them from a backup")
        repos = [_repo_facts(store, repo) for kind in KINDS for repo in store.repos(kind)]
        names, orgs = users.names(), users.orgs()
    for repo in repos:
        marks = [mark for mark in ("private", "gated") if repo[mark]]
        print(f"{repo['type']:7}  {repo['id']}  {repo['files']:,} files, {repo['bytes']:,} bytes", *marks)
    said = (f"{what}: {', '.join(some) or 'none'}" for what, some in (("users", names), ("organisations", orgs)))
    print(f"{len(repos)} repositories", *said, sep="; ")
    if args.check:
        print("all content is there and whole")
    return {"repos": repos, "users": names, "orgs": orgs, "checked": args.check}


def _repo_facts(store: Store, repo: Repo) -> Facts:
    commit = store.commit(repo, "main")
    size = sum(file.size for file in commit.files.values())
    who = {"type": repo.type[:-1], "id": repo.id, "private": repo.private, "gated": repo.gated}
    return {**who, "sha": commit.oid, "files": len(commit.files), "bytes": size}


def hub_gc(args: argparse.Namespace) -> Facts:
    """Remove what no branch or tag leads to, and what a kill left."""
    if not 0 <= args.hours < 1e6:
        raise OutputError("--hours is a number, 0 or more")
    with _hub(args.root):
        swept = sweep(Store(args.root, serve=False), age=args.hours * 3600, dry_run=args.dry_run)
    said = "would be removed" if args.dry_run else "removed"
    print(
        f"{swept.files:,} files, {swept.commits:,} commits, {swept.drafts:,} unfinished uploads or deletions {said}: "
        f"{swept.bytes:,} bytes"
    )
    return {**asdict(swept), "dry_run": args.dry_run}


@contextlib.contextmanager
def _hub(root: Path, *, make: bool = False) -> Iterator[None]:
    """See that a Hub is there, or make one; say in one sentence what is wrong."""
    if not make and not (root / "format").is_file():
        raise OutputError(f"{root}: there is no Hub; `hf-synth hub serve` or `hf-synth hub create-user` makes one")
    try:
        with clear_disk_errors(root):
            make_root(root)
            yield
    except ValueError as error:
        raise OutputError(f"{root}: {error}") from None


@contextlib.contextmanager
def _token_place(file: Path | None) -> Iterator[Any]:
    """Give what keeps a token: it writes a new file that only its owner can read, or does nothing.

    The file is made first: a token that nobody could be told would still let somebody in.
    """
    if file is None:
        yield lambda token: None
        return
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise OutputError(f"--token-file {file}: {os.strerror(error.errno or 0).lower()}; name a new file") from None
    try:
        with os.fdopen(handle, "w", encoding="ascii") as out:
            yield lambda token: out.write(token + "\n")
    except BaseException:
        file.unlink(missing_ok=True)
        raise


def _show_new(args: argparse.Namespace, id: str, token: str) -> Facts:
    if args.token_file is not None:
        print(f"token {id} is in {args.token_file}")
        return {"id": id, "token_file": str(args.token_file)}
    if not args.json:  # there it is told once, on the last line
        print(f"token {id}, shown this once: {token}")
    return {"id": id, "token": token}


def _state(token: Token) -> str:
    if token.revoked is not None:
        return f"revoked {_day(token.revoked)}"
    if token.expires is None:
        return f"since {_day(token.created)}"
    return f"{'until' if time.time() < token.expires else 'ended'} {_day(token.expires)}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
