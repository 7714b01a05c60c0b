"""A base model's tokenizer, where the model itself runs elsewhere. Needs the extra `engines`."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from proxy.protocol.formats.base import neutral


class VocabularyError(ValueError):
    """A tokenizer that cannot be used; the message names the file and the remedy."""


class Vocabulary:
    """Text ↔ token ids, as the trainer and the engine have them."""

    def __init__(self, tokenizer: Tokenizer, source: str) -> None:
        """Raises VocabularyError for a tokenizer some of whose special tokens a message's text
        could smuggle into a prompt, since we do not know them."""
        self._tokenizer = tokenizer
        self._source = source
        self._check_controls()

    @classmethod
    def read(cls, path: Path) -> Vocabulary:
        """The tokenizer in `path`, a `tokenizer.json` or the directory that holds one."""
        file = path / "tokenizer.json" if path.is_dir() else path
        try:
            return cls(Tokenizer.from_file(str(file)), str(file))
        except VocabularyError:
            raise
        except Exception as error:  # the library raises nothing more precise
            raise VocabularyError(
                f"{file}: no tokenizer can be read ({error}); give the base model's tokenizer.json"
            ) from error

    @functools.cached_property
    def sha256(self) -> str:
        """Hash of the tokenizer's JSON form: equal hashes, equal ids."""
        return hashlib.sha256(self._tokenizer.to_str().encode()).hexdigest()

    def encode(self, prompt: str) -> list[int]:
        """Token ids of a rendered prompt; its template holds all special tokens, none is added."""
        ids: list[int] = self._tokenizer.encode(prompt, add_special_tokens=False).ids
        return ids

    def id(self, token: str) -> int:
        """The id of one special token; raises VocabularyError when it is none here."""
        found: int | None = self._tokenizer.token_to_id(token)
        if found is None:
            raise VocabularyError(
                f"{self._source} has no token {token!r}; does `plain` name the model's family?"
            )
        return found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of a prompt's ids, special tokens included."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=False)
        return text

    def text(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text

    @functools.cached_property
    def beginning(self) -> str:
        """What an engine puts before a text by itself, such as `<|begin_of_text|>`; mostly ""."""
        return self.decode(self._tokenizer.encode("", add_special_tokens=True).ids)

    def _check_controls(self) -> None:
        added = self._tokenizer.get_added_tokens_decoder().values()
        unknown = [t.content for t in added if t.special and neutral(t.content) == t.content]
        if unknown:
            raise VocabularyError(
                f"{self._source}: a message could smuggle the special token {unknown[0]!r} into a"
                " prompt; add it to proxy/protocol/formats/base.py"
            )
