"""How much at once: a request in flight holds a slot; without one it is told when to return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import msgspec

from proxy.errors import TooManyRequests


class LimitSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the proxy takes on."""

    max_in_flight: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Requests at once, over all callers; one more gets a 429. Default 256, chosen: well above what
    the embedded engine can batch, well below what a process runs out of files at."""
    max_body_mib: Annotated[float, msgspec.Meta(gt=0)] = 32
    """Largest request body in MiB; more gets a 413. Default 32: room for images in a message."""
    max_upload_mib: Annotated[float, msgspec.Meta(gt=0)] = 512
    """Largest body in MiB of what is passed on to a cloud as it comes: files, audio, images. It is
    never held here. Default 512: the largest file that OpenAI takes."""
    deadline_s: Annotated[float, msgspec.Meta(gt=0)] = 120
    """Seconds until an answer must have begun, over all attempts together, and longest silence
    after that. A client that waits less (x-stainless-read-timeout) shortens it. Default 120."""
    longest_s: Annotated[float, msgspec.Meta(gt=0)] = 1800
    """Seconds that a streamed answer may take in all. Default 1800: the slowest models think for
    minutes, and some servers never stop."""
    grace_s: Annotated[float, msgspec.Meta(ge=0)] = 10
    """Seconds that requests in flight have to finish when the server stops, and seconds that the
    record then has to be written. Default 10, so that both fit into the 30 of Kubernetes."""


class Limits:
    """The slots of one process."""

    def __init__(self, max_in_flight: int) -> None:
        self._max = max_in_flight
        self.in_flight = 0

    @contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a slot; raises TooManyRequests when none is free."""
        if self.in_flight >= self._max:
            raise TooManyRequests(f"{self._max} requests are in flight already; try again soon")
        self.in_flight += 1
        try:
            yield
        finally:
            self.in_flight -= 1
