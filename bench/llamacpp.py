"""llama.cpp's own server, from the package xllamacpp, for `bench/engines.py`.

    .venv-llamacpp/bin/python bench/llamacpp.py MODEL.gguf PORT SLOTS THREADS [ADAPTER.gguf]

Runs until its stdin is closed. The package's wheel is built for any x86-64,
without AVX-512 and AMX.
"""

from __future__ import annotations

import sys

import xllamacpp


def main() -> None:
    model, port, slots, threads, *adapter = sys.argv[1:]
    params = xllamacpp.CommonParams()
    params.model.path = model
    params.hostnames = ["127.0.0.1"]
    params.port = int(port)
    params.n_parallel = int(slots)
    params.n_ctx = 1024 * int(slots)
    params.cpuparams.n_threads = int(threads)
    params.cpuparams_batch.n_threads = int(threads)
    if adapter:
        params.lora_adapters = [xllamacpp.CommonAdapterLoraInfo(adapter[0], 1.0)]
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
