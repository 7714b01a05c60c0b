"""A tracker of support tickets."""

from __future__ import annotations

from typing import ClassVar

from trainer.simulators.base import Json, Tool, ToolError, tool


class Tickets:
    """Tickets by number, counted from 1."""

    name: ClassVar[str] = "tickets"

    def __init__(self, titles: tuple[str, ...] = ()) -> None:
        self._tickets: dict[int, dict[str, Json]] = {}
        for title in titles:
            self.open_ticket(title)

    def tools(self) -> dict[str, Tool]:
        made = (
            tool(self.open_ticket, "Open a ticket; says its number.", title="string"),
            tool(self.find_tickets, "Numbers of tickets whose title has a word.", word="string"),
            tool(self.show_ticket, "A ticket's title, state and comments.", number="integer"),
            tool(self.comment, "Add a comment.", number="integer", text="string"),
            tool(self.close_ticket, "Close a ticket.", number="integer"),
        )
        return {one.function.name: one for one in made}

    def state(self) -> Json:
        return {str(number): dict(ticket) for number, ticket in self._tickets.items()}

    def open_ticket(self, title: str) -> Json:
        number = len(self._tickets) + 1
        self._tickets[number] = {"title": title, "open": True, "comments": ()}
        return number

    def find_tickets(self, word: str) -> Json:
        return [n for n, t in self._tickets.items() if word.casefold() in t["title"].casefold()]

    def show_ticket(self, number: int) -> Json:
        return self._existing(number)

    def comment(self, number: int, text: str) -> Json:
        ticket = self._existing(number)
        ticket["comments"] = (*ticket["comments"], text)
        return "added"

    def close_ticket(self, number: int) -> Json:
        ticket = self._existing(number)
        if not ticket["open"]:
            raise ToolError(f"ticket {number} is closed already")
        ticket["open"] = False
        return "closed"

    def _existing(self, number: int) -> dict[str, Json]:
        if number not in self._tickets:
            raise ToolError(f"there is no ticket {number}")
        return self._tickets[number]
