"""openai-python's AzureOpenAI: the deployment's name in the path, the key in `api-key`."""

from __future__ import annotations

from typing import Any

from openai import AzureOpenAI
from openai_sync import Sync
from program import Question, main


def _client(q: Question) -> Any:
    return AzureOpenAI(
        azure_endpoint=q.root,
        api_key=q.key,
        api_version="2024-10-21",
        max_retries=q.retries,
        default_headers=q.headers,
    )


class Azure(Sync):
    def __init__(self) -> None:
        super().__init__(_client)


if __name__ == "__main__":
    main(Azure)
