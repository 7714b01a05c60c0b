"""Traces as routes.yaml has them."""

from __future__ import annotations

from typing import Annotated

import msgspec

from proxy.discreet import Discreet


class TracingSettings(
    Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Where spans are sent. Needs the extra `tracing`."""

    endpoint: str
    """OTLP over HTTP: `http://collector:4318/v1/traces`."""
    headers: dict[str, str] = {}
    """Headers that the collector wants, best as references. Default none."""
    sample: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    """Part of the requests that are traced, where the client's `traceparent` does not say. Default
    1."""
    service: str = "headrace"
    """`service.name` of the spans. Default `headrace`."""
