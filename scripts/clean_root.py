"""Run the Dockerfile's own lines in a clean Debian root, and use what comes out of it.

    scripts/clean_root.py proxy embedded      # as root; needs debootstrap (Debian, Ubuntu)

Needs no container engine. Each stage becomes a directory below build/roots: FROM copies one, COPY
and RUN do what they say, RUN in a chroot without a network, with the packages of the locks fetched
beforehand. Not shown is what a container engine does by itself, such as layers. Then the target
serves, as its numeric user, read-only and without a network, and is asked for a tool call, as by
`helm test`.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import yaml

ROOT = Path(__file__).parent.parent
BUILD = ROOT / "build" / "roots"
RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
PIP_CONF = "[global]\nno-index = true\nfind-links = /wheelhouse\n"
KEY = "0123456789abcdef0123"
_INSIDE = """
set -e
mount --make-rprivate /
root=$1; shift
mkdir -p $root/proc $root/dev $root/wheelhouse
mount -t proc proc $root/proc
mount --bind /dev $root/dev
"""


class Line(NamedTuple):
    """One instruction of the Dockerfile, its continuation lines joined."""

    instruction: str
    rest: str


class Stage(NamedTuple):
    """What stands between one FROM and the next."""

    name: str
    base: str
    lines: list[Line]


def stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile, by name."""
    kept = "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))
    joined = re.sub(r"\\\n\s*", "", kept)
    found: list[Stage] = []
    for text_line in filter(str.strip, joined.splitlines()):
        line = Line(*text_line.split(maxsplit=1))
        if line.instruction == "FROM":
            base, _, name = line.rest.split()
            found.append(Stage(name, base, []))
        elif found:
            found[-1].lines.append(line)
    return {stage.name: stage for stage in found}


class Builder:
    """Makes the directories of stages, each once."""

    def __init__(self, text: str) -> None:
        self._stages = stages(text)
        self.env: dict[str, dict[str, str]] = {}
        """Stage → its environment variables."""
        self.last: dict[str, dict[str, str]] = {}
        """Stage → instruction → its last text, such as USER and ENTRYPOINT."""

    def build(self, name: str) -> Path:
        """The directory of a stage, and before it those of the stages that it uses."""
        if name in self.env:
            return BUILD / name
        stage = self._stages.get(name)
        if stage is None:
            return self._base(name)
        below = self.build(stage.base)
        self.env[name] = dict(self.env[below.name])
        self.last[name] = dict(self.last[below.name])
        target = BUILD / name
        _fresh_copy(below, target)
        for line in stage.lines:
            print(f"{name}: {line.instruction} {line.rest[:100]}", flush=True)
            self._do(line, name, target)
        return target

    def locks(self, name: str) -> list[str]:
        """The lock files that a stage, and those that it uses, install."""
        stage = self._stages.get(name)
        if stage is None:
            return []
        text = " ".join(line.rest for line in stage.lines)
        used = {stage.base, *re.findall(r"\bfrom=([\w-]+)", text)}
        found = set(re.findall(r"-r /locks/(\S+)", text))
        return sorted(found.union(*(self.locks(other) for other in used)))

    def _base(self, name: str) -> Path:
        """A Debian with Python, in the place of the official image."""
        target = BUILD / "base"
        if not (target / "usr/bin/python").exists():
            shutil.rmtree(target, ignore_errors=True)
            command = ["debootstrap", "--variant=minbase", f"--include={PACKAGES}", RELEASE, target]
            _run(command)
            (target / "usr/bin/python").symlink_to("python3")
        self.env["base"] = {"PATH": "/usr/local/bin:/usr/bin:/bin"}
        self.last["base"] = {"USER": "0:0", "WORKDIR": "/"}
        return target

    def _do(self, line: Line, name: str, target: Path) -> None:
        match line.instruction:
            case "RUN":
                self._step(line.rest, name, target)
            case "COPY":
                self._copy(line.rest, target / self.last[name]["WORKDIR"].lstrip("/"))
            case "ENV":
                for word in shlex.split(line.rest):
                    key, _, value = word.partition("=")
                    self.env[name][key] = value.replace("$PATH", self.env[name]["PATH"])
            case "WORKDIR":
                (target / line.rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
                self.last[name]["WORKDIR"] = line.rest
            case instruction:
                self.last[name][instruction] = line.rest

    def _copy(self, rest: str, here: Path) -> None:
        words = rest.split()
        options = [words.pop(0) for _ in range(sum(word.startswith("--") for word in words))]
        *sources, place = words
        origin = ROOT
        mode = None
        for option in options:
            key, _, value = option.partition("=")
            origin = self.build(value) if key == "--from" else origin
            mode = value if key == "--chmod" else mode
        for source in sources:
            self._put(origin / source.lstrip("/"), here, place, mode)

    def _put(self, source: Path, here: Path, place: str, mode: str | None) -> None:
        root = BUILD / here.relative_to(BUILD).parts[0]
        into = root / place.lstrip("/") if place.startswith("/") else here / place
        if place.endswith(("/", ".")) and not source.is_dir():
            into = into / source.name
        into.parent.mkdir(parents=True, exist_ok=True)
        _run(
            [
                "cp",
                "-a",
                "--no-preserve=ownership",
                f"{source}/." if source.is_dir() else source,
                into,
            ]
        )
        if mode:
            _run(["chmod", "-R", mode, into])

    def _step(self, rest: str, name: str, target: Path) -> None:
        mounts = list(self._mounts(rest, target))
        text = re.sub(r"--mount=\S+\s*", "", rest).strip()
        words = json.loads(text) if text.startswith("[") else ["sh", "-ec", text]
        user = self.last[name].get("USER", "0:0")
        chrooted(target, words, self.env[name], user, self.last[name]["WORKDIR"], mounts)

    def _mounts(self, rest: str, target: Path) -> Iterator[str]:
        """Commands that put what a RUN asks for into its place."""
        for mount in re.findall(r"--mount=(\S+)", rest):
            options = dict(option.split("=", 1) for option in mount.split(","))
            place = f"$root{options['target']}"
            if options["type"] == "secret":
                yield f"touch {place}; mount --bind {BUILD / 'pip.conf'} {place}"
            else:
                origin = self.build(options["from"]) / options["source"].lstrip("/")
                yield f"mkdir -p {place}; mount --bind {origin} {place}"


def chrooted(
    root: Path,
    words: list[str],
    env: dict[str, str],
    user: str,
    directory: str,
    mounts: list[str],
    options: tuple[str, ...] = ("--net",),
) -> subprocess.CompletedProcess[str]:
    """Run a command in a root of its own, with no network, processes or mounts of this machine."""
    variables = [f"{key}={value}" for key, value in env.items()]
    inner = ["env", "-i", *variables, "sh", "-ec", f'cd {directory} && exec "$@"', "sh", *words]
    wheels = f"mount --bind {BUILD / 'wheels'} $root/wheelhouse\n"
    script = _INSIDE + wheels + "\n".join(mounts)
    script += f'\nexec chroot --userspec={user} $root "$@"\n'
    new = ["unshare", "--mount", "--pid", "--fork", *options]
    return _run([*new, "sh", "-c", script, "sh", root, *inner])


def _run(command: list[object]) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], text=True, check=False)
    if done.returncode:
        sys.exit(f"clean_root: exit code {done.returncode}: {shlex.join(map(str, command))[:400]}")
    return done


