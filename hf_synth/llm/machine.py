"""What this machine says of itself: which process is alive, and what kind of file system a path lies on.

Linux answers both in /proc. Where there is none nothing is known, and nothing is claimed: no process counts as gone, no
file system as remote.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

# File systems that several machines may write at once. SQLite's WAL needs memory that all its processes share.
_REMOTE = re.compile(
    "nfs[34]?|cifs|smb[23]|smbfs|ncpfs|afs|coda|lustre|gpfs|mmfs|beegfs|ceph|glusterfs|panfs|orangefs|pvfs2|wekafs|"
    "ocfs2|gfs2?|acfs|davfs2?|sshfs|s3fs|goofys|gcsfuse|rclone"
)
_REMOTE_FUSE = re.compile(
    "sshfs|s3fs|goofys|gcsfuse|rclone|glusterfs|ceph|ceph-fuse|curlftpfs|davfs2?|smbnetfs|juicefs|blobfuse2?|nfs|"
    "mountpoint-s3|cvmfs2|seaweedfs|moosefs|mfs|lizardfs|google-drive-ocamlfuse|onedriver|alluxio(-fuse)?|beegfs|dfuse|"
    "hdfs|fuse_dfs|afpfs|gvfsd-fuse|kio-fuse|vmhgfs-fuse"
)


def remote_file_system(path: Path) -> str | None:
    """Name the network file system that a path lies on (the path need not be there yet); None for a local one."""
    try:
        mounts = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return None
    return remote_mount(os.path.realpath(path), mounts)


def remote_mount(path: str, mounts: str) -> str | None:
    """Find the mount that an absolute, resolved path lies on, in the text of /proc/self/mountinfo.

    Returns:
        The type of its file system when several machines may write it, e.g. "nfs4"; None when it is local.
    """
    longest, kind, source = -1, "", ""
    for line in mounts.splitlines():
        left, dash, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if not dash or len(before) < 6 or not after:
            continue
        place = _plain(before[4])
        inside = path == place or path.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= longest:  # of two on one place the later one lies on top
            longest, kind, source = len(place), after[0], _plain(after[1]) if len(after) > 1 else ""
    name = kind.lower()
    if _REMOTE.fullmatch(name):
        return kind
    fuse, _, program = name.partition(".")
    if fuse in ("fuse", "fuseblk") and (_REMOTE_FUSE.fullmatch(program) or _names_a_host(source)):
        return kind
    return None


def _plain(field: str) -> str:
    """Undo the octal escapes of mountinfo, e.g. of a space."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def _names_a_host(source: str) -> bool:
    """Tell a source such as "user@server:/notes", "remote:notes" or "//server/share" from a local one."""
    return source.startswith("//") or "://" in source or re.match(r"[^/\s]+:", source) is not None


# --- processes ------------------------------------------------------------------------------------------------------


def process_name() -> str:
    """Name this process so that no other one, now or later, has the same name: start of machine, namespace, id, start.

    Where the machine does not tell, the name holds only the process id, and `is_gone` never claims anything of it.
    """
    pid = os.getpid()
    return f"{_system() or '-'}/{pid}/{_started(pid) or '-'}"


def is_gone(name: str) -> bool:
    """Tell whether a process that `process_name` named has certainly ended; False when that cannot be known."""
    system, _, rest = name.partition("/")
    pid, _, started = rest.partition("/")
    if not pid.isdecimal() or "-" in (system, started) or system != _system():
        return False
    return _started(int(pid)) != started


def _system() -> str | None:
    """Name this start of the machine and the namespace that process ids count in."""
    try:
        start = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        space = re.sub(r"\D", "", os.readlink("/proc/self/ns/pid"))
    except OSError:
        return None
    return f"{start}:{space}"


def _started(pid: int) -> str | None:
    """Give the moment a process started, in ticks since the machine's start; None once it has ended."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return None
    fields = stat[stat.rindex(b")") + 2 :].split()  # the name before may hold spaces and brackets
    if fields[0] in (b"Z", b"X"):  # ended, though its parent has not looked yet
        return None
    return fields[19].decode("ascii")
