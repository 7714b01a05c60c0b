"""A base model on disk: the same text has the same ids, everywhere and every time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("gguf", reason="needs the embedded or the train extra")

from proxy.protocol import base_model
from proxy.protocol.base_model import BaseModel, BaseModelError, cache_directory

SMOLLM2 = "smollm2-135m-instruct"

letters = st.characters(max_codepoint=0x3FFFF, exclude_categories=["Cs", "Cc"])
"""Beyond them SmolLM2's vocabulary lacks some bytes: control characters and unassigned planes."""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Iterator[BaseModel]:
    """The packaged model, its tokenizer made anew and not taken from this user's cache."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("HEADRACE_CACHE", str(tmp_path_factory.mktemp("cache")))
        made = BaseModel.find(SMOLLM2)
        assert made.tokenizer
        yield made


# ---------------------------------------------------------------- ids


@given(st.text(alphabet=letters))
def test_what_is_encoded_is_what_is_decoded(base, text):
    assert base.tokenizer.decode(base.encode(text), skip_special_tokens=False) == text


@given(st.text(alphabet=letters), st.text(alphabet=letters))
def test_what_stands_before_a_special_token_does_not_change_what_comes_after(base, before, after):
    whole = base.encode(f"{before}<|im_end|>{after}")

    assert whole == [*base.encode(before), 2, *base.encode(after)]


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("", []),
        ("Hello, world!", [19556, 28, 905, 17]),
        ("3 + 1415", [35, 1232, 216, 33, 36, 33, 37]),
        ("naïve café", [3546, 46494, 37366]),
        ("日本語", [23274, 115, 40993, 179, 120, 248]),
        ("<|im_start|>user\nHi<|im_end|>\n", [1, 4093, 198, 26843, 2, 198]),
        ('{"tool_name": "get_weather"', [39428, 19324, 79, 1245, 1799, 476, 726, 79, 29624, 18]),
    ],
)
def test_ids_stay_what_adapters_were_trained_with(base, text, ids):
    assert base.encode(text) == ids


def test_digits_are_read_one_by_one(base):
    assert base.tokenizer.encode("2024-12-31").tokens == list("2024-12-31")


@pytest.mark.parametrize(
    ("token", "id"),
    [("<|endoftext|>", 0), ("<|im_start|>", 1), ("<|im_end|>", 2), ("<empty_output>", 16)],
)
def test_a_special_token_is_one_id(base, token, id):
    assert base.encode(token) == [id]


def test_nothing_is_added_to_a_prompt(base):
    assert base.encode("a") == [base.tokenizer.token_to_id("a")]


# ---------------------------------------------------------------- finding and keeping


def test_the_tokenizer_is_kept_and_read_back_the_same(base):
    again = BaseModel.find(SMOLLM2)

    assert list((cache_directory() / "tokenizers").iterdir())
    assert again.tokenizer_sha256 == base.tokenizer_sha256


def test_a_model_may_be_named_by_its_path(base):
    named = BaseModel.find(str(base.gguf))

    assert (named.id, named.gguf) == (base.gguf.stem, base.gguf)


def test_an_unknown_model_is_told_with_those_that_are_known():
    with pytest.raises(BaseModelError, match=r"'llama'.*smollm2-135m-instruct.*\.gguf file"):
        BaseModel.find("llama")


def test_a_path_without_a_file_is_told_with_the_remedy():
    with pytest.raises(BaseModelError, match=r"/nowhere/a\.gguf.*make setup"):
        BaseModel.find("/nowhere/a.gguf")


def test_a_package_that_is_not_installed_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(base_model.PACKAGED, SMOLLM2, "no_such_package")

    with pytest.raises(BaseModelError, match=r"smollm2-135m-instruct is not installed.*make setup"):
        BaseModel.find(SMOLLM2)


def test_a_package_without_its_weights_is_told_with_the_remedy(monkeypatch):
    monkeypatch.setitem(base_model.PACKAGED, SMOLLM2, "json")

    with pytest.raises(BaseModelError, match=r"no weights.*make setup"):
        BaseModel.find(SMOLLM2)


@pytest.mark.parametrize("content", [b"", b"GGUF", b"no model at all" * 10])
def test_a_file_that_is_no_model_is_told(tmp_path, content):
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(content)

    with pytest.raises(BaseModelError, match=r"broken\.gguf"):
        BaseModel.find(str(broken)).encode("Hi")


def test_the_cache_is_where_the_environment_says(monkeypatch):
    monkeypatch.setenv("HEADRACE_CACHE", "/some/where")

    assert cache_directory() == Path("/some/where")


def test_the_cache_is_the_users_unless_said_otherwise(monkeypatch):
    monkeypatch.delenv("HEADRACE_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    assert cache_directory() == Path.home() / ".cache" / "headrace"
