"""Settings of the record, as routes.yaml has them."""

from __future__ import annotations

import base64
import binascii
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from proxy.discreet import Discreet
from proxy.outcomes import DEFAULT_RULES, ErrorRule
from proxy.protocol.exchange import Level
from proxy.protocol.prices import Price

_Days = Annotated[int, msgspec.Meta(ge=1)]


class RedactSettings(
    Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """What is replaced by pseudonyms before anything reaches the disk. Secrets always are."""

    personal: list[Literal["email", "iban", "card", "national_id", "phone"]] = msgspec.field(
        default_factory=lambda: ["email", "iban", "card", "national_id", "phone"]
    )
    """Kinds of personal data. Default all; `[]` keeps them as they are."""
    key: str | None = None
    """Key of the pseudonyms, best as a reference. Default: one of the record's own, made in its
    directory; give one where several machines serve the same conversations."""


class TenantSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What holds for one tenant."""

    level: Level = "full"
    """How much is kept of its exchanges, at most. Default full."""
    keep_days: _Days | None = None
    """Days after which its exchanges are deleted. Default: as for all."""


class ArchiveSettings(
    Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Where compaction puts Parquet files."""

    url: str
    """A directory, or a bucket: s3://bucket/prefix, gs://bucket/prefix, az://container/prefix."""
    options: dict[str, str] = {}
    """Options of the bucket, as obstore names them (`endpoint`, `region`, `access_key_id`, …).
    Default: what the environment says (AWS_…, GOOGLE_…, AZURE_…)."""


class EncryptionSettings(
    Discreet, msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True
):
    """Keys that exchanges are encrypted with (AES-256-GCM). Needs the extra `record`."""

    use: str
    """Id of the key that new exchanges are encrypted with."""
    keys: dict[str, str]
    """Keys by id, 32 bytes in base64 (`openssl rand -base64 32`), as a reference `${NAME}` or as
    `file:PATH`. Keep old ones for as long as something encrypted with them is kept."""

    def __post_init__(self) -> None:
        if self.use not in self.keys:
            raise ValueError(f"`use` names {self.use!r}, which is not among `keys`")

    def secrets(self) -> dict[str, bytes]:
        """The keys, read; raises ValueError that names the one that is none, and OSError."""
        return {id: _key(id, given) for id, given in self.keys.items()}


def _key(id: str, given: str) -> bytes:
    text = Path(given[5:]).read_text() if given.startswith("file:") else given
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        key = b""
    if len(key) != 32:
        raise ValueError(f"the key {id!r} is not 32 bytes in base64; `openssl rand -base64 32`")
    return key


class RecordSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where exchanges are kept, how much of them, and for how long."""

    directory: Path = msgspec.field(default_factory=lambda: Path("~/.local/state/headrace/record"))
    """Directory of the segment files; made when it is missing."""
    level: Level = "full"
    """How much of an exchange is kept: `full`, `metadata` (all but what was said) or `off`. Domain,
    tenant and client can each ask for less. Default full."""
    redact: RedactSettings = RedactSettings()
    """What is taken out before it is kept."""
    durable: Literal["eventually", "before_reply"] = "eventually"
    """`eventually`: no request waits for the record; when it cannot keep up, exchanges are dropped
    and counted. `before_reply`: an answer ends when its exchange is on the disk; while that cannot
    be, requests are answered with 503. Default eventually."""
    sync_s: Annotated[float, msgspec.Meta(gt=0)] = 0.5
    """Seconds between two syncs to the disk: what a power cut may cost. Default 0.5."""
    max_waiting: Annotated[int, msgspec.Meta(ge=1)] = 10_000
    """Exchanges that may wait to be written; more are dropped and counted. Default 10 000: at 4 KiB
    each some 40 MiB."""
    segment_mib: Annotated[float, msgspec.Meta(gt=0)] = 64
    """Size in MiB at which a segment file is closed and the next one begun. Default 64."""
    segment_s: Annotated[float, msgspec.Meta(gt=0)] = 300
    """Age in seconds at which it is, so that compaction gets it. Default 300."""
    archive: ArchiveSettings | None = None
    """Where `headrace record compact` puts Parquet. Default: `archive` in the directory."""
    keep_days: _Days | None = None
    """Days after which `compact` deletes exchanges and feedback. Default: they are kept."""
    tenants: dict[str, TenantSettings] = {}
    """What is different for a tenant."""
    prices: dict[str, list[Price]] = {}
    """Prices by model, before those that we know (docs/record.md)."""
    tool_errors: list[ErrorRule] = msgspec.field(default_factory=lambda: list(DEFAULT_RULES))
    """What the result of a failed tool call looks like. Default: JSON with `error` or `isError`."""
    encryption: EncryptionSettings | None = None
    """Encryption at rest. Default none."""
