"""Engines from their settings: what several proxies of one process share."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from proxy.backends import connect
from proxy.backends.settings import VllmSettings
from proxy.backends.vocabulary import VocabularyError
from tests.engines.fronting import tokenizer


def settings(file: Path) -> VllmSettings:
    return VllmSettings(replicas=["http://a"], base_model="m", tokenizer=file)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tokenizer.json"
    path.write_text(Tokenizer.to_str(tokenizer()))
    return path


def test_tokenizer_in_use_is_not_read_again(file: Path):
    first = connect.vocabulary(settings(file))

    assert connect.vocabulary(settings(file)) is first
    assert connect.vocabulary(settings(file.parent)).sha256 == first.sha256


def test_file_that_was_replaced_is_read(file: Path):
    first = connect.vocabulary(settings(file))
    before = file.stat()
    beside = file.with_suffix(".new")
    beside.write_bytes(file.read_bytes())
    os.utime(beside, ns=(before.st_atime_ns, before.st_mtime_ns))
    beside.replace(file)

    assert connect.vocabulary(settings(file)) is not first


def test_what_nobody_uses_is_given_back(file: Path):
    known = weakref.ref(connect.vocabulary(settings(file)))
    gc.collect()

    assert known() is None


def test_file_that_is_gone_is_told(file: Path):
    connect.vocabulary(settings(file))
    file.unlink()

    with pytest.raises(VocabularyError, match=r"tokenizer\.json"):
        connect.vocabulary(settings(file))
