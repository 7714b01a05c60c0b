"""What fits on a GPU: weights, adapters, KV cache; and the lines that launch it. Pure arithmetic.

    budget = share × card − weights − adapters − reserve      bytes
    concurrent sequences = budget ÷ (context × KV per token)

Sizes of weights, adapters and KV cache are exact; share and reserve are not measured on a card.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, TypeAlias

import msgspec

from proxy.errors import BadConfig
from proxy.model_memory import BASES, GIB, Base, Quantize, weights_bytes

Engine: TypeAlias = Literal["tgi", "vllm"]

SHARE = 0.90
"""Share of the card's memory that an engine takes: vLLM's default, and TGI's TGI_WIGGLE_ROOM."""
RESERVE = int(1.25 * GIB)
"""Bytes for activations, workspace, CUDA context. Chosen: give or take 1 GiB; not measured."""
BUSY = 0.8
"""Share of the sequences that fit which the proxy asks for at once. Chosen: canaries, and answers
that run longer than the context allows for, need room too."""
ANSWER = 0.25
"""Share of the context that is kept for the answer, in TGI's admission limits. Chosen."""
TGI_MAX_RANK = 64
"""Longest rank that TGI's decode kernel (BGMV) serves."""
TGI_MIN_RANK = 16
"""Shorter ranks are padded to this."""
VLLM_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What --max-lora-rank may be."""


class DoesNotFit(BadConfig):
    """A plan that the card cannot hold; the message says what it could."""


GPUS = {"rtx3090": 23.69}
"""Memory in GiB as the driver reports it, which is less than what is sold. Others are given in GiB:
`--gpu 47.5`."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What shall run."""

    base: str = "llama-3.1-8b"
    gpu: str = "rtx3090"
    """A key of GPUS, or the memory in GiB."""
    gpus: Annotated[int, msgspec.Meta(ge=1)] = 1
    """Cards, each with a server and all adapters of its own."""
    adapters: Annotated[int, msgspec.Meta(ge=0)] = 4
    context: Annotated[int, msgspec.Meta(ge=1)] = 8192
    """Tokens of the longest prompt with its answer."""
    quantize: Quantize = "nf4"
    rank: Annotated[int, msgspec.Meta(ge=1)] = 32


