"""The embedded model: llama.cpp on a loopback port, `python -m embedded.model_server FILE PORT`.

Speaks the OpenAI and Anthropic HTTP APIs and llama.cpp's `/tokenize`; the key is `EMBEDDED_MODEL_KEY`.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import xllamacpp

# Four answers at once share one context; a chat prompt and its reply fit a quarter of it.
SLOTS = 4
CONTEXT_TOKENS = 4 * 2048
NICENESS = 10


def parameters(path: str, port: int, key: str) -> xllamacpp.CommonParams:
    params = xllamacpp.CommonParams()
    params.model.path = path
    # Its name in answers; without one it would be the file's path.
    params.model_alias = {Path(path).stem}
    params.port = port
    params.api_keys = [key]
    params.n_parallel = SLOTS
    params.n_ctx = CONTEXT_TOKENS
    params.cache_ram_mib = 64
    params.ui = False
    params.endpoint_slots = False
    params.endpoint_props = False
    params.verbosity = 1
    # Texts become vectors too, by the mean over their tokens.
    params.embedding = True
    params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    # What a small model needs lest it repeat itself to the last token.
    params.sampling.top_p = 0.9
    params.sampling.dry_multiplier = 0.8
    return params


def main() -> None:
    path, port = sys.argv[1], int(sys.argv[2])
    os.nice(NICENESS)
    server = xllamacpp.Server(parameters(path, port, os.environ["EMBEDDED_MODEL_KEY"]))
    print(f"serving {path} at {server.listening_address}", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    # The C++ threads end with the process; there is nothing of theirs to save.
    os._exit(0)


if __name__ == "__main__":
    main()
