"""Put a new folder in the place of an earlier one, without the loss of what stays."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path


def place_of(path: Path) -> Path:
    """Return the path that a link leads to; any other path as it is."""
    return path.resolve() if path.is_symlink() else path


def replace_folder(draft: Path, path: Path, keep: str) -> None:
    """Move a folder to a path, in the place of an earlier folder; a subfolder of the earlier one stays.

    The earlier folder is moved aside and deleted at the end. Where it cannot be replaced, it is as before.

    Args:
        draft: the new folder, in the same folder as `path`.
        path: no link (`place_of`).
        keep: name of the subfolder, e.g. that of the journal.

    Raises:
        OSError: the folder cannot be moved, e.g. since a volume is mounted there.
    """
    if not path.is_dir():
        os.replace(draft, path)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))  # mode 0700
    earlier = aside / path.name
    try:
        os.rename(path, earlier)
        try:
            if (earlier / keep).is_dir():
                os.rename(earlier / keep, draft / keep)
            os.replace(draft, path)
        except BaseException:
            if (draft / keep).is_dir() and not (earlier / keep).exists():
                os.rename(draft / keep, earlier / keep)
            os.rename(earlier, path)
            raise
    except BaseException:
        if not earlier.exists():
            aside.rmdir()
        raise
    shutil.rmtree(aside, ignore_errors=True)
