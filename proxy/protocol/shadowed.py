"""A shadow: what another backend said to the request of an exchange, out of the client's sight.

Appended to the record beside the exchanges, some time after the one that it belongs to: the one of
the same tenant with this id. A pair is an exchange and its shadow; one whose exchange was not kept,
or was erased, belongs to nothing. Only requests that are kept in full have shadows.
"""

from __future__ import annotations

import msgspec

from proxy.protocol.exchange import Attempt

VERSION = 1


class Shadowed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One backend's answer to a request that another one answered for the client."""

    id: str
    """`shadow-…`"""
    version: int = VERSION
    exchange: str
    """Id of the exchange whose request was asked, `chatcmpl-…`."""
    tenant: str
    caller: str
    conversation: str
    domain: str
    """These four as the exchange has them."""
    attempt: Attempt
    """Of kind `shadow`; verified as the backend's answer to a client would be."""

    @property
    def started_at(self) -> float:
        """Seconds since the epoch, when the shadow was asked."""
        return self.attempt.started_at
