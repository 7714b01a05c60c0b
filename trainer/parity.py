"""Whether the prompts that are served are those that were trained on, token by token.

Each row is sent through the wire once more: written as a client would, parsed as the proxy parses,
rendered with the bundle's frozen template, encoded. The ids must be those of the trainer's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from proxy.protocol.adapter import Adapter
from proxy.protocol.base_model import BaseModel
from proxy.protocol.formats import FORMATS, prompt
from proxy.protocol.openai import parse_request
from trainer.gate_rules import Count
from trainer.rows import Row
from trainer.tokens import Encoder


def parity(bundle: Adapter, rows: Sequence[Row], base_model: str = "") -> Count:
    """Rows whose prompt differs, of all. `base_model`: where the bundle's base is found, for one
    that does not ship with Headrace."""
    manifest = bundle.manifest
    base = BaseModel.find(base_model or manifest.base_model)
    trained = Encoder(base, bundle.template, manifest.format)
    differing = sum(_served(base, bundle, row) != trained.prompt(row) for row in rows)
    return Count(differing, len(rows))


def _served(base: BaseModel, bundle: Adapter, row: Row) -> list[int]:
    tools = [{"type": "function", "function": function} for function in row.functions]
    sent = {"model": "headrace", "messages": row.messages} | ({"tools": tools} if tools else {})
    request = parse_request(msgspec.json.encode(sent))
    functions = [tool.function for tool in request.tools or () if tool.function is not None]
    format = FORMATS[bundle.manifest.format]
    return base.encode(prompt(format, bundle.template, request.messages, functions))
