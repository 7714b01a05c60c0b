from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from proxy.ids import new_id


def test_ids_are_drawn_once_whatever_thread_draws_them():
    with ThreadPoolExecutor(4) as threads:
        drawn = list(threads.map(lambda _: new_id(), range(4000)))

    assert len(set(drawn)) == 4000
    assert all(len(id) == 32 and int(id, 16) >= 0 for id in drawn)
