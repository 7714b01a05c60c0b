"""An answer is checked before it counts: text as it comes, calls once the answer is whole.

Only what a local engine generates is checked; a cloud's bytes pass as they are.
"""

from __future__ import annotations

from collections.abc import Sequence

from proxy.backends.base import Call, Event, Finish, Text
from proxy.domains import Domain
from proxy.errors import InvalidAnswer, LowConfidence
from proxy.protocol import toolcheck
from proxy.protocol.openai import ChatRequest
from proxy.protocol.repair import repair
from proxy.protocol.toolcheck import Failure
from proxy.recording import Tape


class Verification:
    """One answer, checked event by event: its calls are held back until all of them are valid and
    sure enough.

    With `verify: observe` an invalid answer is only recorded; with `off` nothing is held.
    """

    def __init__(
        self, request: ChatRequest, policy: Domain, tape: Tape, floor: float | None = None
    ) -> None:
        """`floor`: how sure the engine must be of its calls; None: that does not matter."""
        self._request = request
        self._policy = policy
        self._tape = tape
        self._floor = floor
        self._texts: list[str] = []
        self._calls: list[Call] = []

    def feed(self, event: Event) -> Sequence[Event]:
        """What may be given once this event is there.

        Raises InvalidAnswer, and LowConfidence for calls of which the engine is less sure than the
        floor.
        """
        if self._policy.verify == "off":
            return (event,)
        match event:
            case Text(text):
                self._texts.append(text)
                return (event,)
            case Call():
                self._calls.append(event)
                return ()
            case Finish():
                text = "".join(self._texts)
                calls = _judged(text, self._calls, event, self._request, self._policy, self._tape)
                _check_confidence(calls, event, self._floor)
                return (*calls, event)


def check_late(late: Sequence[Event], request: ChatRequest) -> None:
    """Raise InvalidAnswer when an answer's calls may not follow another answer's text."""
    calls = [event.call for event in late if isinstance(event, Call)]
    if not calls:
        raise InvalidAnswer("no backend made a valid tool call after the text", "missing_call")
    failure = toolcheck.check(calls, request)
    if failure is not None:
        raise InvalidAnswer(failure.message, failure.reason)


def failure_of(answer: Sequence[Event], request: ChatRequest) -> Failure | None:
    """The first thing that is wrong with a whole answer; None if nothing is."""
    text = "".join(event.text for event in answer if isinstance(event, Text))
    calls = [event for event in answer if isinstance(event, Call)]
    finish = next(event for event in answer if isinstance(event, Finish))
    return _failure(text, calls, finish, request)


def _check_confidence(calls: Sequence[Call], finish: Finish, floor: float | None) -> None:
    if not calls or floor is None or finish.confidence is None:
        return
    if finish.confidence.call < floor:
        raise LowConfidence(f"{finish.confidence.call:.3f} is below the floor of {floor:.3f}")


def _judged(
    text: str, calls: list[Call], finish: Finish, request: ChatRequest, policy: Domain, tape: Tape
) -> list[Call]:
    """The calls as the client may get them."""
    failure = _failure(text, calls, finish, request)
    if failure is None:
        return calls
    if policy.repair.lossless and policy.verify == "enforce":
        repaired = repair([call.call for call in calls], request)
        if repaired is not None:
            mended = [Call(call) for call in repaired.calls]
            tape.mend(mended, repaired.codes)
            return mended
    if policy.verify == "enforce":
        raise InvalidAnswer(failure.message, failure.reason)
    tape.end("invalid", failure.reason)
    return calls


def _failure(text: str, calls: list[Call], finish: Finish, request: ChatRequest) -> Failure | None:
    failure = toolcheck.check([call.call for call in calls], request)
    if failure is None and not calls and finish.reason != "length":
        return toolcheck.check_answer_format(text, request)
    return failure
