import re

from proxy.report.html import html
from tests.report.examples import find, told
from tests.report.test_ab import made
from tests.report.test_figures import PAIRS, pair

EVIL = '</pre><script>alert("x")</script>\x1b'


def test_the_page_has_verdict_figures_and_examples():
    page = html(made())

    assert "<strong>Undecided.</strong> Not decidable with n=4 pairs" in page
    assert page.count("<svg ") >= 4
    assert "Of 4 pairs with a demonstration" in page
    assert "Where they differ" in page and "find({&#34;city&#34;:&#34;Rome&#34;" in page


def test_what_requests_say_stays_text():
    evil = pair("e", find(EVIL), told(EVIL), domain=EVIL, tenant="<img src=x>")

    page = html(made([*PAIRS, evil]))

    assert not re.search(r"<(script|img)\b", page)


def test_a_page_without_pairs_says_so():
    assert "no pair of local and azure is recorded" in html(made([]))
