"""Settings that hold secrets, and keep them to themselves when they are shown."""

from __future__ import annotations

import msgspec

_SECRET = frozenset(
    {"api_key", "client_secret", "key", "keys", "options", "headers", "url", "database"}
)
"""Names of fields that may hold a secret; URLs may name a user with a password."""


class Discreet(msgspec.Struct, frozen=True):
    """Says in its `repr` that a secret is set, and not which: a `repr` ends up in tracebacks."""

    def __repr__(self) -> str:
        fields = ", ".join(f"{name}={self._shown(name)}" for name in self.__struct_fields__)
        return f"{type(self).__name__}({fields})"

    def _shown(self, name: str) -> str:
        value = getattr(self, name)
        return "'…'" if name in _SECRET and value else repr(value)
