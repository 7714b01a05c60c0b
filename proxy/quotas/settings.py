"""Quotas as routes.yaml has them."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from proxy.discreet import Discreet

Per: TypeAlias = Literal["caller", "tenant", "domain"]

_Count = Annotated[int, msgspec.Meta(ge=1)]
_Usd = Annotated[float, msgspec.Meta(gt=0)]


class Quota(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What each caller, tenant or domain may use; of several that hold, each must be kept."""

    per: Per = "caller"
    """Whose use is counted: each caller's (a tenant's key or token, by name), each tenant's, or all
    use of a domain. Default caller."""
    only: list[str] = []
    """Those that it holds for: `tenant/name`, tenants or domains. Default: all, each for itself."""
    requests_per_minute: _Count | None = None
    """Requests in any minute. Default: no limit, here and below."""
    tokens_per_minute: _Count | None = None
    """Tokens in any minute, of prompts and answers. A prompt counts as its bytes / 4 when it comes,
    and as what the backend counted when the answer is over."""
    concurrent: _Count | None = None
    """Requests at once."""
    usd_per_day: _Usd | None = None
    """US dollars in a day (UTC), by the dated prices of the record (`record.prices`). Counted when
    an answer is over: what is in flight then may exceed it."""
    usd_per_month: _Usd | None = None
    """US dollars in a calendar month (UTC), likewise."""


class SharedSettings(
    Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """A Redis or Valkey server in which several proxies count together. Needs the extra `redis`."""

    url: str
    """`redis://host:6379/0`, or `rediss://…` with TLS; best as a reference."""
    when_unreachable: Literal["open", "closed"] = "open"
    """`open`: each proxy counts on its own until the server is back; `closed`: requests that a
    quota holds for are answered with 503. Default open."""
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=5)] = 0.25
    """Seconds that the server has to answer. Default 0.25: it answers in one thousandth of that."""
    prefix: str = "headrace"
    """What the names of its keys begin with. Default `headrace`."""
