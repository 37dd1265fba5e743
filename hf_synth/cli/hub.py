"""`hf-synth hub serve|create-user|remove-user|org|token|ls|gc`: serve a local Hub, manage its users, maintain it.

All but `serve` may run while the Hub is served; their changes hold from the next request on. A token is shown once,
when it is made.
"""

from __future__ import annotations

import contextlib
import os
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hf_synth.cli.options import Result, Verbs, add_verb
from hf_synth.cli.parsing import Parser
from hf_synth.errors import OutputError

if TYPE_CHECKING:
    from hf_synth.hub.store import Store
    from hf_synth.hub.tree import Repo
    from hf_synth.hub.users import Token, Users

ROLES = ("read", "write")


def add_hub_options(parser: Parser) -> None:
    """Add the verbs of `hub`."""
    verbs = parser.add_subparsers(metavar="VERB")
    add = _add_verb(verbs, "serve", "serve the Hub until interrupted", serve, json=False)
    add("--port", type=int, default=8090, metavar="N", help="port to listen on; 0 takes a free one (default: 8090)")
    text = "address to listen on (default: 127.0.0.1, this machine only)"
    add("--host", default="127.0.0.1", metavar="HOST", help=text)
    text = "address that clients use, where the Hub has a host name or a proxy (default: that of --host and --port)"
    add("--url", metavar="URL", help=text)
    add("--members-only", action="store_true", help="show nothing to clients without a token")
    add = _add_verb(verbs, "create-user", "add a user, with a first token that is shown once", create_user)
    add("name", metavar="NAME", help="name of the new user")
    add("--org", action="append", default=[], metavar="ORG", help="an organisation of the user; may be repeated")
    add("--role", choices=ROLES, default="write", help="role in these organisations (default: write)")
    add("--founder", action="store_true", help="the user may make organisations, by pushing to a free name")
    _add_new_token(add)
    line = "remove a user: revoke all tokens, leave all organisations"
    add = _add_verb(verbs, "remove-user", line, remove_user)
    add("name", metavar="NAME", help="name of the user")
    add("--repos-to", metavar="NAMESPACE", help="user or organisation that gets the repositories (default: they stay)")
    line = "make an organisation, let users into it or out of it, list its members"
    add = _add_verb(verbs, "org", line, org)
    add("name", metavar="ORG", help="name of the organisation")
    add("--add", action="append", default=[], metavar="USER", help="add this user; may be repeated")
    add("--role", choices=ROLES, default="write", help="role of those added (default: write)")
    add("--remove", action="append", default=[], metavar="USER", help="remove this user; may be repeated")
    line = "make, list and revoke tokens"
    _add_token_verbs(verbs.add_parser("token", help=line, description=f"{line.capitalize()}."))
    add = _add_verb(verbs, "ls", "list repositories, users and organisations", ls)
    add("--check", action="store_true", help="read all content and compare it with its hashes")
    add = _add_verb(verbs, "gc", "remove files that no branch or tag uses, and unfinished uploads", gc)
    add("--hours", type=float, default=24, metavar="N", help="only what is older than N hours (default: 24)")
    add("--dry-run", action="store_true", help="list what would be removed; change nothing")


def _add_token_verbs(parser: Parser) -> None:
    verbs = parser.add_subparsers(metavar="VERB")
    add = _add_verb(verbs, "create", "make a token that is shown once", create_token)
    add("user", metavar="USER", help="user that the token stands for")
    add("--name", default="", metavar="NAME", help="what the token is for")
    _add_new_token(add)
    add = _add_verb(verbs, "list", "list the tokens by id, never the tokens themselves", list_tokens)
    add("user", nargs="?", metavar="USER", help="list those of one user (default: all)")
    add = _add_verb(verbs, "revoke", "revoke a token", revoke_token)
    add("id", metavar="ID", help="id of the token, as `list` shows it")


def _add_verb(
    verbs: Verbs, name: str, line: str, run: Callable[[Namespace], Result | None], *, json: bool = True
) -> Callable[..., Any]:
    """Add a verb with --root, and return what adds its other options."""
    add = add_verb(verbs, name, line, run, json=json).add_argument
    add("--root", type=Path, required=True, metavar="DIR", help="folder that holds the Hub")
    return add


