"""Where a request would go, and why: what routing decides, in words, without asking anybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import msgspec

from proxy.protocol.openai import ChatRequest
from proxy.routing import Reason, Routes

_WHY: Mapping[str, str] = {
    "exact": "a domain names all of its tools",
    "fingerprint": "a domain has the schema of its tools",
    "glob": "a domain's glob fits all of its tools",
    "mixed": "its tools belong to several domains: `defaults.tools`",
    "unknown": "no domain has its tools: `defaults.tools`",
    "matched": "it has no tools, and the domain's `match` holds",
    "no_tools": "it has no tools, and no `match` holds: `defaults.chat`",
}


class Tool(msgspec.Struct, frozen=True):
    """One tool of the request, and the domain that claims it."""

    name: str
    domain: str | None
    reason: Reason | None


class Step(msgspec.Struct, frozen=True, omit_defaults=True):
    """One backend of the plan, in order."""

    backend: str
    adapter: str | None = None
    lacks: str | None = None
    """The field of the request that it cannot serve: it would not be asked."""
    ready: bool | None = None
    """Whether it would answer now; None where that is not known."""


class Explanation(msgspec.Struct, frozen=True):
    """What becomes of a request."""

    tenant: str
    domain: str
    reason: Reason
    why: str
    tools: list[Tool]
    plan: list[Step]
    verify: str
    fallback_when: Sequence[str]


def explain(
    routes: Routes,
    tenant: str,
    request: ChatRequest,
    headers: Mapping[bytes, bytes],
    step: Callable[[str, str], Step],
) -> Explanation:
    """What becomes of a tenant's request; `step` knows (backend, domain).

    Raises UnknownModel.
    """
    table = routes.of(tenant)
    route = table.match(request, headers)
    return Explanation(
        tenant=tenant,
        domain=route.domain,
        reason=route.reason,
        why=_WHY.get(route.reason, route.reason),
        tools=[Tool(*place) for place in table.places(request)],
        plan=[step(backend, route.domain) for backend in route.plan],
        verify=route.policy.verify,
        fallback_when=route.policy.fallback.when,
    )


def told(explanation: Explanation) -> list[str]:
    """The explanation as lines of text."""
    lines = [f"domain  {explanation.domain}", f"why     {explanation.why}"]
    for tool in explanation.tools:
        claimed = f"{tool.domain} ({tool.reason})" if tool.domain else "no domain"
        lines.append(f"tool    {tool.name}: {claimed}")
    for number, step in enumerate(explanation.plan, 1):
        adapter = f", adapter {step.adapter}" if step.adapter else ""
        lacks = f", not asked: it cannot serve `{step.lacks}`" if step.lacks else ""
        away = ", not ready now" if step.ready is False else ""
        lines.append(f"plan {number}  {step.backend}{adapter}{lacks}{away}")
    lines.append(f"calls   {explanation.verify}")
    return lines