class Fit(msgspec.Struct, frozen=True, kw_only=True):
    """What one card holds under one engine. Sizes in bytes."""

    engine: Engine
    weights: int
    adapters: int
    kv: int
    """What is left for the KV cache; below 0 when even the weights do not fit."""
    kv_tokens: int
    sequences: int
    """Of the whole context, at once."""
    max_in_flight: int
    """For the setting of that name in routes.yaml."""
    launch: list[str]
    """A line for each card."""


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """Why one engine cannot run it."""

    engine: Engine
    why: str


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to an order; at least one engine can run it."""

    order: Order
    card_gib: float
    fits: list[Fit]
    refused: list[Refusal]


def plan(order: Order) -> Plan:
    """What fits, for each engine; raises DoesNotFit, with what would, when none can run it."""
    base, card = _base(order.base), _card(order.gpu)
    fits: list[Fit] = []
    refused: list[Refusal] = []
    for engine in ("tgi", "vllm"):
        match _planned(base, card, order, engine):
            case Fit() as fit:
                fits.append(fit)
            case Refusal() as refusal:
                refused.append(refusal)
    if not fits:
        whys = "; ".join(f"{r.engine}: {r.why}" for r in refused)
        would = "; ".join(_would_fit(base, card, order)) or "nothing on this card; take a larger"
        raise DoesNotFit(f"plan-gpu: {whys}. What would fit: {would}")
    return Plan(order=order, card_gib=card / GIB, fits=fits, refused=refused)


def _planned(base: Base, card: int, order: Order, engine: Engine) -> Fit | Refusal:
    why = _unsupported(order, engine)
    if why is not None:
        return Refusal(engine=engine, why=why)
    weights = weights_bytes(base, order.quantize, double=engine == "tgi")
    adapters = order.adapters * base.adapter_bytes(_resident_rank(order.rank, engine))
    kv = int(SHARE * card) - weights - adapters - RESERVE
    tokens = max(0, kv // base.kv_bytes)
    sequences = tokens // order.context
    if sequences < 1:
        return Refusal(engine=engine, why=_short(order, weights, adapters, kv, tokens))
    return Fit(
        engine=engine,
        weights=weights,
        adapters=adapters,
        kv=kv,
        kv_tokens=tokens,
        sequences=sequences,
        max_in_flight=max(1, int(BUSY * sequences)),
        launch=[_launch(base, order, engine, card, sequences) for card in range(order.gpus)],
    )


def _unsupported(order: Order, engine: Engine) -> str | None:
    if engine == "vllm":
        most = VLLM_RANKS[-1]
        return f"serves no rank above {most}" if order.rank > most else None
    if order.quantize == "awq" and order.adapters:
        return "cannot load LoRA adapters onto awq weights"
    if order.rank > TGI_MAX_RANK and order.adapters:
        return f"serves no rank above {TGI_MAX_RANK}"
    return None


def _resident_rank(rank: int, engine: Engine) -> int:
    """The rank for which the engine sets memory aside."""
    if engine == "tgi":
        return max(rank, TGI_MIN_RANK)
    return next(allowed for allowed in VLLM_RANKS if allowed >= rank)


def _short(order: Order, weights: int, adapters: int, kv: int, tokens: int) -> str:
    if kv <= 0:
        return (
            f"{order.quantize} weights ({_gib(weights)}) and {order.adapters} adapters"
            f" ({_gib(adapters)}) leave no room for a KV cache"
        )
    return (
        f"{_gib(kv)} are left for the KV cache, {tokens:,} tokens: less than one sequence of"
        f" {order.context:,}"
    )


def _would_fit(base: Base, card: int, order: Order) -> Iterator[str]:
    """One change each that makes the order fit, the least painful first."""
    for quantize in ("int8", "nf4", "awq"):
        if _fits(base, card, msgspec.structs.replace(order, quantize=quantize)):
            yield f"--quantize {quantize}"
    context = _largest(base, card, order, "context", order.context)
    if context:
        yield f"--context {context}"
    adapters = _largest(base, card, order, "adapters", order.adapters)
    if adapters:
        yield f"--adapters {adapters}"
    if order.rank > TGI_MAX_RANK:
        yield f"--rank {TGI_MAX_RANK}"


def _largest(base: Base, card: int, order: Order, field: str, limit: int) -> int:
    """The largest value below `limit` with which the order fits; 0 when none does. Bisects."""
    low, high = 0, limit
    while high - low > 1:
        middle = (low + high) // 2
        fits = _fits(base, card, msgspec.structs.replace(order, **{field: middle}))
        low, high = (middle, high) if fits else (low, middle)
    return low


def _fits(base: Base, card: int, order: Order) -> bool:
    engines: tuple[Engine, ...] = ("tgi", "vllm")
    return any(isinstance(_planned(base, card, order, engine), Fit) for engine in engines)


def _base(name: str) -> Base:
    if name not in BASES:
        raise BadConfig(f"--base: no shape of {name!r} here; known are: {', '.join(BASES)}")
    return BASES[name]


def _card(name: str) -> int:
    """Memory in bytes."""
    try:
        gib = GPUS[name] if name in GPUS else float(name)
    except ValueError:
        known = ", ".join(GPUS)
        raise BadConfig(f"--gpu: {name!r} is neither {known} nor a memory size in GiB") from None
    if not 0 < gib < 10_000:
        raise BadConfig(f"--gpu: {name} GiB is no card")
    return int(gib * GIB)


# ---------------------------------------------------------------- launch lines


def _launch(base: Base, order: Order, engine: Engine, card: int, sequences: int) -> str:
    words = _tgi(base, order, sequences) if engine == "tgi" else _vllm(base, order, sequences)
    return " ".join([f"CUDA_VISIBLE_DEVICES={card}", *words, f"--port {8081 + card}"])


def _tgi(base: Base, order: Order, sequences: int) -> Iterator[str]:
    if order.adapters:
        # Its prefix cache knows a prompt by its tokens alone: another adapter's would be reused.
        yield "PREFIX_CACHING=0"
    yield f"text-generation-launcher --model-id {_model(base, order, 'tgi')} --dtype bfloat16"
    flag = {"nf4": "bitsandbytes-nf4", "int8": "bitsandbytes", "awq": "awq", "bf16": ""}
    if order.quantize != "bf16":
        yield f"--quantize {flag[order.quantize]}"
    if order.adapters:
        # Its CUDA graphs are captured without adapters: decoding would replay the base model.
        yield f"--lora-adapters {','.join(_adapters(order))} --cuda-graphs 0"
    answer = max(1, int(ANSWER * order.context))
    yield f"--max-input-tokens {order.context - answer} --max-total-tokens {order.context}"
    yield f"--max-concurrent-requests {max(64, sequences)} --usage-stats off"


def _vllm(base: Base, order: Order, sequences: int) -> Iterator[str]:
    if order.adapters:
        yield "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
    yield f"vllm serve {_model(base, order, 'vllm')}"
    if order.quantize == "nf4":
        yield "--quantization bitsandbytes"
    if order.adapters:
        rank = _resident_rank(order.rank, "vllm")
        # The defaults, one adapter of rank 16, would refuse to load ours.
        yield f"--enable-lora --max-loras {order.adapters} --max-lora-rank {rank}"
        yield f"--max-cpu-loras {2 * order.adapters} --lora-modules {' '.join(_adapters(order))}"
    yield f"--max-model-len {order.context} --max-num-seqs {sequences}"
    yield f"--gpu-memory-utilization {SHARE:g}"


def _model(base: Base, order: Order, engine: Engine) -> str:
    """The checkpoint; of those that are quantised beforehand the operator has one made."""
    if order.quantize == "awq":
        return f"<an AWQ checkpoint of {base.model}>"
    if order.quantize == "int8" and engine == "vllm":
        return f"<a W8A8 int8 checkpoint of {base.model}>"
    return base.model


def _adapters(order: Order) -> Iterator[str]:
    """The adapters as `id=path`; the ids are to be replaced by one's own."""
    for number in range(1, order.adapters + 1):
        yield f"domain{number}-v1=/adapters/domain{number}-v1"


