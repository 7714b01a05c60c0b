"""LangChain: AzureChatOpenAI."""

from __future__ import annotations

from typing import Any

from langchain_openai import AzureChatOpenAI
from langchain_openai_chat import LangChain
from program import Question, main


def _model(q: Question, **more: Any) -> Any:
    return AzureChatOpenAI(
        azure_endpoint=q.root,
        azure_deployment=q.model,
        api_key=q.key,
        api_version="2024-10-21",
        max_retries=q.retries,
        default_headers=q.headers,
        **more,
    )


class LangChainAzure(LangChain):
    def __init__(self) -> None:
        super().__init__(_model)


if __name__ == "__main__":
    main(LangChainAzure)