def _add_new_token(add: Callable[..., Any]) -> None:
    add("--token-role", choices=ROLES, default="write", help="what the token may do (default: write)")
    add("--days", type=float, metavar="N", help="days that the token works (default: until it is revoked)")
    add("--token-file", type=Path, metavar="FILE", help="write the token to this new file instead of printing it")


# --- serving --------------------------------------------------------------------------------------------------------
def serve(args: Namespace) -> None:
    """Serve the local Hub."""
    from hf_synth.hub import serve as run_server

    run_server(args.root, host=args.host, port=args.port, url=args.url or "", members_only=args.members_only)


# --- users, organisations, tokens -----------------------------------------------------------------------------------
def create_user(args: Namespace) -> Result:
    """Add a user, with a first token."""
    from hf_synth.hub.users import check_days

    with _hub(args.root, make=True) as (users, _), _token_file(args.token_file) as keep:
        check_days(args.days)  # before the user is added, who would have no token
        users.add_user(args.name, founder=args.founder, orgs=dict.fromkeys(args.org, args.role))
        id, token = users.add_token(args.name, name="first", role=args.token_role, days=args.days)
        orgs = users.orgs_of(args.name)
        keep(token)
    print(f"{args.name}: added" + "".join(f", {role} in {org}" for org, role in orgs.items()))
    return {"user": args.name, "founder": args.founder, "orgs": orgs, **_print_token(args, id, token)}


def remove_user(args: Namespace) -> Result:
    """Remove a user; their repositories go to another namespace, or stay where nobody can change them."""
    from hf_synth.hub.sweeping import KINDS

    with _hub(args.root) as (users, store):
        if args.name not in users.names():
            raise ValueError(f"there is no user {args.name!r}")
        theirs = [repo for kind in KINDS for repo in store.repos(kind) if repo.namespace == args.name]
        moved = _move(store, users, theirs, args.repos_to) if args.repos_to else []
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


def _move(store: Store, users: Users, repos: list[Repo], namespace: str) -> list[str]:
    """Move repositories into another namespace: all or none."""
    if namespace not in (*users.names(), *users.orgs()) or any(repo.namespace == namespace for repo in repos):
        raise ValueError(f"--repos-to {namespace}: there is no other user or organisation of this name")
    places = [(repo, f"{namespace}/{repo.id.split('/')[1]}") for repo in repos]
    if taken := [id for repo, id in places if store.repo(repo.type, id) is not None]:
        raise ValueError(f"{taken[0]} is there already: move or delete one of the two first")
    return [store.move(repo, id).id for repo, id in places]


def org(args: Namespace) -> Result:
    """Make an organisation, add members and remove them."""
    with _hub(args.root, make=True) as (users, _):
        for user in args.add:
            users.set_member(args.name, user, args.role)
        for user in args.remove:
            users.set_member(args.name, user, None)
        members = users.orgs().get(args.name)
        if members is None:
            raise ValueError(f"there is no organisation {args.name!r}; make it with --add USER")
    print(f"{args.name}: {', '.join(f'{user} ({role})' for user, role in members.items()) or 'no members'}")
    return {"org": args.name, "members": members}


def create_token(args: Namespace) -> Result:
    """Make a token."""
    with _hub(args.root) as (users, _), _token_file(args.token_file) as keep:
        id, token = users.add_token(args.user, name=args.name, role=args.token_role, days=args.days)
        keep(token)
    return {"user": args.user, "role": args.token_role, **_print_token(args, id, token)}


def list_tokens(args: Namespace) -> Result:
    """List the facts of all tokens, or of one user's."""
    with _hub(args.root) as (users, _):
        tokens = users.tokens(args.user)
    for id, token in tokens.items():
        print(f"{id}  {token.user}  {token.role:5}  {_state(token):23}  {token.name}")
    print(f"{len(tokens)} tokens; the tokens themselves are not kept")
    names = ("user", "name", "role", "created", "expires", "revoked")
    rows = [{"id": id, **{n: getattr(t, n) for n in names}, "works": t.works()} for id, t in tokens.items()]
    return {"tokens": rows}