def _fresh_copy(source: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    _run(["cp", "-a", source, target])


def fetch_wheels(builder: Builder, target: str) -> None:
    """The packages of all locks that a target installs, checked against their hashes."""
    wheels = BUILD / "wheels"
    wheels.mkdir(parents=True, exist_ok=True)
    (BUILD / "pip.conf").write_text(PIP_CONF)
    for lock in builder.locks(target):
        path = ROOT / "scripts" / "locks" / lock
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
        _run([*pip, "--only-binary=:all:", "--dest", wheels, "-r", path])


def served(builder: Builder, target: str) -> None:
    """Start the entry point and ask for a tool call, all inside of the root."""
    root, last = BUILD / target, builder.last[target]
    (root / "etc/headrace/routes.yaml").write_text(_routes(target))
    shutil.copyfile(ROOT / "helm/headrace/files/call.py", root / "etc/headrace/call.py")
    entry = shlex.join(json.loads(last["ENTRYPOINT"]))
    health = json.loads(last["HEALTHCHECK"].partition("CMD ")[2])
    script = f"""
    touch /read-only-root 2>/dev/null && echo 'the root can be written to' && exit 1
    {entry} > /tmp/log 2>&1 & server=$!
    for try in $(seq 240); do
        {shlex.join(health)} 2>/dev/null && break
        kill -0 $server || break
        sleep 0.5
    done
    {shlex.join(health)} || {{ cat /tmp/log; exit 1; }}
    {_question(target)}
    kill -TERM $server; wait $server
    """
    volumes = [place.lstrip("/") for place in json.loads(last["VOLUME"])]
    mounts = ["mount --bind $root $root", "mount -o remount,ro,bind $root"]
    for place in (*volumes, "tmp"):
        owner = "mode=1777" if place == "tmp" else "uid=10001,mode=0770"
        mounts.append(f"mount -t tmpfs -o {owner} tmpfs $root/{place}")
    # The remount has hidden what stood below: once more.
    mounts += ["mount -t proc proc $root/proc", "mount --bind /dev $root/dev", "ip link set lo up"]
    env = {**builder.env[target], "HEADRACE_KEY": KEY}
    chrooted(root, ["sh", "-c", script], env, last["USER"], last["WORKDIR"], mounts)


def _routes(target: str) -> str:
    """Those of the chart; the target without an engine gets a cloud that is not there."""
    routes = yaml.safe_load((ROOT / "helm/headrace/values.yaml").read_text())["routes"]
    if target == "proxy":
        routes["backends"] = {"local": {"kind": "openai", "base_url": "http://127.0.0.1:1/v1"}}
    return yaml.safe_dump(routes)


def _question(target: str) -> str:
    if target == "embedded":
        return "python -I /etc/headrace/call.py http://127.0.0.1:8080 headrace HEADRACE_KEY"
    code = (
        "import os, urllib.request as u; "
        "r = u.Request('http://127.0.0.1:8080/v1/models'); "
        "r.add_header('authorization', 'Bearer ' + os.environ['HEADRACE_KEY']); "
        "print(u.urlopen(r).read().decode())"
    )
    return shlex.join(["python", "-Ic", code])


def sizes(target: str) -> str:
    """What a target has on top of the base, in MB."""
    own = _size(BUILD / target) - _size(BUILD / "base")
    return f"{target}: {own / 1e6:,.0f} MB on top of the base"


def _size(root: Path) -> int:
    done = subprocess.run(["du", "-sb", root], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("targets", nargs="+", choices=("proxy", "embedded", "trainer"))
    options = parser.parse_args()
    text = (ROOT / "Dockerfile").read_text()
    builder = Builder(text)
    for target in options.targets:
        fetch_wheels(builder, target)
        builder.build(target)
        print(sizes(target))
        if target != "trainer":
            served(builder, target)


if __name__ == "__main__":
    main()
