"""The process in which libFuzzer tries one parser: `python -m tests.harden.fuzzed NAME FOUND …`.

NAME is the parser's, FOUND a folder for the first input of each kind of failure; the rest are
libFuzzer's own options. A failure does not end the run.
"""

from __future__ import annotations

import shlex
import sys
import traceback
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["proxy", "trainer"]):
    from tests.harden.parsers import PARSERS, attempt

_seen: set[str] = set()


def main() -> None:
    _, name, found, *options = sys.argv
    parser, place = PARSERS[name], Path(found)

    def tried(content: bytes) -> None:
        try:
            attempt(parser, content)
        except Exception as error:
            _keep(place, content, error)

    # A merge starts its program, as a shell would, with options of its own.
    again = shlex.join([sys.executable, "-m", "tests.harden.fuzzed", name, found])
    atheris.Setup([again, *options], tried)
    atheris.Fuzz()


def _keep(place: Path, content: bytes, error: Exception) -> None:
    """The first input of each kind: what is raised, and where."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    kind = f"{type(error).__name__} at {Path(frame.filename).name}:{frame.lineno}"
    if kind not in _seen:
        _seen.add(kind)
        (place / f"failed-{len(_seen)}").write_bytes(content)
        print(f"  FAILED {kind}: {str(error)[:200]!r} by {content[:200]!r}", flush=True)


if __name__ == "__main__":
    main()
