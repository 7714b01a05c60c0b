"""Whether the prompts that are served are those that were trained on, token by token.

Each row is sent through the wire once more: written as a client would, parsed and rendered as the
proxy does (proxy/protocol/parity.py). The ids must be those of the trainer's encoder.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.protocol.adapter import Adapter
from proxy.protocol.base_model import BaseModel
from proxy.protocol.openai import parse_request
from proxy.protocol.parity import Sample, rendering
from trainer.gate_rules import Count
from trainer.preflight import wire
from trainer.rows import Row
from trainer.tokens import Encoder


def parity(bundle: Adapter, rows: Sequence[Row], base_model: str = "") -> Count:
    """Rows whose prompt differs, of all. `base_model`: where the bundle's base is found, for one
    that does not ship with Headrace."""
    format = bundle.manifest.format
    base = BaseModel.find(base_model or bundle.manifest.base_model)
    trained = Encoder(base, bundle.template, format)
    served = rendering(bundle.templates, base.encode)
    differing = sum(served(_sent(row, format)) != trained.prompt(row) for row in rows)
    return Count(differing, len(rows))


def _sent(row: Row, format: str) -> Sample:
    request = parse_request(wire(row))
    functions = [tool.function for tool in request.tools or () if tool.function is not None]
    return Sample(format, request.messages, functions, [])
