from __future__ import annotations

import pytest

from proxy.errors import TooManyRequests
from proxy.limits import Limits


def test_one_more_than_the_limit_is_told_when_to_return():
    limits = Limits(1)

    with limits.admit(), pytest.raises(TooManyRequests) as caught, limits.admit():
        pass

    assert caught.value.headers == {"retry-after": "1", "retry-after-ms": "1000"}


def test_slot_is_free_again_after_an_error():
    limits = Limits(1)

    with pytest.raises(ZeroDivisionError), limits.admit():
        raise ZeroDivisionError

    with limits.admit():
        assert limits.in_flight == 1
