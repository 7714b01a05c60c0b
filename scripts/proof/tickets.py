"""A support desk: open, find, assign and close tickets."""

from __future__ import annotations

from typing import ClassVar

from proxy.protocol.openai import FunctionCall
from scripts.proof.traffic import NO_TOOL, TOLD, Talk, Tool, Turn, Turns, call
from scripts.proof.words import parts

FIRST, LAST = parts("first"), parts("last")
PLACE_BEGINS, PLACE_ENDS = parts("place_begins"), parts("place_ends")
THINGS, FAULTS = parts("things"), parts("faults")
TEXT = {"type": "string"}
WHY = {"fixed": "it is fixed", "duplicate": "it is a duplicate", "wont_fix": "we won't fix it"}


class Tickets(Talk):
    name = "tickets"
    tools = (
        Tool(
            "create_ticket",
            "Open a ticket.",
            {"title": TEXT, "priority": {"type": "string", "enum": ["low", "normal", "high"]}},
            optional=("priority",),
        ),
        Tool(
            "find_tickets",
            "List somebody's tickets.",
            {"person": TEXT, "status": {"type": "string", "enum": ["open", "closed"]}},
            optional=("status",),
        ),
        Tool("assign_ticket", "Give a ticket to somebody.", {"ticket": TEXT, "person": TEXT}),
        Tool(
            "close_ticket",
            "Close a ticket.",
            {"ticket": TEXT, "resolution": {"type": "string", "enum": list(WHY)}},
        ),
    )
    kinds: ClassVar = {
        "create": 4,
        "find": 4,
        "assign": 3,
        "close": 4,
        "assign_whom": 1,
        "impossible": 3,
        "elsewhere": 2,
    }

    # ------------------------------------------------------------ what there is

    def person(self) -> str:
        return self.once.of(FIRST, LAST)

    def ticket(self) -> str:
        return self.once.number("TK")

    def title(self) -> str:
        return self.once.of(THINGS, FAULTS)

    # ------------------------------------------------------------ one call

    def create(self) -> Turns:
        title, priority = self.title(), self.chance.choice(["low", "normal", "high", None, None])
        kind = "ticket" if priority is None else f"{priority} priority ticket"
        said = self.some(
            f"Open a {kind}: {title}.", f"New {kind}: {title}.", f"Please file a {kind}: {title}."
        )
        return self._done(said, call("create_ticket", title=title, priority=priority), "opened")

    def find(self) -> Turns:
        person, status = self.person(), self.chance.choice(["open", "closed", None])
        kind = "tickets" if status is None else f"{status} tickets"
        said = self.some(
            f"Show the {kind} of {person}.",
            f"List the {kind} of {person}, please.",
            f"Which {kind} does {person} have?",
        )
        asked = call("find_tickets", person=person, status=status)
        count = self.chance.randrange(2, 30)
        text = f"There are {count}." if self.maybe(TOLD) else ""
        return (Turn(said, asked, text, f'{{"count": {count}}}'),)

    def assign(self) -> Turns:
        ticket, person = self.ticket(), self.person()
        said = self.some(
            f"Assign {ticket} to {person}.",
            f"Give {ticket} to {person}, please.",
            f"Hand {ticket} over to {person}.",
        )
        return self._done(said, call("assign_ticket", ticket=ticket, person=person), "assigned")

    def close(self) -> Turns:
        ticket, resolution = self.ticket(), self.chance.choice(list(WHY))
        why = WHY[resolution]
        said = self.some(
            f"Close {ticket}, {why}.", f"Please close {ticket}: {why}.", f"{why}: close {ticket}."
        )
        asked = call("close_ticket", ticket=ticket, resolution=resolution)
        return self._done(said, asked, "closed")

    # ------------------------------------------------------------ in two turns

    def assign_whom(self) -> Turns:
        ticket, person = self.ticket(), self.person()
        said = self.some(f"Assign {ticket}.", f"Can you assign {ticket}?")
        reply = self.some(f"To {person}.", f"{person}, please.")
        asked = call("assign_ticket", ticket=ticket, person=person)
        return (Turn(said, text="Who shall get it?"), *self._done(reply, asked, "assigned"))

    # ------------------------------------------------------------ nothing fits

    def impossible(self) -> Turns:
        ticket = self.ticket()
        said = self.some(
            f"Delete {ticket} for good.",
            f"Merge {ticket} into {self.ticket()}.",
            f"Who opened {ticket}?",
            f"Send {self.person()} an e-mail about {ticket}.",
            f"How long has {ticket} been waiting?",
        )
        return (Turn(said, text=NO_TOOL),)

    def elsewhere(self) -> Turns:
        place, person = self.once.of(PLACE_BEGINS, PLACE_ENDS, between=""), self.person()
        said = self.some(
            f"What is the weather in {place}?",
            f"Order a taxi to {place} for {person}.",
            f"When is {person}'s birthday?",
        )
        return (Turn(said, text=NO_TOOL),)

    def _done(self, said: str, asked: FunctionCall, done: str) -> Turns:
        text = f"Done: {done}." if self.maybe(TOLD) else ""
        return (Turn(said, asked, text, '{"ok": true}'),)
