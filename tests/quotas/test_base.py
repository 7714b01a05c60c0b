from __future__ import annotations

from datetime import UTC, datetime

from proxy.quotas.base import Who, claims
from proxy.quotas.settings import Quota

NOW = datetime(2026, 12, 31, 23, 59, tzinfo=UTC).timestamp()
WHO = Who("acme", "shop", "bookings")


def names(*quotas: Quota, size: int = 400) -> dict[str, tuple[float, float]]:
    return {c.key: (c.limit, c.amount) for c in claims(quotas, WHO, size, NOW)}


def test_each_limit_has_its_counter():
    quota = Quota(
        per="tenant",
        requests_per_minute=60,
        tokens_per_minute=1000,
        concurrent=5,
        usd_per_day=2,
        usd_per_month=20,
    )

    assert names(quota) == {
        "tenant:acme:rpm": (60, 1),
        "tenant:acme:tpm": (1000, 100),
        "tenant:acme:slots": (5, 1),
        "tenant:acme:2026-12-31": (2, 0),
        "tenant:acme:2026-12": (20, 0),
    }


def test_budgets_end_with_the_day_and_the_month():
    day, month = claims([Quota(usd_per_day=1, usd_per_month=1)], WHO, 0, NOW)

    assert day.ends_at == month.ends_at == datetime(2027, 1, 1, tzinfo=UTC).timestamp()


def test_month_before_a_shorter_one_ends_in_time():
    now = datetime(2027, 1, 31, tzinfo=UTC).timestamp()

    (month,) = claims([Quota(usd_per_month=1)], WHO, 0, now)

    assert month.ends_at == datetime(2027, 2, 1, tzinfo=UTC).timestamp()


def test_use_is_the_caller_s_the_tenant_s_or_the_domain_s():
    found = names(*(Quota(per=per, concurrent=1) for per in ("caller", "tenant", "domain")))

    assert set(found) == {"caller:acme/shop:slots", "tenant:acme:slots", "domain:bookings:slots"}


def test_quota_may_be_for_some_only():
    found = names(
        Quota(only=["acme/shop"], concurrent=1),
        Quota(only=["acme/other"], requests_per_minute=1),
        Quota(per="tenant", only=["other"], requests_per_minute=1),
    )

    assert set(found) == {"caller:acme/shop:slots"}


def test_smallest_limit_of_the_same_use_holds_once():
    assert names(Quota(requests_per_minute=9), Quota(requests_per_minute=3)) == {
        "caller:acme/shop:rpm": (3, 1)
    }


def test_prompt_larger_than_a_minute_takes_the_minute():
    assert names(Quota(tokens_per_minute=10), size=4_000_000) == {"caller:acme/shop:tpm": (10, 10)}
