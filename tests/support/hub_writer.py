"""One client that pushes again and again, for tests with many of them, each a process of its own.

It is huggingface_hub as it is installed, and knows the Hub from its environment alone.
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import tempfile
import time
from pathlib import Path

import httpx2
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError


def count_up(api: HfApi, repo: str, writer: int, times: int) -> int:
    """Add 1 to the number in a file and add two files of one's own, in one commit, `times` times.

    When another was first the commit is refused (412), and it starts again from what is there then.

    Returns:
        How often it had to start again.
    """
    again = 0
    with tempfile.TemporaryDirectory() as cache:
        for k in range(times):
            while True:
                head = api.repo_info(repo).sha
                seen = Path(api.hf_hub_download(repo, "n.txt", revision=head, cache_dir=cache))
                add = {
                    "n.txt": str(int(seen.read_text()) + 1),
                    f"{writer}/{k}.txt": f"{k}",
                    f"{writer}/{k}.bin": f"{k}!",
                }
                operations = [CommitOperationAdd(path, text.encode()) for path, text in add.items()]
                try:
                    api.create_commit(repo, operations, commit_message=f"{writer} {k}", parent_commit=head)
                    break
                except HfHubHTTPError as error:
                    if error.response.status_code != 412:
                        raise
                    again += 1
    return again


def push_until_answered(api: HfApi, writer: int, times: int) -> dict[str, list[str]]:
    """Push a large and a small file in one commit, `times` times, again and again while the server is away.

    Returns:
        Titles of the commits that were tried, and of those that were acknowledged.
    """
    tried, done = [], []
    for k in range(times):
        data = random.Random(f"{writer} {k}").randbytes(200_000)
        for attempt in itertools.count():
            title = f"{writer} {k}, attempt {attempt}"
            tried.append(title)
            try:
                api.create_repo(f"demo/{k % 3}", exist_ok=True)
                add = {f"{writer}/{k}.bin": data, f"{writer}/{k}.txt": title.encode()}
                operations = [CommitOperationAdd(path, content) for path, content in add.items()]
                api.create_commit(f"demo/{k % 3}", operations, commit_message=title)
                done.append(title)
                break
            except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                assert status is None, f"a Hub that is served refused with {status}"
                time.sleep(0.05)
    return {"tried": tried, "done": done}


if __name__ == "__main__":
    if sys.argv[1] == "count":
        print(json.dumps(count_up(HfApi(), sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))))
    else:
        print(json.dumps(push_until_answered(HfApi(), int(sys.argv[2]), int(sys.argv[3]))))
