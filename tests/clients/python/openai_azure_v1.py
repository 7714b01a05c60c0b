"""openai-python's plain client at Azure's newer path, `/openai/v1/`, as Azure's guide shows it."""

from __future__ import annotations

from typing import Any

from openai import OpenAI
from openai_sync import Sync
from program import Question, main


def _client(q: Question) -> Any:
    return OpenAI(
        base_url=f"{q.root}/openai/v1/",
        api_key=q.key,
        max_retries=q.retries,
        default_headers=q.headers,
    )


class AzureV1(Sync):
    def __init__(self) -> None:
        super().__init__(_client)


if __name__ == "__main__":
    main(AzureV1)
