from __future__ import annotations

from fnmatch import fnmatchcase

from hypothesis import given
from hypothesis import strategies as st

from proxy.globs import Globs

text = st.text("ab_", max_size=4)
glob = st.builds("{}{}{}".format, text, st.sampled_from(["*", "?", "[ab]", "[!a]", "*_?"]), text)


@given(globs=st.lists(glob, max_size=12), name=text)
def test_the_first_glob_that_fits_counts_whatever_it_begins_with(globs: list[str], name: str):
    table = Globs((place, glob, f"domain of {glob}") for place, glob in enumerate(globs))

    found = table.first(name)

    fitting = [glob for glob in globs if fnmatchcase(name, glob)]
    assert (found and found.domain) == (f"domain of {fitting[0]}" if fitting else None)
