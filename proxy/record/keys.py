"""The keys of an encrypted record, from its settings."""

from __future__ import annotations

from proxy.errors import BadConfig, MissingExtra
from proxy.protocol.sealing import Keyring
from proxy.record.settings import RecordSettings


def keyring(settings: RecordSettings) -> Keyring | None:
    """The keys that routes.yaml names; None without encryption.

    Raises BadConfig for a key that is none, and MissingExtra without the package `cryptography`.
    """
    encryption = settings.encryption
    if encryption is None:
        return None
    try:
        return Keyring(encryption.secrets(), encryption.use)
    except OSError as error:
        told = f"{error.filename}: {error.strerror}"
        raise BadConfig(f"$.record.encryption.keys: {told}") from error
    except ValueError as error:
        raise BadConfig(f"$.record.encryption.keys: {error}") from error
    except ImportError as error:
        raise missing("$.record.encryption", error) from error


def missing(place: str, error: ImportError) -> MissingExtra:
    """What to say when a package of the extra `record` is not there."""
    return MissingExtra(
        f"{place}: this needs the package {error.name!r}, which is not installed;"
        " run: pip install 'headrace[record]'"
    )
