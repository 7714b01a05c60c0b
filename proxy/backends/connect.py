"""An engine backend from its settings. Needs the extra `engines`."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias
from weakref import WeakValueDictionary

from proxy.backends.addresses import Addresses
from proxy.backends.dialect import Dialect
from proxy.backends.engine import EngineBackend, Pool
from proxy.backends.http import Session
from proxy.backends.replicas import Replicas
from proxy.backends.settings import TgiSettings, VllmSettings
from proxy.backends.tgi.dialect import Tgi
from proxy.backends.vllm.dialect import Vllm
from proxy.backends.vocabulary import Vocabulary, VocabularyError
from proxy.protocol.formats import FORMATS

_Stamp: TypeAlias = tuple[int, int, int]

_in_use: WeakValueDictionary[tuple[str, Path | None, _Stamp | None], Vocabulary] = (
    WeakValueDictionary()
)
"""By what the settings name and its file's stamp. When settings are read anew, the former proxy has
it still: some 20 MiB, and more while it is read, which glibc would keep."""


def vocabulary(settings: TgiSettings | VllmSettings) -> Vocabulary:
    """The base model's tokenizer, the one in use if its file is the same; raises VocabularyError,
    or the ImportError of what reads it."""
    named = settings.base_model, settings.tokenizer
    key = *named, _stamp(settings.tokenizer or Path(settings.base_model))
    known = _in_use.get(key)
    if known is None:
        known = _in_use[key] = _read(settings)
    return known


def _stamp(path: Path) -> _Stamp | None:
    """What the file looks like from outside; None of a packaged model, which never changes."""
    file = path / "tokenizer.json" if path.is_dir() else path
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _read(settings: TgiSettings | VllmSettings) -> Vocabulary:
    if settings.tokenizer is not None:
        return Vocabulary.read(settings.tokenizer)
    # A packaged model's tokenizer is read out of its weights, which takes the extra `embedded`.
    from proxy.protocol.base_model import BaseModel, BaseModelError

    try:
        return Vocabulary(BaseModel.find(settings.base_model).tokenizer, settings.base_model)
    except BaseModelError as error:
        raise VocabularyError(f"{error}; or name the base model's tokenizer.json") from error


def dialect(settings: TgiSettings | VllmSettings, vocabulary: Vocabulary) -> Dialect:
    """How the servers are spoken to."""
    end = FORMATS[settings.plain].end
    match settings:
        case TgiSettings():
            return Tgi(vocabulary, end)
        case VllmSettings():
            return Vllm(
                base=settings.served_model or settings.base_model,
                adapters_there=settings.adapters_there or str(settings.adapters.absolute()),
                end=vocabulary.id(end),
                flavor=settings.flavor,
            )


def pool(
    name: str,
    settings: TgiSettings | VllmSettings,
    vocabulary: Vocabulary,
    session: Session,
) -> Replicas:
    """The servers, none of them asked yet."""
    return Replicas(
        name,
        settings.pool,
        max_in_flight=settings.max_in_flight,
        addresses=Addresses([url.rstrip("/") for url in settings.replicas]),
        dialect=dialect(settings, vocabulary),
        session=session,
        decode=vocabulary.text,
    )


def backend(
    name: str,
    settings: TgiSettings | VllmSettings,
    vocabulary: Vocabulary,
    pool: Pool,
    session: Session,
) -> EngineBackend:
    """The backend around its servers; it closes both when it is closed."""
    return EngineBackend(
        name,
        settings,
        encoder=vocabulary,
        dialect=dialect(settings, vocabulary),
        pool=pool,
        session=session,
    )
