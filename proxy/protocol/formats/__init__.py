"""The formats, by name. A new one is a class and a line here."""

from __future__ import annotations

from proxy.protocol.formats.base import Format
from proxy.protocol.formats.hermes import Hermes
from proxy.protocol.formats.llama3 import Llama3
from proxy.protocol.formats.structured import Structured

FORMATS: dict[str, Format] = {f.name: f for f in (Hermes(), Llama3(), Structured())}
