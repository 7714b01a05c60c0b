"""The embedded engine beside vLLM on the processor and llama.cpp: one model, one machine, one run.

    python -m bench.engines [--quick] [--rounds 3] [--only PART] [--threads N] [--out docs]

SmolLM2-135M-Instruct without an adapter. All three run at once and are asked in turn, round by
round, so that other work on the machine hits each of them; who is not asked is idle. A request is
some 330 tokens of text that no other request begins with, and 32 tokens are asked for, greedily,
streamed. Headrace is asked through its whole proxy, the others directly.

Then the aim of the embedded engine: sixteen clients over three adapters, through the proxy,
constrained, verified and recorded. Agents send the same tools with each
of their questions, strangers never do.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

from bench.engines import asking, report, servers
from bench.engines.asking import Round, together
from bench.engines.servers import ROOT, Server

_CLIENTS = {1: 3, 4: 8, 16: 16}
"""Clients → requests of a round."""
_OVER_ADAPTERS = 16
"""Clients."""
_AGENTS, _STRANGERS = "agents: the same tools each time", "strangers: tools never seen"
_QUESTIONS = {_AGENTS: 48, _STRANGERS: 16}
"""Requests of a round."""


def main() -> None:
    """Measure, tell, write."""
    options = _options()
    rounds = 1 if options.quick else options.rounds
    told = []
    with tempfile.TemporaryDirectory() as directory:
        scratch = Path(directory)
        if options.only != "beside":
            told.append(report.over_adapters(_over_adapters(options, scratch / "three", rounds)))
            print(told[-1], end="\n\n", flush=True)
        if options.only != "adapters":
            told.insert(0, report.beside(_beside(options, scratch / "none", rounds)))
            print(told[0], flush=True)
    if options.out is not None:
        command = "make bench-engines-quick" if options.quick else "make bench-engines"
        report.write("\n\n".join(told), command, rounds, options.out)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench.engines", description=__doc__)
    add = parser.add_argument
    add("--quick", action="store_true", help="one round")
    add("--rounds", type=int, default=3, help="(%(default)s)")
    add("--only", choices=["beside", "adapters"], help="one of the two parts")
    add("--threads", type=int, help="of the model (all cores)")
    add("--vllm", type=Path, default=ROOT / ".venv-vllm" / "bin" / "python")
    add("--llamacpp", type=Path, default=ROOT / ".venv-llamacpp" / "bin" / "python")
    add("--out", type=Path, help="directory of performance.md")
    return parser.parse_args()


def _beside(
    options: argparse.Namespace, scratch: Path, rounds: int
) -> dict[tuple[str, int], list[Round]]:
    """Rounds by engine and number of clients; all engines in turn, with the same texts."""
    scratch.mkdir()
    with ExitStack() as stack:
        bare = servers.no_adapters(scratch / "adapters")
        ours = stack.enter_context(servers.headrace(scratch, bare, None))
        engines = {"Headrace, embedded": ours} | _others(stack, options, scratch)
        return _in_turn(engines, rounds)


def _others(stack: ExitStack, options: argparse.Namespace, scratch: Path) -> dict[str, Server]:
    """The other engines, as far as they are installed."""
    started = {}
    for name, start, python in (
        ("llama.cpp", servers.llamacpp, options.llamacpp),
        ("vLLM", servers.vllm, options.vllm),
    ):
        if python.exists():
            started[name] = stack.enter_context(start(python, scratch))
        else:
            print(f"{name} is left out: {python} is not there", file=sys.stderr)
    return started


def _in_turn(engines: Mapping[str, Server], rounds: int) -> dict[tuple[str, int], list[Round]]:
    texts = asking.texts()
    done: dict[tuple[str, int], list[Round]] = {
        (name, clients): [] for name in engines for clients in _CLIENTS
    }
    for engine in engines.values():
        together(engine, [next(texts), next(texts)], 2)
    for _ in range(rounds):
        for clients, count in _CLIENTS.items():
            chosen = [next(texts) for _ in range(count)]
            for name, engine in engines.items():
                done[name, clients].append(together(engine, chosen, clients))
    return done


def _over_adapters(
    options: argparse.Namespace, scratch: Path, rounds: int
) -> dict[str, list[Round]]:
    """Rounds by kind of traffic."""
    scratch.mkdir()
    traffic = asking.Traffic()
    done: dict[str, list[Round]] = defaultdict(list)
    three = servers.three_adapters(scratch / "adapters")
    with servers.headrace(scratch, three, options.threads) as ours:
        together(ours, traffic.warming(), 3)
        for number in range(rounds):
            chosen = traffic.of_agents(number, _QUESTIONS[_AGENTS])
            done[_AGENTS].append(together(ours, chosen, _OVER_ADAPTERS))
            chosen = traffic.of_strangers(_QUESTIONS[_STRANGERS])
            done[_STRANGERS].append(together(ours, chosen, _OVER_ADAPTERS))
    if options.threads is None:
        return done
    return {f"{name}; `threads: {options.threads}`": rounds for name, rounds in done.items()}


if __name__ == "__main__":
    main()
