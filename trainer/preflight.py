"""What must hold before time is spent: seconds, no weights loaded.

Each check is one way in which trainings have gone wrong in silence: a template that the server does
not use, an end of turn that is never learnt, a cut answer, an adapter that no engine loads. A fault
names the first row that has it, by id and source and never by content, and says what to change.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from proxy.protocol.formats import prompt
from proxy.protocol.openai import MalformedRequest, parse_request
from trainer import learnable, memory
from trainer.errors import PreflightError
from trainer.learnable import Fault
from trainer.recipe import Recipe
from trainer.rows import Row
from trainer.servable import faults
from trainer.tokens import Encoder, Example

_BEGIN = "<|begin_of_text|>"
"""Begins every prompt of the Llama 3 family, exactly once: its template writes it, and tokenizers
like to add another."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    ok: bool
    told: str
    """What was seen; for a fault, where it is and what to change."""


def checks(recipe: Recipe, encoder: Encoder, rows: Sequence[Row], run: Path) -> list[Check]:
    """All checks of a run, whether they pass or not."""
    examples = [encoder(row) for row in rows]
    return [
        *(_row_check(name, fault, encoder, rows, examples) for name, fault in _FAULTS.items()),
        _lengths(recipe, examples),
        _shape(recipe),
        _memory(recipe, encoder, examples),
        _disk(recipe, encoder, run),
    ]


def require(passed: Sequence[Check]) -> None:
    """Raise PreflightError that says all faults at once."""
    told = [f"{check.name}: {check.told}" for check in passed if not check.ok]
    if told:
        raise PreflightError("; ".join(told))


# ------------------------------------------------------------------ one row


def _begins_once(encoder: Encoder, row: Row, example: Example) -> str | None:
    begin = encoder.base.tokenizer.token_to_id(_BEGIN)
    if begin is None or (example.ids[0] == begin and example.ids.count(begin) == 1):
        return None
    return f"{_BEGIN} must stand at the beginning and nowhere else; mend the template"


def _served_alike(encoder: Encoder, row: Row, example: Example) -> str | None:
    """The row as a client's request, read and rendered as the proxy does it."""
    try:
        request = parse_request(wire(row))
    except MalformedRequest as error:
        return f"no client could send it ({error}); drop the row"
    format = encoder.format(row)
    text = prompt(format, encoder.templates[format.name], request.messages, request.offered)
    if encoder.base.encode(text) == example.ids[: example.prompt]:
        return None
    return (
        "the proxy would send other ids for the same request; is the row a conversation that a"
        " client can send?"
    )


_FAULTS: dict[str, Fault] = {
    **learnable.FAULTS,
    "one beginning of the text": _begins_once,
    "the proxy sends the same ids": _served_alike,
}


def wire(row: Row) -> bytes:
    """The row's request as an OpenAI client sends it."""
    messages = msgspec.json.decode(msgspec.json.encode(row.messages))
    tools = [{"type": "function", "function": function} for function in row.functions]
    asked = {"model": "headrace", "messages": messages}
    return msgspec.json.encode(asked | ({"tools": tools} if tools else {}))


def _row_check(
    name: str,
    fault: Fault,
    encoder: Encoder,
    rows: Sequence[Row],
    examples: Sequence[Example],
) -> Check:
    found = list(_found(fault, encoder, rows, examples))
    if not found:
        return Check(name, True, f"{len(rows)} rows")
    row, told = found[0]
    more = f" (and {len(found) - 1} rows more)" if len(found) > 1 else ""
    return Check(name, False, f"row {row.id} ({row.source}): {told}{more}")


def _found(
    fault: Fault,
    encoder: Encoder,
    rows: Sequence[Row],
    examples: Sequence[Example],
) -> Iterator[tuple[Row, str]]:
    for row, example in zip(rows, examples, strict=True):
        told = fault(encoder, row, example)
        if told is not None:
            yield row, told


# ------------------------------------------------------------------ the run


def _lengths(recipe: Recipe, examples: Sequence[Example]) -> Check:
    name, most = "rows are short enough", recipe.training.max_tokens
    sizes = sorted(len(example.ids) for example in examples)
    long = sum(size > most for size in sizes)
    if not sizes or long == len(sizes):
        return Check(name, False, f"no row has at most {most} tokens; raise `training.max_tokens`")
    typical = sizes[min(len(sizes) - 1, len(sizes) * 995 // 1000)]
    told = f"{long} of {len(sizes)} rows are longer than {most} tokens and dropped; 99.5 %"
    told += f" have at most {typical}"
    if long > recipe.training.max_dropped * len(sizes):
        return Check(name, False, f"{told}; raise `training.max_tokens` or `training.max_dropped`")
    return Check(name, True, told)


def _shape(recipe: Recipe) -> Check:
    from trainer.engines.peft import lora_config

    config = msgspec.json.decode(
        msgspec.json.encode(lora_config(recipe.lora).to_dict(), enc_hook=_set)
    )
    found = faults(config)
    told = f"rank {recipe.lora.rank}, {len(recipe.lora.targets)} kinds of layers"
    if recipe.lora.rank > 16:
        told += f"; start vLLM with --max-lora-rank {recipe.lora.rank}"
    return Check("TGI and vLLM can load it", not found, "; ".join(found) or told)


def _set(value: object) -> object:
    """PEFT keeps target modules in a set."""
    return sorted(value) if isinstance(value, set) else str(value)


def _memory(recipe: Recipe, encoder: Encoder, examples: Sequence[Example]) -> Check:
    fitting = [e for e in examples if len(e.ids) <= recipe.training.max_tokens]
    needed = memory.estimate(memory.shape(encoder.base), recipe, fitting or examples)
    there, where = memory.available()
    told = f"some {needed.whole / 2**30:.1f} GiB of {there / 2**30:.1f} GiB ({where})"
    if needed.smallest > there:
        return Check(
            "memory",
            False,
            f"even one row at a time needs {needed.smallest / 2**30:.1f} GiB of"
            f" {there / 2**30:.1f} GiB ({where}); set `training.precision: nf4`, or lower"
            " `training.max_tokens` or `lora.rank`",
        )
    if needed.whole > there:
        told += "; micro-batches will be cut until they fit"
    return Check("memory", True, told)


def _disk(recipe: Recipe, encoder: Encoder, run: Path) -> Check:
    needed = memory.disk(memory.shape(encoder.base), recipe)
    there = shutil.disk_usage(next(p for p in (run, *run.absolute().parents) if p.exists())).free
    told = f"some {needed / 2**20:,.0f} MiB of {there / 2**20:,.0f} MiB"
    if needed > there:
        return Check("disk space", False, f"{told}; take another --out, or make room")
    return Check("disk space", True, told)