# ---------------------------------------------------------------- for people


def told(plan: Plan) -> Iterator[str]:
    """The plan as lines of text."""
    order = plan.order
    yield (
        f"{order.base}, {order.quantize}, {order.adapters} adapters of rank {order.rank}, context"
        f" {order.context:,}, on {order.gpus} × {order.gpu} ({plan.card_gib:.2f} GiB)"
    )
    yield ""
    yield f"{'each card':22}" + "".join(f"{fit.engine:>12}" for fit in plan.fits)
    for name, cells in _rows(plan.fits):
        yield f"{name:22}" + "".join(f"{cell:>12}" for cell in cells)
    for refusal in plan.refused:
        yield f"\n{refusal.engine} cannot: {refusal.why}"
    for fit in plan.fits:
        yield f"\n{fit.engine}, with max_in_flight: {fit.max_in_flight} in routes.yaml:\n"
        yield from fit.launch


def _rows(fits: list[Fit]) -> Iterator[tuple[str, list[str]]]:
    yield "weights", [_gib(fit.weights) for fit in fits]
    yield "adapters", [_gib(fit.adapters) for fit in fits]
    yield "reserve (assumed)", [_gib(RESERVE) for _ in fits]
    yield "KV cache", [_gib(fit.kv) for fit in fits]
    yield "KV cache, tokens", [f"{fit.kv_tokens:,}" for fit in fits]
    yield "sequences at once", [f"{fit.sequences:,}" for fit in fits]


def _gib(size: int) -> str:
    return f"{size / GIB:.2f} GiB"
