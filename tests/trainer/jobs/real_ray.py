"""Jobs on a Ray cluster, a real one, started on this machine."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="needs the extra ray")

from tests.trainer.jobs.test_local import MEETS, job
from trainer.jobs import on_ray
from trainer.jobs.job import LOG


def test_domains_are_tasks_beside_each_other_and_one_that_fails_is_told(tmp_path):
    first, second = tmp_path / "a-is-there", tmp_path / "b-is-there"
    jobs = [
        job(tmp_path, "a", MEETS, first, second),
        job(tmp_path, "b", MEETS, second, first),
        job(tmp_path, "c", "print('no'); raise SystemExit(7)"),
    ]

    codes = on_ray.run(jobs, 1)

    assert codes == {"a": 0, "b": 0, "c": 7}
    assert (tmp_path / "c" / LOG).read_text() == "no\n"
