from __future__ import annotations

import pytest

from proxy.protocol.loose import Piece, read


def test_whatever_is_left_out_is_none():
    assert read(b'{"choices":[{"delta":{}}],"unknown":1}').choices[0].delta.content is None
    assert read(b"{}") == Piece()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"choices":1}', b"[" * 100_000])
def test_what_is_neither_chunk_nor_completion_is_told(content: bytes):
    with pytest.raises((ValueError, RecursionError)):
        read(content)
