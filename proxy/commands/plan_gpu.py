"""headrace plan-gpu: what fits on a GPU, and the lines that launch it."""

from __future__ import annotations

import argparse

import msgspec

from proxy import model_memory, plan_gpu
from proxy.commands.shared import Commands, formatted
from proxy.errors import BadConfig


def add(commands: Commands) -> None:
    """Add `plan-gpu` to a command line."""
    text = "what fits on a GPU, and the lines that launch TGI and vLLM"
    parser = commands.add_parser("plan-gpu", help=text, description=text)
    parser.set_defaults(command=_plan_gpu)
    add = parser.add_argument
    add("--base", required=True, help=f"base model: {', '.join(model_memory.BASES)}")
    add("--gpu", required=True, help=f"{', '.join(plan_gpu.GPUS)}, or a card's memory in GiB")
    add("--gpus", type=int, default=1, help="cards, a server on each (%(default)s)")
    add("--adapters", type=int, required=True, help="LoRA adapters that each server holds")
    add("--context", type=int, required=True, help="tokens of a prompt with its answer")
    add("--quantize", choices=model_memory.QUANTIZE, default="nf4", help="weights (%(default)s)")
    add("--rank", type=int, default=32, help="rank of the adapters (%(default)s)")
    add("--json", action="store_true", help="print the plan as JSON")


def _plan_gpu(options: argparse.Namespace) -> int:
    chosen = {name: getattr(options, name) for name in plan_gpu.Order.__struct_fields__}
    try:
        order = msgspec.convert(chosen, plan_gpu.Order)
    except msgspec.ValidationError as error:
        raise BadConfig(f"plan-gpu: {error}") from None
    plan = plan_gpu.plan(order)
    print(formatted(plan) if options.json else "\n".join(plan_gpu.told(plan)))
    return 0
