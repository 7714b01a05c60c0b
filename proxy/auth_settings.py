"""Who may call, as routes.yaml says it: keys, where more of them are kept, an identity provider."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeAlias

import msgspec

from proxy.discreet import Discreet
from proxy.keys.base import Key

DEFAULT_TENANT = "default"

Algorithm: TypeAlias = Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An identity provider whose signed tokens (JWT) are let in, and what their claims mean."""

    issuer: str
    """The claim `iss` of its tokens, exactly: `https://login.example.com/`."""
    audience: str
    """The claim `aud`: what tokens for Headrace are issued for."""
    jwks_url: str | None = None
    """Where its public keys are. Default: what its discovery document says, at
    `<issuer>/.well-known/openid-configuration`."""
    algorithms: tuple[Algorithm, ...] = ("RS256", "ES256")
    """Signatures that are taken; with a shared secret there are none. Default RS256 and ES256."""
    leeway_s: Annotated[float, msgspec.Meta(ge=0, le=300)] = 30
    """Seconds by which its clock may differ from ours. Default 30."""
    refresh_s: Annotated[float, msgspec.Meta(ge=1)] = 300
    """Seconds after which its keys are fetched anew; a token with an unknown key does it at once.
    Default 300: providers announce a key hours before they use it."""
    tenant: str = DEFAULT_TENANT
    """Tenant of tokens, where `tenant_claim` is not given. Default `default`."""
    tenant_claim: str | None = None
    """Claim that names the tenant; a token without it is refused. Default: all are `tenant`'s."""
    name_claim: str = "sub"
    """Claim that names the caller. Default `sub`."""
    domains_claim: str | None = None
    """Claim, a list, with the domains that the caller may use; a token without it may use none.
    Default: all that its tenant may."""
    models_claim: str | None = None
    """Claim, a list, with the models that it may ask for, likewise. Default: all."""
    admin_claim: str | None = None
    """Claim, a text or a list, that holds `admin_value` in an operator's token. Default: none is
    an operator's."""
    admin_value: str = "headrace-admin"
    """See `admin_claim`. Default `headrace-admin`."""


class AuthSettings(Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Who may call."""

    keys: list[Key] = []
    """Keys that are let in. Without these and what follows, everybody who can reach the port is let
    in, and the server therefore listens on loopback addresses only. Default none."""
    file: Path | None = None
    """File of more keys, which `headrace keys` writes or Kubernetes mounts. Default none."""
    database: str | None = None
    """SQLAlchemy's URL of a database of more keys: `sqlite:////var/lib/headrace/keys.db`,
    `postgresql+psycopg://…`; best as a reference. Needs the extra `keys`. Default none."""
    refresh_s: Annotated[float, msgspec.Meta(ge=0.05)] = 5
    """Seconds after which a key that was added or revoked there is known here. Default 5."""
    oidc: OidcSettings | None = None
    """Tokens of an identity provider that are let in besides. Needs the extra `oidc`. Default none.
    """
    account_tenants: tuple[str, ...] = (DEFAULT_TENANT,)
    """Tenants that the clouds' account belongs to: they alone may use what is kept there for
    whoever has its key: files, batches, stored responses, any path that we do not know. Default
    `default`, the tenant of keys that name none."""

    def __post_init__(self) -> None:
        if self.file is not None and self.database is not None:
            raise ValueError("keys are managed in one place: give `file` or `database`")

    @property
    def is_open(self) -> bool:
        """Whether no key is needed to get in."""
        return not (self.keys or self.file or self.database or self.oidc)
