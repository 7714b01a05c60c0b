"""A resource of Azure OpenAI: OpenAI's protocol, other places, other credentials.

    chats, completions, embeddings, …   /openai/deployments/{deployment}/…?api-version=…
    everything else                     /openai/v1/…

Source: Azure OpenAI REST API reference. Errors and streams are as OpenAI's; what is Azure's own in
them (a content filter's findings, a first chunk without choices) passes as it is.
"""

from __future__ import annotations

import re
from urllib.parse import quote

from proxy.backends.entra import Tokens
from proxy.backends.openai import OpenAIBackend
from proxy.backends.settings import AzureSettings

_BY_DEPLOYMENT = re.compile(
    r"/(chat/completions|completions|embeddings|audio/(speech|transcriptions|translations)"
    r"|images/(generations|edits))(\?|$)"
)


class AzureBackend(OpenAIBackend):
    """One resource, with its key or an identity that may use it."""

    def __init__(self, name: str, settings: AzureSettings, tokens: Tokens | None = None) -> None:
        """`tokens`: the identity's, where there is no key."""
        super().__init__(
            name,
            base_url=settings.endpoint.rstrip("/") + "/openai",
            models=settings.models,
            connect_s=settings.connect_s,
            silence_s=settings.silence_s,
            answer_s=settings.answer_s,
            count_usage=settings.count_usage,
            max_connections=settings.max_connections,
        )
        self._version = settings.api_version
        self._api_key = settings.api_key
        self._tokens = tokens

    def _place(self, target: str, model: str | None) -> str:
        if self._version is None or model is None or not _BY_DEPLOYMENT.match(target):
            return f"{self._url}/v1{target}"
        deployment = quote(self._models.get(model, model), safe="")
        joint = "&" if "?" in target else "?"
        version = quote(self._version, safe="")
        return f"{self._url}/deployments/{deployment}{target}{joint}api-version={version}"

    async def _credentials(self) -> dict[str, str]:
        if self._tokens is not None:
            return {"authorization": f"Bearer {await self._tokens.current()}"}
        return {"api-key": self._api_key or ""}
