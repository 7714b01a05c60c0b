from collections import Counter

import msgspec
import pytest

from proxy.protocol.exchange import Answer
from proxy.protocol.openai import Usage
from proxy.protocol.prices import PRICES
from proxy.report.pairs import Contest, Pair, Paired, pairs
from tests.record.examples import NOW, exchange, feedback, shadowed
from tests.report.examples import FIND, attempt, find, request, told

CONTEST = Contest(baseline="azure", candidate="local")


def read(paired: Paired, contest: Contest = CONTEST) -> tuple[list[Pair], Counter[str]]:
    left_out: Counter[str] = Counter()
    return list(pairs(iter([paired]), contest, PRICES, left_out)), left_out


def paired(cloud: Answer, local: Answer, right: Answer | None = None, **fields: object) -> Paired:
    asked = exchange(
        "a",
        **({"request": request("Find it."), "attempts": [attempt("azure", cloud)]} | fields),
    )
    shadow = shadowed("s", "a", attempt=attempt("local", local, kind="shadow", adapter="geo-v7"))
    shown = feedback("f", "a", kind="demonstration", value=right) if right else None
    return Paired(asked, shadow, shown)


def test_a_pair_is_what_both_said_to_one_request():
    ((pair,), left_out) = read(paired(find("Rome"), find("rome"), find("Rome")))

    assert (pair.baseline.backend, pair.candidate.backend) == ("azure", "local")
    assert pair.candidate.adapter == "geo-v7"
    assert (pair.agreement.kind, pair.right) == ("other_arguments", (True, False))
    assert (pair.tool, pair.question, pair.conversation) == ("find", "Find it.", "conv-1")
    assert not left_out


def test_strings_are_compared_as_the_contest_says():
    contest = msgspec.structs.replace(CONTEST, strings="bfcl")

    ((pair,), _) = read(paired(find("Rome"), find("rome"), find("ROME")), contest)

    assert (pair.agreement.kind, pair.right) == ("same", (True, True))


def test_an_adapter_may_be_named_in_the_place_of_its_backend():
    contest = Contest(baseline="azure", candidate="geo-v7")

    assert len(read(paired(find("Rome"), find("Rome")), contest)[0]) == 1


def test_the_cloud_in_the_shadow_of_what_was_answered_at_home_is_a_pair_as_well():
    ((pair,), _) = read(
        paired(find("Rome"), told("Where?")), Contest(baseline="local", candidate="azure")
    )

    assert pair.baseline.backend == "local"
    assert pair.agreement.kind == "false_call"


def test_a_side_is_a_backend_alone_without_the_rescue():
    home = attempt("local", find("Rome", "two"), outcome="invalid", total_s=0.2)
    rescue = attempt("azure", find("Rome"), kind="fallback", started_at=NOW + 0.2)
    asked = exchange("a", request=request("Find it."), attempts=[home, rescue])
    shadow = shadowed("s", "a", attempt=attempt("azure", find("Rome"), kind="shadow"))

    ((pair,), _) = read(Paired(asked, shadow))

    assert pair.candidate.answered and not pair.candidate.valid
    assert pair.candidate.total_s == pytest.approx(0.2)
    assert pair.agreement.kind == "other_arguments"


def test_a_call_that_breaks_its_schema_is_not_valid_whoever_made_it():
    ((pair,), _) = read(paired(find("Rome", 2.5), find("Rome")))

    assert (pair.baseline.valid, pair.candidate.valid) == (False, True)


def test_what_the_proxy_found_invalid_is_not_valid():
    of = paired(find("Rome"), find("Rome"))
    invalid = shadowed("s", "a", attempt=attempt("local", find("Rome"), outcome="invalid"))

    ((pair,), _) = read(msgspec.structs.replace(of, shadow=invalid))

    assert pair.candidate.answered and not pair.candidate.valid


def test_costs_of_all_attempts_of_a_side_are_summed_and_priced_where_they_were_not():
    first = attempt("azure", Answer(), outcome="failed", cost_usd=0.25)
    second = attempt("azure", find("Rome"), model="gpt-4o", usage=Usage.of(1_000_000, 0))
    late = msgspec.structs.replace(second, started_at=1_780_000_000.0)

    ((pair,), _) = read(paired(find("Rome"), find("Rome"), attempts=[first, late]))

    assert pair.baseline.cost_usd == pytest.approx(0.25 + 2.50)
    assert pair.candidate.cost_usd is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"level": "metadata", "request": msgspec.Raw(b"{}")}, "not_kept"),
        ({"request": msgspec.Raw(b'{"model":"m"}')}, "not_kept"),
        ({"attempts": [attempt("other", find("Rome"))]}, "other_backends"),
        ({"attempts": [attempt("azure", find("R"), outcome="client_aborted")]}, "cut_short"),
    ],
)
def test_what_cannot_be_compared_is_left_out_and_counted(fields, reason):
    found, left_out = read(paired(find("Rome"), find("Rome"), **fields))

    assert (found, left_out) == ([], {reason: 1})


def test_a_backend_that_failed_is_not_right():
    # It broke off after what would have been the right call.
    failed = shadowed("s", "a", attempt=attempt("local", find("Rome"), outcome="failed"))
    of = paired(find("Rome"), find("Rome"), find("Rome"))

    ((pair,), _) = read(msgspec.structs.replace(of, shadow=failed))

    assert pair.right == (True, False)
    assert not pair.candidate.answered and not pair.candidate.valid


def test_to_abstain_is_right_where_the_demonstration_calls_nothing():
    ((pair,), _) = read(paired(told("No."), find("Rome"), told("There is none.")))

    assert pair.right == (True, False)


def test_texts_that_differ_are_not_judged_by_rules():
    plain = msgspec.Raw(b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}')

    ((pair,), _) = read(paired(told("Hello."), told("Hi."), told("Hey."), request=plain))

    assert not pair.tools_offered
    assert pair.right is None


def test_a_schema_that_cannot_be_compiled_forbids_nothing():
    broken = {"type": "function", "function": {"name": "find", "parameters": {"type": "nothing"}}}
    assert broken != FIND

    ((pair,), _) = read(paired(find("Rome"), find("Rome"), request=request("Find it.", broken)))

    assert pair.candidate.valid
