"""One client that pushes again and again, for tests with many of them: `python hub_writer.py REPO WRITER TIMES`.

It is huggingface_hub as it is installed, and knows the Hub from its environment alone.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

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


if __name__ == "__main__":
    print(json.dumps(count_up(HfApi(), sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))))
