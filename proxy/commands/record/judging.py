"""headrace record feedback: what somebody thinks of an exchange, put beside it."""

from __future__ import annotations

import argparse
import contextlib
import secrets
import time

from proxy import config
from proxy.app import redactor
from proxy.commands.record.opened import ONE_OBJECT, errors_told, settings_of
from proxy.commands.shared import Commands, add_with_config, on_one_line
from proxy.errors import BadConfig
from proxy.keeping import Keeping
from proxy.protocol.exchange import Answer
from proxy.protocol.feedback import Feedback, Kind
from proxy.record.keys import keyring
from proxy.sinks.segments import SegmentSink


def add(reading: Commands) -> None:
    """Add the command."""
    text = "judge an exchange or a conversation"
    parser = add_with_config(reading, "feedback", _feedback, text)
    parser.add_argument("--exchange", help="id of the exchange, or of its request")
    parser.add_argument("--conversation", help="id of the conversation")
    parser.add_argument("--kind", choices=Kind.__args__, required=True)  # type: ignore[attr-defined]
    parser.add_argument("--value", required=True, help="true, 0.5, a text, the right answer")
    parser.add_argument("--name", default="", help="what is judged, where there are several things")
    parser.add_argument("--tenant", default="default", help="whose exchange it is (%(default)s)")
    parser.add_argument("--json", action="store_true", help=ONE_OBJECT)


def _feedback(options: argparse.Namespace) -> int:
    whole = config.load(options.config)
    settings = settings_of(options.config)
    try:
        feedback = Feedback(
            id=f"feedback-{secrets.token_hex(12)}",
            given_at=time.time(),
            tenant=options.tenant,
            caller="command-line",
            exchange=options.exchange,
            conversation=options.conversation,
            name=options.name,
            kind=options.kind,
            value=_value(options.kind, options.value),
        )
    except ValueError as error:
        raise BadConfig(str(error)) from error
    sink = SegmentSink(settings.directory, keyring=keyring(settings))
    with errors_told(), contextlib.closing(sink):
        sink.write([Keeping(redactor=redactor(settings, whole))(feedback)])
    print(on_one_line({"id": feedback.id}) if options.json else feedback.id)
    return 0


def _value(kind: Kind, text: str) -> bool | float | str | Answer:
    match kind:
        case "boolean":
            if text not in ("true", "false"):
                raise ValueError(f"--value {text!r}: true or false, for --kind boolean")
            return text == "true"
        case "float":
            try:
                return float(text)
            except ValueError:
                raise ValueError(f"--value {text!r}: a number, for --kind float") from None
        case "comment":
            return text
        case "demonstration":
            return Answer(text=text)
