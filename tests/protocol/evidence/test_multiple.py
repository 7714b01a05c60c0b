import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy.protocol.evidence.multiple import holm


def test_holm_is_as_published():
    # R, `p.adjust(c(.01, .04, .03, .005), "holm")`.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_one_question_needs_no_correction():
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1))
def test_corrections_raise_and_keep_the_order(ps):
    adjusted = holm(ps)

    assert all(p <= q <= 1 for p, q in zip(ps, adjusted, strict=True))
    assert [q for _, q in sorted(zip(ps, adjusted, strict=True))] == sorted(adjusted)
