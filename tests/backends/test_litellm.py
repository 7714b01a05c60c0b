"""The litellm backend where there is no litellm, or one that must not be imported.

What needs the library is in real_litellm.py, for `make test-litellm`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from proxy.backends.litellm import COMPROMISED
from proxy.backends.settings import LiteLLMSettings
from proxy.config import Config, parse
from proxy.errors import BadConfig, MissingExtra
from tests.serving import serving

CONFIG = """
version: 1
models: [gpt-4o]
backends:
  claude: {kind: litellm, models: {gpt-4o: anthropic/some-model}, api_version: 2024-10-21}
domains: {all: {plan: [claude]}}
defaults: {tools: all, chat: all}
"""


def config() -> Config:
    return parse(CONFIG, Path("/nowhere"), {})


def test_settings_are_read():
    backend = config().backends["claude"]

    assert isinstance(backend, LiteLLMSettings)
    assert backend.models == {"gpt-4o": "anthropic/some-model"}
    assert backend.api_version == "2024-10-21"


async def test_missing_library_is_told_with_the_remedy():
    with pytest.raises(MissingExtra) as raised:
        async with serving(config()):
            pass

    assert "$.backends.claude" in str(raised.value)
    assert "pip install 'headrace[litellm]'" in str(raised.value)


@pytest.mark.parametrize("version", COMPROMISED)
async def test_compromised_release_is_refused_before_it_is_imported(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    about = tmp_path / f"litellm-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: litellm\nVersion: {version}\n")
    (tmp_path / "litellm.py").write_text("telemetry = True\n")
    monkeypatch.syspath_prepend(tmp_path)

    with pytest.raises(BadConfig) as raised:
        async with serving(config()):
            pass

    assert version in str(raised.value)
    assert "replace every key" in str(raised.value)
    assert "litellm" not in sys.modules
