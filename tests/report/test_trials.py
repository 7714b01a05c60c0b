from proxy.report.trials import Assigned, trials


def group(side: str, count: int, *, rescued: int, each: int = 1) -> list[Assigned]:
    return [
        Assigned(
            side=side,
            conversation=f"{side} {n // each}",
            completed=True,
            rescued=n < rescued,
            total_s=0.5,
            cost_usd=0.001 if side == "split:azure" else None,
            liked=None,
            tools_failed=0.0 if n % 2 else None,
        )
        for n in range(count)
    ]


def test_sides_of_a_split_are_compared_as_they_were_assigned():
    (trial,) = trials(
        [*group("split:azure", 100, rescued=0), *group("split:local", 100, rescued=20)]
    )

    assert (trial.first, trial.second) == ("split:azure", "split:local")
    shares = {one.name: one for one in trial.shares}
    rescued = shares["answered by another attempt than the first"]
    assert (rescued.first.value, rescued.second.value) == (0.0, 0.2)
    assert rescued.p < 0.001 and rescued.difference.high < 0
    assert shares["tool told an error"].first.n == 50
    assert "good by feedback" not in shares
    assert [of.value for of in trial.costs] == [1.0, None]


def test_a_canary_is_compared_with_its_champion_and_with_no_split():
    sides = ("canary:geo-v8", "champion:geo-v7", "split:azure")

    (trial,) = trials([one for side in sides for one in group(side, 3, rescued=0)])

    assert (trial.first, trial.second) == ("canary:geo-v8", "champion:geo-v7")


def test_requests_of_one_conversation_are_worth_less():
    def p(each: int) -> float:
        azure = group("split:azure", 100, rescued=0, each=each)
        local = group("split:local", 100, rescued=20, each=each)
        (trial,) = trials([*azure, *local])
        return min(one.p for one in trial.shares)

    assert p(each=10) > p(each=1)


def test_without_assignments_there_are_no_trials():
    assert trials([]) == []
