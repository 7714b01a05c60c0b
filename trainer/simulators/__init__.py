"""Services in memory, for running workflows to their end without any real one."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from proxy.protocol.openai import FunctionCall
from trainer.simulators.base import Simulator
from trainer.simulators.bookings import Bookings
from trainer.simulators.calculator import Calculator
from trainer.simulators.files import Files
from trainer.simulators.tickets import Tickets


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """A goal, the world in which it is to be reached, and calls that reach it."""

    id: str
    goal: str
    start: Callable[[], Simulator]
    """A fresh world; every run has its own."""
    right: tuple[FunctionCall, ...]
    """One way to the end; the state that it leaves, and what it learnt, is the measure."""


def _task(id: str, goal: str, start: Callable[[], Simulator], *right: tuple[str, str]) -> Task:
    return Task(id=id, goal=goal, start=start, right=tuple(FunctionCall(*one) for one in right))


def _files() -> Simulator:
    return Files({"draft.txt": "Dear all", "notes.txt": "buy milk", "old.txt": "x"})


def _tickets() -> Simulator:
    return Tickets(("Printer is on fire", "Password forgotten", "Printer prints blanks"))


def _bookings() -> Simulator:
    rooms = Bookings({"Ada": 4, "Euler": 12, "Gauss": 30})
    rooms.book_room("Euler", "2026-03-02", "Noether")
    return rooms


TASKS: tuple[Task, ...] = (
    _task(
        "files-publish",
        "Rename draft.txt to letter.txt, and delete old.txt.",
        _files,
        ("move_file", '{"name": "draft.txt", "to": "letter.txt"}'),
        ("delete_file", '{"name": "old.txt"}'),
    ),
    _task(
        "files-copy",
        "Copy what notes.txt says into todo.txt.",
        _files,
        ("read_file", '{"name": "notes.txt"}'),
        ("write_file", '{"name": "todo.txt", "text": "buy milk"}'),
    ),
    _task(
        "tickets-close",
        "Close the ticket about the forgotten password.",
        _tickets,
        ("find_tickets", '{"word": "password"}'),
        ("close_ticket", '{"number": 2}'),
    ),
    _task(
        "tickets-comment",
        'Open a ticket "No coffee", and comment "urgent" on it.',
        _tickets,
        ("open_ticket", '{"title": "No coffee"}'),
        ("comment", '{"number": 4, "text": "urgent"}'),
    ),
    _task(
        "bookings-book",
        "Book the smallest free room with at least 10 seats on 2026-03-02 for Hilbert.",
        _bookings,
        ("find_rooms", '{"day": "2026-03-02", "seats": 10}'),
        ("book_room", '{"room": "Gauss", "day": "2026-03-02", "name": "Hilbert"}'),
    ),
    _task(
        "bookings-move",
        "Move Noether's booking of 2026-03-02 to the room Ada on the same day.",
        _bookings,
        ("cancel_booking", '{"room": "Euler", "day": "2026-03-02"}'),
        ("book_room", '{"room": "Ada", "day": "2026-03-02", "name": "Noether"}'),
    ),
    _task(
        "calculator-store",
        "Multiply 12.5 by 8 and keep the result in the memory.",
        Calculator,
        ("multiply", '{"a": 12.5, "b": 8}'),
        ("store", '{"value": 100}'),
    ),
    _task(
        "calculator-average",
        "Keep the average of 4 and 10 in the memory.",
        Calculator,
        ("add", '{"a": 4, "b": 10}'),
        ("divide", '{"a": 14, "b": 2}'),
        ("store", '{"value": 7}'),
    ),
)
"""Two tasks of each service, of two or three steps."""
