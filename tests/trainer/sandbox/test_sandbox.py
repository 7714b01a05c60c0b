"""The sandbox: what a snippet tries beyond its own memory comes to nothing, and is told apart."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from trainer.errors import SandboxError
from trainer.sandbox import Limits, Sandbox, landlock, seccomp

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or not landlock.version() or not seccomp.is_known(),
    reason="nothing can hold a snippet here; the sandbox refuses",
)

HELD = {
    "a fork bomb": ("import os\nwhile True: os.fork()", "process"),
    "a bomb of threads": (
        "import threading, time\n"
        "for _ in range(9999): threading.Thread(target=time.sleep, args=(9,)).start()",
        "process",
    ),
    "10 GB": ("x = bytearray(10 * 2**30)", "memory"),
    "an endless loop": ("while True: pass", "time"),
    "an endless loop that holds off signals": (
        "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass",
        "time",
    ),
    "a long sleep": ("import time; time.sleep(1000)", "time"),
    "a file outside": ("open('/tmp/headrace-outside', 'w').write('x')", "file"),
    "a file of the machine": ("open('/etc/passwd').read()", "file"),
    "its own process": ("open('/proc/self/environ').read()", "file"),
    "a huge file": ("open('big', 'wb').write(bytes(2**24))", "file"),
    "many files": ("for n in range(99): open(f'f{n}', 'wb').write(bytes(2**20))", "file"),
    "a socket": ("import socket; socket.create_connection(('127.0.0.1', 80))", "network"),
    "a name": ("import socket; socket.getaddrinfo('localhost.test', 80)", "network"),
    "the environment": ("import os; os.environ['HOME']", "environment"),
    "a subprocess": ("import subprocess; subprocess.run(['true'])", "process"),
    "another program": ("import os; os.execv('/bin/sh', ['sh'])", "process"),
    "its parent": ("import os; os.kill(os.getppid(), 9)", "process"),
    "others' modes": ("import os; os.chmod('/tmp', 0o777)", "system_call"),
    "a bad pointer": ("import ctypes; ctypes.string_at(0)", "crash"),
    "an early exit": ("import os; os._exit(0)", "exit"),
    "a mistake": ("1 / 0", "error"),
}


@pytest.fixture(scope="module")
def sandbox():
    made = Sandbox(Limits(seconds=0.5, memory=256 * 2**20))
    yield made
    made.close()


@pytest.mark.parametrize("tried", HELD)
def test_what_is_tried_is_held_and_told_apart(sandbox, tried):
    code, reason = HELD[tried]

    run = sandbox.run(code)

    assert run.reason == reason, run.detail


def test_nothing_was_written_outside(sandbox):
    sandbox.run(HELD["a file outside"][0])

    assert not Path("/tmp/headrace-outside").exists()


@pytest.mark.parametrize(
    "code",
    [
        "print(sum(range(10)))",
        "import json, re, datetime, decimal",
        "import asyncio; asyncio.run(asyncio.sleep(0))",
        "import threading\nt = threading.Thread(target=print); t.start(); t.join()",
        "open('a.txt', 'w').write('x'); assert open('a.txt').read() == 'x'",
        "import tempfile; tempfile.NamedTemporaryFile().write(b'x')",
        "import os; assert not os.environ",
        "raise SystemExit(0)",
    ],
)
def test_plain_python_runs(sandbox, code):
    run = sandbox.run(code)

    assert run.reason == "ok", run.detail


def test_a_snippet_leaves_nothing_to_the_next(sandbox):
    sandbox.run("import json; json.dumps = None; open('left', 'w').write('x')")

    run = sandbox.run("import json, os; print(json.dumps(os.listdir()))")

    assert (run.reason, run.output) == ("ok", "[]\n")


def test_output_is_kept_up_to_a_point(sandbox):
    assert sandbox.run("print('hello')").output == "hello\n"
    assert len(sandbox.run("print('x' * 10**6)").output) == 4096


def test_warnings_that_the_code_itself_causes_are_told(sandbox):
    run = sandbox.run("import warnings; warnings.warn('old', DeprecationWarning)")

    assert run.deprecations == ["DeprecationWarning: old"]


def test_other_warnings_are_not(sandbox):
    assert sandbox.run("import warnings; warnings.warn('odd')").deprecations == []


def test_a_forged_verdict_stays_within_bounds(sandbox):
    forged = "import os\nos.write(3, b'{\"reason\": \"' + b'x' * 100 + b'\"}')\nos._exit(0)"

    assert sandbox.run(forged).reason == "exit"


def test_a_dead_zygote_is_replaced():
    made = Sandbox(Limits(seconds=0.5))
    made.run("pass")
    made._process.kill()
    made._process.wait()

    assert made.run("print(1)").output == "1\n"
    made.close()


def test_packages_are_there_from_the_start():
    made = Sandbox(Limits(seconds=2), preload=("msgspec",))

    run = made.run("import sys; print('msgspec' in sys.modules)")

    assert run.output == "True\n"
    made.close()


def test_a_package_that_is_not_there_is_told():
    made = Sandbox(Limits(), preload=("no_such_package",))

    with pytest.raises(SandboxError, match="not installed: no_such_package"):
        made.run("pass")


def test_what_holds_the_code_is_said(sandbox):
    assert sandbox.isolation.startswith("landlock")
    assert "seccomp" in sandbox.isolation


def test_where_nothing_can_hold_the_code_it_is_not_run(monkeypatch):
    start = "import trainer.sandbox.landlock as l; l.version = lambda: 0; "
    monkeypatch.setattr(
        "trainer.sandbox.client._START",
        "import sys; sys.path.insert(0, sys.argv[1]); "
        + start
        + "from trainer.sandbox.zygote import main; main()",
    )

    with pytest.raises(SandboxError, match="code is not run here: the kernel has no landlock"):
        Sandbox(Limits()).run("print('ran')")
