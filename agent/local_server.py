"""The child process that serves a GGUF chat model on loopback, and ends with its parent.

One JSON line on standard input says what to serve and under which key; one on standard output says
where. After that, end-of-file on standard input means that the parent is gone, however it went.
"""

import fcntl
import json
import os
import signal
import sys
import threading
import time
from typing import Any

_PARENT_CHECK_SECONDS = 0.5
_PROMPT_CACHE_MIB = 256


def serve(weights_file: str, key: str, threads: int, context_tokens: int) -> Any:
    """A running server; `listening_address` says where."""
    from xllamacpp import CommonParams, Server

    parameters = CommonParams()
    parameters.model.path = weights_file
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = 0
    parameters.api_keys = [key]
    parameters.n_ctx = context_tokens
    parameters.n_parallel = 1
    parameters.n_gpu_layers = 0
    parameters.fit_params = False
    parameters.cpuparams.n_threads = threads
    parameters.cpuparams_batch.n_threads = threads
    parameters.use_jinja = True
    parameters.cache_prompt = True
    parameters.cache_ram_mib = _PROMPT_CACHE_MIB
    parameters.offline = True
    parameters.ui = False
    parameters.endpoint_slots = False
    parameters.warmup = False
    parameters.verbosity = 1
    return Server(parameters)


def main() -> None:
    """Serve until the parent closes our standard input, or is no more."""
    parent = os.getppid()
    answer = os.dup(sys.stdout.fileno())
    # llama.cpp writes its log to both; neither may reach a terminal.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    wanted = json.loads(sys.stdin.readline())
    _end_with_input()
    server = serve(**wanted)
    os.write(answer, json.dumps({"address": server.listening_address}).encode() + b"\n")
    os.close(answer)
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK_SECONDS)
    os._exit(0)


def _end_with_input() -> None:
    """End this process at the end of standard input, even while native code holds the lock."""
    # The kernel signals a change of the pipe; nothing is written to it any more but its end.
    signal.signal(signal.SIGIO, signal.SIG_DFL)
    fcntl.fcntl(sys.stdin, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(sys.stdin, fcntl.F_SETFL, fcntl.fcntl(sys.stdin, fcntl.F_GETFL) | os.O_ASYNC)
    # The parent may have gone just before; then there is an end to read already.
    threading.Thread(target=_wait_for_end, daemon=True).start()


def _wait_for_end() -> None:
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(0)


if __name__ == "__main__":
    main()
