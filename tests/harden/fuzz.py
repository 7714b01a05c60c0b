"""Every parser, given what nobody wrote: it answers or raises what it says it raises.

    python -m tests.harden.fuzz --minutes 30 [--only NAME] [--seed 1]

prints one line a parser: inputs tried, time, a processor's time, kinds of failures, inputs kept.
Atheris, which is libFuzzer, keeps an input when it reaches a line that none did before; what is
kept is in corpus/NAME.zip, and is where the next run begins. An input that failed is kept too. An
input that takes longer than 20 seconds, or more than 4 GiB of memory, ends the parser's run.
`test_fuzz.py` is the short form.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import re
import resource
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from tests.harden.parsers import PARSERS, Parser, attempt

CORPUS = Path(__file__).parent / "corpus"
ANY = (b"", b"\0", b"\xff", b"\r\n", b"\n", b" ", b"\xef\xbb\xbf", "東".encode(), b"a" * 300)
_WORD = 64
"""Bytes of a word in libFuzzer's dictionary, at most."""
_KEPT = 64 * 1024
"""Bytes of an input that is kept, at most."""


def spliced(chance: random.Random, parser: Parser, content: bytes) -> bytes:
    """Content in which pieces were exchanged for tokens or other bytes, or for its own pieces."""
    tokens = [*ANY, *parser.tokens]
    for _ in range(chance.randint(1, 6)):
        at, width = chance.randint(0, len(content)), chance.choice([0, 0, 1, 2, 7, 60])
        match chance.randrange(4):
            case 0:
                new = chance.randbytes(chance.randrange(5))
            case 1:
                begin = chance.randint(0, len(content))
                new = content[begin : begin + chance.randrange(81)]
            case _:
                new = chance.choice(tokens)
        content = content[:at] + new + content[at + width :]
    return content


def kept(name: str) -> list[bytes]:
    """What a parser's former runs kept."""
    path = CORPUS / f"{_file(name)}.zip"
    if not path.exists():
        return []
    with zipfile.ZipFile(path) as archive:
        return [archive.read(entry) for entry in sorted(archive.namelist())]


def keep(name: str, inputs: Iterable[bytes]) -> int:
    """Keep these and no others; how many. The same ones make the same file."""
    named = {hashlib.sha256(one).hexdigest()[:16]: one for one in inputs if len(one) <= _KEPT}
    CORPUS.mkdir(exist_ok=True)
    with zipfile.ZipFile(CORPUS / f"{_file(name)}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for digest, one in sorted(named.items()):
            archive.writestr(zipfile.ZipInfo(digest), one, zipfile.ZIP_DEFLATED)
    return len(named)


def run(name: str, examples: int, number: int) -> None:
    """What is kept of a parser, then some new inputs; raises what it must not raise."""
    parser, chance = PARSERS[name], random.Random(number)
    for content in (*kept(name), *parser.seeds):
        _told(parser, content)
    for _ in range(examples):
        _told(parser, spliced(chance, parser, chance.choice(parser.seeds)))


def _told(parser: Parser, content: bytes) -> None:
    try:
        attempt(parser, content)
    except Exception as error:
        error.add_note(f"the input: {content[:200]!r}")
        raise


def _file(name: str) -> str:
    return re.sub(r"\W+", "-", name)


# ---------------------------------------------------------------- the long form


def fuzzed(name: str, minutes: float, number: int) -> tuple[str, int]:
    """A parser's line in the table, and how many kinds of failures it has."""
    parser = PARSERS[name]
    with tempfile.TemporaryDirectory() as directory:
        place = Path(directory)
        for folder in ("corpus", "found", "least"):
            (place / folder).mkdir()
        for count, content in enumerate((*kept(name), *parser.seeds, *parser.tokens)):
            (place / "corpus" / f"{count}").write_bytes(content)
        words = (word for word in parser.tokens if word and len(word) <= _WORD)
        lines = ("".join(f"\\x{byte:02x}" for byte in word) for word in words)
        # A dictionary must not be empty.
        (place / "words").write_text("".join(f'"{line}"\n' for line in lines) or '"\\x00"\n')
        before = _processor()
        said = _atheris(name, place, f"-max_total_time={60 * minutes:.0f}", f"-seed={number}",
                        f"-dict={place / 'words'}", str(place / "corpus"))  # fmt: skip
        spent = (_processor() - before) / 60
        tried = max(map(int, re.findall(r"^#(\d+)\t", said, re.MULTILINE)), default=0)
        found = [path.read_bytes() for path in sorted((place / "found").iterdir())]
        _atheris(name, place, "-merge=1", str(place / "least"), str(place / "corpus"))
        least = [path.read_bytes() for path in (place / "least").iterdir()]
        count = keep(name, [*least, *found] if least else [*kept(name), *found])
    if not tried:
        sys.exit(f"{name} was not tried: {said[-2000:]}")
    print("".join(re.findall(r"^  FAILED .*\n", said, re.MULTILINE)), end="", flush=True)
    cells = [name, tried, f"{minutes:g} min", f"{spent:.1f} min", len(found), count]
    return f"| {' | '.join(map(str, cells))} |", len(found)


def _processor() -> float:
    """Seconds of a processor that ended children have had."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def _atheris(name: str, place: Path, *options: str) -> str:
    """What libFuzzer says. A crash, a hang or too much memory is in `found`, as is each failure."""
    command = [
        sys.executable,
        "-m",
        "tests.harden.fuzzed",
        name,
        str(place / "found"),
        f"-artifact_prefix={place / 'found'}/",
        "-timeout=20",
        "-rss_limit_mb=4096",
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    return done.stdout + done.stderr


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--minutes", type=float, default=30, help="for each parser")
    given.add_argument("--only", action="append", choices=PARSERS, help="these parsers alone")
    given.add_argument("--seed", type=int, default=1)
    asked = given.parse_args()
    columns = ["parser", "inputs", "time", "of a processor", "kinds of failures", "kept"]
    print(f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|", flush=True)
    failures = 0
    for name in asked.only or PARSERS:
        line, failed = fuzzed(name, asked.minutes, asked.seed)
        print(line, flush=True)
        failures += failed
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
