"""Tools to try: the three of structured API generation, and two booking services."""

from __future__ import annotations

from openai.types.chat import ChatCompletionToolParam


def tool(
    name: str, description: str, required: list[str], **properties: dict[str, object]
) -> ChatCompletionToolParam:
    """A function as the chat completions API takes it."""
    parameters = {"type": "object", "required": required, "properties": properties}
    function = {"name": name, "description": description, "parameters": parameters}
    return {"type": "function", "function": function}  # type: ignore[typeddict-item]


GET_ALL_COUNTRY = tool(
    "getallcountry",
    "Fetches a list of all countries, page by page.",
    ["page"],
    page={"type": "integer", "description": "Number of the page, from 1."},
)
SCHEDULE_BY_DATE = tool(
    "schedule_by_date",
    "Gets the schedule of a sport's events on a given date.",
    ["date", "sport_id"],
    date={"type": "string", "description": "The date, in the format YYYY-MM-DD."},
    sport_id={"type": "integer", "description": "Id of the sport."},
)
LEAST_COMMON_MULTIPLE = tool(
    "least_common_multiple",
    "Computes the least common multiple of two positive integers.",
    ["a", "b"],
    a={"type": "integer", "description": "The first positive integer."},
    b={"type": "integer", "description": "The second positive integer."},
)
GET_WEATHER = tool(
    "Weather_1_GetWeather",
    "Retrieves the weather forecast for a specified city on a particular date.",
    ["city"],
    city={"type": "string", "description": "The name of the city."},
    date={"type": "string", "description": "The date, in the format YYYY-MM-DD."},
)
FIND_BUS = tool(
    "Buses_3_FindBus",
    "Searches for a bus between two cities on a given date.",
    ["from_city", "to_city", "departure_date"],
    from_city={"type": "string", "description": "City of departure, such as 'New York, NY'."},
    to_city={"type": "string", "description": "City of arrival, such as 'Boston, MA'."},
    departure_date={"type": "string", "description": "The date, in the format YYYY-MM-DD."},
)

API = [GET_ALL_COUNTRY, SCHEDULE_BY_DATE, LEAST_COMMON_MULTIPLE]
BOOKINGS = [GET_WEATHER, FIND_BUS]
