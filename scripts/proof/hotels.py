"""A travel desk: find, book and cancel hotel rooms, and ask for services."""

from __future__ import annotations

import datetime
from typing import ClassVar

from proxy.protocol.openai import FunctionCall
from scripts.proof.traffic import NO_TOOL, TOLD, Talk, Tool, Turn, Turns, call
from scripts.proof.words import parts

FIRST, LAST = parts("first"), parts("last")
HOTEL_BEGINS, HOTEL_ENDS = parts("hotel_begins"), parts("hotel_ends")
PLACE_BEGINS, PLACE_ENDS = parts("place_begins"), parts("place_ends")
TEXT, COUNT = {"type": "string"}, {"type": "integer"}
DAY = {"type": "string", "format": "date"}
ROOMS = ("single", "double", "suite")
SERVICES = {
    "late_checkout": "a late checkout",
    "airport_pickup": "an airport pickup",
    "extra_bed": "an extra bed",
}


class Hotels(Talk):
    name = "hotels"
    tools = (
        Tool(
            "search_hotels",
            "Find hotels with free rooms.",
            {"city": TEXT, "check_in": DAY, "nights": COUNT, "breakfast": {"type": "boolean"}},
            optional=("breakfast",),
        ),
        Tool(
            "book_room",
            "Book a room.",
            {"hotel": TEXT, "room": {"type": "string", "enum": list(ROOMS)}, "guest": TEXT},
        ),
        Tool("cancel_booking", "Cancel a stay.", {"booking": TEXT}),
        Tool(
            "request_service",
            "Order something for a stay.",
            {"booking": TEXT, "service": {"type": "string", "enum": list(SERVICES)}},
        ),
    )
    kinds: ClassVar = {
        "search": 4,
        "book": 4,
        "cancel": 3,
        "serve": 4,
        "cancel_which": 3,
        "impossible": 3,
        "elsewhere": 2,
    }

    # ------------------------------------------------------------ what there is

    def person(self) -> str:
        return self.once.of(FIRST, LAST)

    def city(self) -> str:
        return self.once.of(PLACE_BEGINS, PLACE_ENDS, between="")

    def hotel(self) -> str:
        return self.once.of(HOTEL_BEGINS, HOTEL_ENDS)

    def booking(self) -> str:
        return self.once.number("HB")

    def day(self) -> str:
        first = datetime.date(2027, 1, 1)
        return (first + datetime.timedelta(days=self.chance.randrange(365))).isoformat()

    # ------------------------------------------------------------ one call

    def search(self) -> Turns:
        city, day, nights = self.city(), self.day(), self.chance.randrange(2, 15)
        breakfast = self.chance.choice([True, None])
        kind = "hotel with breakfast" if breakfast else "hotel"
        said = self.some(
            f"Find a {kind} in {city} for {nights} nights from {day}.",
            f"I need a {kind} in {city} on {day}, {nights} nights.",
            f"From {day}, {nights} nights: which {kind} is free in {city}?",
        )
        asked = call("search_hotels", city=city, check_in=day, nights=nights, breakfast=breakfast)
        count = self.chance.randrange(2, 30)
        text = f"There are {count}." if self.maybe(TOLD) else ""
        return (Turn(said, asked, text, f'{{"count": {count}}}'),)

    def book(self) -> Turns:
        hotel, room, guest = self.hotel(), self.some(*ROOMS), self.person()
        said = self.some(
            f"Book a {room} at the {hotel} for {guest}.",
            f"Reserve a {room} for {guest}, please, at the {hotel}.",
            f"{guest} takes a {room} at the {hotel}.",
        )
        return self._done(said, call("book_room", hotel=hotel, room=room, guest=guest), "booked")

    def cancel(self) -> Turns:
        booking = self.booking()
        said = self.some(
            f"Cancel {booking}.",
            f"Please cancel {booking}, {self.person()} is ill.",
            f"{self.person()} cannot come, cancel {booking}.",
        )
        return self._done(said, call("cancel_booking", booking=booking), "cancelled")

    def serve(self) -> Turns:
        booking, service = self.booking(), self.chance.choice(list(SERVICES))
        said = self.some(
            f"We would like {SERVICES[service]} for {booking}.",
            f"{booking}: {SERVICES[service]}, please.",
            f"Order {SERVICES[service]} for {booking}.",
        )
        asked = call("request_service", booking=booking, service=service)
        return self._done(said, asked, "ordered")

    # ------------------------------------------------------------ in two turns

    def cancel_which(self) -> Turns:
        booking = self.booking()
        said = self.some("Cancel my stay", "I want to cancel") + f" at the {self.hotel()}."
        reply = self.some(f"It is {booking}.", f"Booking {booking}.")
        asked = call("cancel_booking", booking=booking)
        return (
            Turn(said, text="Which booking? I need its number."),
            *self._done(reply, asked, "cancelled"),
        )

    # ------------------------------------------------------------ nothing fits

    def impossible(self) -> Turns:
        booking, hotel = self.booking(), self.hotel()
        said = self.some(
            f"Does the {hotel} have a pool?",
            f"Write a review of the {hotel}.",
            f"How do I get to the {hotel}?",
            f"Send {self.person()} the invoice of {booking}.",
            f"What did {booking} cost?",
        )
        return (Turn(said, text=NO_TOOL),)

    def elsewhere(self) -> Turns:
        said = self.some(
            f"What is the weather in {self.city()}?",
            f"Order a taxi to {self.city()} for {self.person()}.",
            f"When is {self.person()}'s birthday?",
        )
        return (Turn(said, text=NO_TOOL),)

    def _done(self, said: str, asked: FunctionCall, done: str) -> Turns:
        text = f"Done: {done}." if self.maybe(TOLD) else ""
        return (Turn(said, asked, text, '{"ok": true}'),)
