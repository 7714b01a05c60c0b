"""Who is asked: an adapter, the base model, a cloud; with another prompt, or with several votes."""

from __future__ import annotations

from pathlib import Path

import msgspec

from trainer.errors import TrainerError, cause_of

ROUTED = "routed"
"""Whom the proxy chooses itself: its routes, canaries and cascade, as for any client."""
_OPTIONS = {"backend", "url", "model", "votes", "prompt"}


class Subject(msgspec.Struct, frozen=True, omit_defaults=True):
    """One candidate for answering a domain's requests."""

    adapter: str
    """Id of an adapter, `base`, or `routed`: whom the proxy chooses; a name of one's own where
    `backend` or `url` is given."""
    must_call: bool = False
    """Ask with `tool_choice: required`, and only what has to be answered by a call: the fair
    comparison for a base model that would rather talk."""
    backend: str = ""
    """The backend of the proxy that shall answer; empty: the adapter's own."""
    url: str = ""
    """Another OpenAI endpoint; empty: the one that the evaluation asks."""
    model: str = "headrace"
    """The model's name in the request; matters to clouds only."""
    votes: int = 1
    """Samples of an answer; the majority's is taken. More than one are sampled at VOTE_HEAT."""
    prompt: str = ""
    """A system prompt that stands before the row's messages."""

    @classmethod
    def parse(cls, text: str) -> Subject:
        """`api-v1`, `base`, with the choice taken away `base!`; options follow, `name=value`:

        cloud,backend=azure · cloud,url=https://…/v1,model=gpt-4o · api-v1,votes=5,prompt=terse.txt

        Raises TrainerError for an option that does not exist, or a prompt that cannot be read.
        """
        name, *given = text.split(",")
        options = dict(option.partition("=")[::2] for option in given)
        if unknown := options.keys() - _OPTIONS:
            known = ", ".join(sorted(_OPTIONS))
            raise TrainerError(f"{text}: no option {min(unknown)!r}; there are {known}")
        return cls(
            name.removesuffix("!"),
            name.endswith("!"),
            backend=options.get("backend", ""),
            url=options.get("url", ""),
            model=options.get("model", "headrace"),
            votes=_count(text, options.get("votes", "1")),
            prompt=_prompt(options["prompt"]) if "prompt" in options else "",
        )

    @property
    def headers(self) -> dict[str, str]:
        """What tells a proxy who shall answer; needs a key that may say so. And that it is not to
        be recorded: an evaluation is no traffic, and its questions are not to be learnt."""
        kept_out = {"x-headrace-record": "off"}
        if self.backend:
            return kept_out | {"x-headrace-backend": self.backend}
        if self.is_routed:
            return kept_out
        return {} if self.url else kept_out | {"x-headrace-adapter": self.adapter}

    @property
    def is_routed(self) -> bool:
        """Whether the proxy chooses who answers, so that its choice is measured, too."""
        return self.adapter == ROUTED and not self.backend

    def __str__(self) -> str:
        parts = [self.adapter]
        parts += ["call required"] if self.must_call else []
        parts += [f"{self.votes} votes"] if self.votes > 1 else []
        parts += ["own prompt"] if self.prompt else []
        return ", ".join(parts)


def _count(text: str, votes: str) -> int:
    if not votes.isdecimal() or not 1 <= int(votes) <= 32:
        raise TrainerError(f"{text}: `votes` is a whole number from 1 to 32")
    return int(votes)


def _prompt(name: str) -> str:
    try:
        return Path(name).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise TrainerError(f"{name}: {cause_of(error)}; `prompt` names a text file") from error
