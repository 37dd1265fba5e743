"""The program of the process that runs llama.cpp's server (package xllamacpp); `local_server` starts it.

It reads one line of JSON from stdin, writes one line of JSON to stdout once the server listens, and then waits for the
end of stdin: when the process that started it ends, in whatever way, the system closes the pipe and this one ends too.
The key of the server is never in the command line or the environment, where other users could read it. It imports
nothing of hf_synth, so that it starts at once.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
import time
from typing import Any

_LOOK = 2.0  # seconds between two looks for the parent
_LONGEST_ANSWER = (
    1_024  # tokens of an answer without max_tokens, as in a LocalLLM: small models may never end by themselves
)
# Sampling of a question that states no other; llama.cpp's own defaults, written down so that no update changes them.
_SAMPLING = {"temp": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05}


def main() -> None:
    """Start the server and stay until the parent is gone."""
    line = sys.stdin.buffer.readline()
    if not line:  # the parent was gone before it could ask
        return
    request = json.loads(line)
    sys.path[:] = request["path"]  # the package is found where the parent finds it
    threading.Thread(target=_end_with_parent, args=(request["parent"],), daemon=True).start()
    reply = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # llama.cpp may write to stdout
    try:
        server = _serve(request)
    except Exception as error:
        if not isinstance(error, (ImportError, OSError, UnicodeError)):
            _await_log()
        print(json.dumps({"error": type(error).__name__}), file=reply, flush=True)
        os._exit(1)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)  # from here on messages could repeat a prompt
    os.dup2(silent, 2)
    print(json.dumps({"url": server.listening_address}), file=reply, flush=True)
    threading.Event().wait()


def _serve(request: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path, params.model_alias = request["model"], {request["name"]}
    params.hostnames, params.port, params.api_keys = ["127.0.0.1"], 0, [request["key"]]
    params.n_parallel, params.n_ctx = request["slots"], request["slots"] * request["context"]
    params.n_predict = min(_LONGEST_ANSWER, request["context"])
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
    params.n_threads_http = request["connections"] + 4  # a connection keeps its thread
    params.cont_batching, params.ctx_shift, params.fit_params, params.warmup = True, False, False, False
    params.cache_ram_mib = 0  # no prompts in memory beyond those of the slots
    params.ui = params.endpoint_slots = params.endpoint_props = params.endpoint_metrics = False
    params.verbosity = 1  # errors alone
    for name, value in _SAMPLING.items():
        setattr(params.sampling, name, value)
    return xllamacpp.Server(params)


def _await_log() -> None:
    """Wait until the log, which llama.cpp writes in a thread of its own, says why it failed; 2 s at most."""
    size = 0
    for _ in range(10):
        time.sleep(0.2)
        before, size = size, os.fstat(2).st_size
        if size and size == before:
            return


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:  # a fork of the parent could keep the pipe open
        if select.select([0], [], [], _LOOK)[0] and not os.read(0, 1):
            break
    os._exit(0)


if __name__ == "__main__":
    main()
