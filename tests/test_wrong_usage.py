"""What people type wrong: each program says in one line what is wrong, and where."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from proxy.__main__ import main as headrace
from trainer.__main__ import main as trainer

ROOT = Path(__file__).parent.parent
ROUTES = (ROOT / "routes.yaml").read_text().replace("~/.local/state/headrace/record", "record")
PROXY = [
    ("serv", 2, "invalid choice: 'serv'"),
    ("serve --port 99999", 2, "'99999' is no number from 0 to 65535"),
    ("serve --workers 0", 2, "'0' is no number from 1 to 256"),
    ("check nix.yaml", 2, "nix.yaml: No such file or directory"),
    ("check folder", 2, "folder: Is a directory"),
    ("check empty", 2, "empty: the file is empty"),
    ("check noise", 2, "noise: not UTF-8 text"),
    ("routes explain nix.json", 2, "nix.json: No such file or directory"),
    ("routes explain empty", 2, "empty: no chat request"),
    ("routes explain empty --header foo", 2, "'foo' is not like NAME:VALUE"),
    ("record tail -n -3", 2, "'-3' is no number from 0"),
    ("record show nix", 1, "no exchange 'nix'"),
    ("record query DELETE", 1, "headrace: "),
    ("record compact --every 0", 2, "'0' is no number above 0"),
    ("record erase", 2, "nothing says what is to be erased"),
    ("record erase --matching (", 2, "'(' is no regular expression"),
    ("record feedback --exchange x --kind boolean --value maybe", 2, "true or false"),
    ("record feedback --exchange x --kind float --value maybe", 2, "a number"),
    ("record export --format openai-jsonl --out folder", 1, "folder: Is a directory"),
    ("keys new --days -1", 2, "'-1' is no number above 0"),
    ("keys new --days nan", 2, "'nan' is no number above 0"),
    ("keys new --domain nix", 2, "no domain 'nix'"),
    ("fetch nix folder", 1, "a URL is like s3://bucket/folder"),
]
TRAINER = [
    ("evalute", 2, "invalid choice: 'evalute'"),
    ("recipe explain nix", 1, "no recipe 'nix'"),
    ("recipe explain empty", 1, "empty: the file is empty"),
    ("recipe explain noise", 1, "noise: not UTF-8 text (byte 0)"),
    ("recipe explain folder", 1, "folder: Is a directory"),
    ("import folder --license MIT --out o", 1, "folder: no file, but a directory"),
    ("import nix --license MIT --out o", 1, "nix: there is no such file"),
    ("dataset show nix", 1, "nix holds no dataset (manifest.json: No such file or directory)"),
    ("dataset taint folder --record nix", 1, "nix: no such directory"),
    ("evaluate --dataset nix --concurrency 0", 2, "'0' is no number from 1 to 256"),
    ("evaluate --dataset nix --most 0", 2, "'0' is no number from 1"),
    ("evaluate --probes nix", 1, "nix: No such file or directory; a probe"),
    ("workflows --times 0", 2, "'0' is no number from 1"),
    ("judge run nix nix --base-url http://127.0.0.1:1 --model m", 1, "nix: No such file"),
    ("choose --option nix", 1, "nix: No such file or directory; `headrace-trainer evaluate"),
    ("gate --candidate empty", 1, "empty: Input data was truncated; `headrace-trainer evaluate"),
    ("promote nix", 1, "adapters/nix/manifest.json: No such file or directory"),
    ("registry ls --registry nix", 1, "nix: no such directory"),
    ("registry taint --registry folder --record nix", 1, "nix: no such directory"),
    ("router train --record nix --out o", 1, "nix: no such directory"),
    ("status", 1, "flywheel.yaml: No such file or directory; docs/flywheel.md"),
    ("costs --case noise", 1, "noise: not UTF-8 text"),
    ("costs --record nix", 1, "nix: there is no such record"),
]
EACH = [
    *((headrace, "headrace", *case) for case in PROXY),
    *((trainer, "headrace-trainer", *case) for case in TRAINER),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The present directory: settings, an empty file, one that is no text, a folder."""
    (tmp_path / "routes.yaml").write_text(ROUTES)
    (tmp_path / "empty").touch()
    (tmp_path / "noise").write_bytes(b"\x86\xff\x00")
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("program", "name", "typed", "code", "told"), EACH, ids=lambda part: part)
@pytest.mark.usefixtures("here")
def test_it_is_told_in_a_line(program, name, typed, code, told, capsys):
    try:
        ended = program(typed.split())
    except SystemExit as exit:
        ended = exit.code

    *usage, last = capsys.readouterr().err.rstrip("\n").split("\n")
    assert (ended, told in last) == (code, True), last
    assert last.startswith(name)
    assert re.match("usage: |$", "".join(usage[:1]))
