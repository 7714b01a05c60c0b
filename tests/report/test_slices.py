import msgspec

from proxy.report.slices import slices
from tests.record.examples import NOW
from tests.report.examples import find, told
from tests.report.test_figures import pair

DAY = 24 * 60 * 60


def many(count: int, *, wrong: int, start: int = 0, **fields: object) -> list:
    """Pairs of which so many do not agree."""
    return [
        pair(f"{start + n}", find("Rome"), find("Rome", 3 if n < wrong else 2), **fields)
        for n in range(count)
    ]


def test_a_slice_that_differs_from_the_rest_is_found():
    found = slices([*many(60, wrong=3, domain="geo"), *many(60, wrong=30, start=60, domain="api")])

    by_name = {(one.by, one.name): one for one in found}
    assert set(by_name) == {("domain", "geo"), ("domain", "api")}
    assert by_name[("domain", "api")].differs_p < 0.001
    assert by_name[("domain", "api")].agreement.value == 0.5


def test_p_values_are_corrected_for_all_slices_of_the_report():
    pairs = [*many(20, wrong=1, domain="geo"), *many(20, wrong=8, start=20, domain="api")]
    alone = slices(pairs)

    tenants = [
        msgspec.structs.replace(one, tenant=f"tenant-{n % 4}") for n, one in enumerate(pairs)
    ]
    together = slices(tenants)

    assert len(together) > len(alone)
    assert together[0].differs_p > alone[0].differs_p


def test_calls_of_nothing_are_a_slice_of_their_own():
    found = slices([*many(3, wrong=0), pair("x", told("No."), told("No."))])

    assert ("tool", "no call") in {(one.by, one.name) for one in found}


def test_days_become_weeks_over_a_long_time():
    two_days = [*many(2, wrong=0), *many(2, wrong=0, start=2, started_at=NOW + DAY)]
    a_month = [*many(2, wrong=0), *many(2, wrong=0, start=2, started_at=NOW + 30 * DAY)]

    assert {one.name for one in slices(two_days)} == {"2026-02-01", "2026-02-02"}
    assert {one.name for one in slices(a_month)} == {"2026-W05", "2026-W10"}


def test_accuracy_is_told_where_there_are_demonstrations():
    judged = [
        pair(f"{n}", find("Rome"), find("Rome", 3), find("Rome"), domain="geo") for n in range(10)
    ]
    found = slices([*judged, *many(10, wrong=0, start=10, domain="api")])

    (geo,) = [one for one in found if one.name == "geo"]
    (api,) = [one for one in found if one.name == "api"]
    assert geo.difference is not None and geo.difference.value == -1
    assert geo.difference_p is not None and geo.difference_p < 0.01
    assert api.difference is None and api.difference_p is None


def test_one_slice_is_none():
    assert slices(many(5, wrong=1)) == []