def revoke_token(args: Namespace) -> Result:
    """Revoke a token."""
    with _hub(args.root) as (users, _):
        token = users.revoke(args.id)
    print(f"token {args.id} of {token.user}: revoked")
    return {"id": args.id, "user": token.user, "revoked": True}


# --- maintenance ----------------------------------------------------------------------------------------------------
def ls(args: Namespace) -> Result:
    """List repositories, users and organisations; with --check, read all content and compare it with its hashes.

    Raises:
        OutputError: something is missing or damaged.
    """
    from hf_synth.hub.sweeping import KINDS, check

    with _hub(args.root) as (users, store):
        broken = [checked for checked in check(store) if checked.problems] if args.check else []
        for checked in broken:
            print(f"{checked.repo.type[:-1]} {checked.repo.id}: {'; '.join(checked.problems)}")
        if broken:
            raise OutputError(f"{args.root}: {len(broken)} repositories are damaged; restore them from a backup")
        repos = [_repo_facts(store, repo) for kind in KINDS for repo in store.repos(kind)]
        names, orgs = users.names(), users.orgs()
    for repo in repos:
        marks = [mark for mark in ("private", "gated") if repo[mark]]
        print(f"{repo['type']:7}  {repo['id']}  {repo['files']:,} files, {repo['bytes']:,} bytes", *marks)
    print(f"{len(repos)} repositories; users: {', '.join(names) or 'none'}; organisations: {', '.join(orgs) or 'none'}")
    if args.check:
        print("all content is there and whole")
    return {"repos": repos, "users": names, "orgs": orgs, "checked": args.check}


def _repo_facts(store: Store, repo: Repo) -> Result:
    commit = store.commit(repo, "main")
    size = sum(file.size for file in commit.files.values())
    settings = {"type": repo.type[:-1], "id": repo.id, "private": repo.private, "gated": repo.gated}
    return {**settings, "sha": commit.oid, "files": len(commit.files), "bytes": size}


def gc(args: Namespace) -> Result:
    """Remove files that no branch or tag leads to, and unfinished uploads."""
    from hf_synth.hub.sweeping import sweep

    if not 0 <= args.hours < 1e6:
        raise OutputError("--hours is a number, 0 or more")
    with _hub(args.root) as (_, store):
        swept = sweep(store, age=args.hours * 3600, dry_run=args.dry_run)
    change = "would be removed" if args.dry_run else "removed"
    drafts = f"{swept.drafts:,} unfinished uploads or deletions"
    print(f"{swept.files:,} files, {swept.commits:,} commits, {drafts} {change}: {swept.bytes:,} bytes")
    return {**vars(swept), "dry_run": args.dry_run}


@contextlib.contextmanager
def _hub(root: Path, *, make: bool = False) -> Iterator[tuple[Users, Store]]:
    """Open the users and the store of a Hub, or make a new one; turn errors inside into an OutputError."""
    from hf_synth.hub.store import Store
    from hf_synth.hub.users import Users
    from hf_synth.task.folders import clear_disk_errors

    if not make and not (root / "format").is_file():
        raise OutputError(f"{root}: there is no Hub; `hf-synth hub serve` or `hf-synth hub create-user` makes one")
    try:
        with clear_disk_errors(root):
            store = Store(root, serve=False)
            yield Users(root), store
    except ValueError as error:
        raise OutputError(f"{root}: {error}") from None


@contextlib.contextmanager
def _token_file(file: Path | None) -> Iterator[Callable[[str], object]]:
    """Yield a function that writes a token to a new file (0600), or without a file does nothing.

    The file is made first: a token that could not be written would work all the same.
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


def _print_token(args: Namespace, id: str, token: str) -> Result:
    if args.token_file is not None:
        print(f"token {id} is in {args.token_file}")
        return {"id": id, "token_file": str(args.token_file)}
    if not args.json:  # which shows it on the last line
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
