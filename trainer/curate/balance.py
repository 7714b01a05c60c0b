"""Caps: of a tool's, library's or template's rows at most so many stay, drawn by hash.

The draw depends on nothing but the rows that stand in it, so that their order changes nothing and
a row that is in stays in as long as none with a smaller id joins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def over(keys: NDArray[np.uint64], ids: NDArray[np.uint64], most: int) -> NDArray[np.bool_]:
    """(n,) which rows are more than `most` of their key; key 0 has no cap."""
    by_key = np.lexsort((ids, keys))
    ordered = keys[by_key]
    is_new = np.ones(len(keys), bool)
    is_new[1:] = ordered[1:] != ordered[:-1]
    starts = np.maximum.accumulate(np.where(is_new, np.arange(len(keys)), 0))
    too_many = np.empty(len(keys), bool)
    too_many[by_key] = (np.arange(len(keys)) - starts >= most) & (ordered != 0)
    return too_many
