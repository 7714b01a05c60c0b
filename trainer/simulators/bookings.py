"""Rooms that can be booked by the day."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from typing import ClassVar

from trainer.simulators.base import Json, Tool, ToolError, tool


class Bookings:
    """Rooms with their seats; a room has one booking a day."""

    name: ClassVar[str] = "bookings"

    def __init__(self, seats: Mapping[str, int]) -> None:
        self._seats = dict(seats)
        self._booked: dict[tuple[str, str], str] = {}

    def tools(self) -> dict[str, Tool]:
        made = (
            tool(
                self.find_rooms,
                "Free rooms of a day with enough seats.",
                day="string",
                seats="integer",
            ),
            tool(
                self.book_room, "Book a room for a day.", room="string", day="string", name="string"
            ),
            tool(
                self.cancel_booking,
                "Cancel a room's booking of a day.",
                room="string",
                day="string",
            ),
            tool(self.list_bookings, "All bookings of a name.", name="string"),
        )
        return {one.function.name: one for one in made}

    def state(self) -> Json:
        return {f"{room} {day}": name for (room, day), name in sorted(self._booked.items())}

    def find_rooms(self, day: str, seats: int) -> Json:
        day = _day(day)
        return [r for r, n in self._seats.items() if n >= seats and (r, day) not in self._booked]

    def book_room(self, room: str, day: str, name: str) -> Json:
        day = _day(day)
        if room not in self._seats:
            raise ToolError(f"there is no room {room}")
        if (room, day) in self._booked:
            raise ToolError(f"{room} is taken on {day}")
        self._booked[room, day] = name
        return "booked"

    def cancel_booking(self, room: str, day: str) -> Json:
        if self._booked.pop((room, _day(day)), None) is None:
            raise ToolError(f"{room} is not booked on {day}")
        return "cancelled"

    def list_bookings(self, name: str) -> Json:
        return [{"room": r, "day": d} for (r, d), n in sorted(self._booked.items()) if n == name]


def _day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ToolError("the day is written like 2026-03-31") from None
