"""Several samples of one local answer: what most of them agree on is given.

Answers agree when they make the same calls (protocol.agreement), in any order; answers without a
call agree with one another, whatever their words.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Sequence
from typing import TypeAlias

from proxy.backends.base import Call, Event
from proxy.errors import BackendError, LowConfidence
from proxy.protocol.agreement import stance

Answer: TypeAlias = Sequence[Event]


async def vote(sample: Callable[[int], Awaitable[Answer]], samples: int) -> Answer:
    """One of the answers that more than half of the samples agree on.

    Raises LowConfidence when there is none, and the last failure when every sample failed.
    """
    async with asyncio.TaskGroup() as tasks:
        polled = [tasks.create_task(_polled(sample(number))) for number in range(samples)]
    answers = [task.result() for task in polled]
    valid = [answer for answer in answers if not isinstance(answer, BackendError)]
    if not valid:
        raise next(answer for answer in reversed(answers) if isinstance(answer, BackendError))
    stance, votes = Counter(map(_stance, valid)).most_common(1)[0]
    if 2 * votes <= samples:
        raise LowConfidence(f"at most {votes} of {samples} samples agree", "no_majority")
    return next(answer for answer in valid if _stance(answer) == stance)


async def _polled(sample: Awaitable[Answer]) -> Answer | BackendError:
    """A sample that fails has no vote, and does not end the others."""
    try:
        return await sample
    except BackendError as error:
        return error


def _stance(answer: Answer) -> Hashable:
    return stance([event.call.function for event in answer if isinstance(event, Call)])
