"""The pages of the documentation: links lead somewhere, each page is linked, commands can be typed,
Python runs, settings are read, and files that are named are there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

import msgspec
import pytest
import yaml

from proxy import __main__ as proxy
from proxy.config import Config
from proxy.protocol.command_line import commands
from trainer import __main__ as trainer
from trainer.costs.case import Case
from trainer.flywheel.settings import Flywheel
from trainer.promotion.settings import PromotionSettings
from trainer.recipe import Recipe

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PAGES = [
    README,
    *sorted(ROOT.glob("docs/**/*.md")),
    *sorted(ROOT.glob("helm/*/README.md")),
    *sorted(ROOT.glob("adapters/*/README.md")),
]
HISTORY = {"LOG.md", "CHANGELOG.md"}
"""What was true when it was written: its commands and files may be gone."""
PROGRAMS = {"headrace": proxy._parser(), "headrace-trainer": trainer._parser()}
SETTINGS = (Config, Recipe, Flywheel, PromotionSettings, Case)
"""What a block of YAML may be a part of."""
OTHERS = {"scrape_configs"}
"""Keys of Prometheus' file."""
DIGEST = f"sha256:{'0' * 64}"


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


LIVING = [page for page in PAGES if page.name not in HISTORY and "results" not in page.parts]
each_page = pytest.mark.parametrize("page", PAGES, ids=named)
each_living_page = pytest.mark.parametrize("page", LIVING, ids=named)


# ------------------------------------------------------------------ links


@each_page
def test_links_lead_somewhere(page: Path):
    lost = [target for target in links(page) if not leads_somewhere(page, target)]

    assert lost == []


def test_every_page_is_linked_from_one_that_the_readme_leads_to():
    reached, waiting = {README}, [README]
    while waiting:
        page = waiting.pop()
        found = {(page.parent / target.partition("#")[0]).resolve() for target in links(page)}
        new = {path for path in found if path.suffix == ".md"} - reached
        reached |= new
        waiting += [path for path in new if path.exists()]

    linked = {path for path in PAGES if path.is_relative_to(ROOT / "docs")}
    folders = {target.rstrip("/") for page in reached for target in links(page)}
    assert {
        named(page)
        for page in linked - reached
        if named(page.parent).removeprefix("docs/") not in folders
    } == set()


def links(page: Path) -> list[str]:
    """Targets within the project, of links and images."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    found = re.findall(r"\]\(([^)\s]+)\)|<img src=\"([^\"]+)\"", text)
    return [a or b for a, b in found if not re.match(r"[a-z]+:", a or b)]


def leads_somewhere(page: Path, target: str) -> bool:
    path, _, anchor = target.partition("#")
    aim = (page.parent / path).resolve() if path else page
    if not aim.exists():
        return False
    return not anchor or anchor in anchors(aim)


@cache
def anchors(page: Path) -> frozenset[str]:
    """As GitHub makes them of headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    heads = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads)


# ------------------------------------------------------------------ commands


@each_living_page
def test_commands_can_be_typed(page: Path):
    for line in typed(page):
        words = shlex.split(line)
        try:
            PROGRAMS[words[0]].parse_args(words[1:])
        except SystemExit:
            pytest.fail(f"{named(page)}: {line}")


@each_living_page
def test_commands_in_sentences_have_these_words_and_options(page: Path):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    spans = [re.sub(r"\s+", " ", span) for span in re.findall(r"`(headrace[^`]+)`", text)]
    wrong = [span for span in spans if not is_known(span.split(" | ")[0].split(" > ")[0])]

    assert wrong == []


@each_living_page
def test_targets_of_make_are_there(page: Path):
    targets = re.findall(r"\bmake ([a-z][a-z0-9-]+)", " ".join(code(page)))
    known = set(re.findall(r"^([a-z][a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    assert [target for target in targets if target not in known] == []


def blocks(page: Path) -> Iterator[tuple[str, str]]:
    """(language, text) of each block of code."""
    for found in re.finditer(r"^```(\w*)\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE):
        yield found[1], found[2]


def code(page: Path) -> list[str]:
    """All that is set as code, in blocks and in sentences."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    return [*(text for _, text in blocks(page)), *re.findall(r"`([^`]+)`", text)]


def typed(page: Path) -> Iterator[str]:
    """Command lines of ours in blocks, without prompt, pipe and what is said of them after two
    spaces or a `#`; lines that leave something out (`…`) are none."""
    for language, text in blocks(page):
        if language not in {"", "sh", "bash"}:
            continue
        for line in re.sub(r" *\\\n *", " ", text).splitlines():
            command = re.split(r"  +|\s#|\s[|>&]+\s", line.removeprefix("$ ").strip())[0]
            if command.partition(" ")[0] in PROGRAMS and "…" not in command:
                yield command


def is_known(span: str) -> bool:
    """Whether its words are a command or a group of commands, with the command's options."""
    program, *words = span.split(" ")
    if program not in PROGRAMS:
        return True
    there = dict(commands(PROGRAMS[program]))
    plain = [word.rstrip(",…") for word in words if not word.startswith("-")]
    name = next((" ".join(plain[:n]) for n in (2, 1) if " ".join(plain[:n]) in there), None)
    if name is None:
        return not plain or (len(plain) == 1 and any(a.startswith(plain[0]) for a in there))
    options = {word.partition("=")[0] for word in words if word.startswith("--")}
    return options <= there[name]._option_string_actions.keys()


PYTHON = [
    pytest.param(text, id=f"{named(page)}-{number}")
    for page in LIVING
    for number, (language, text) in enumerate(blocks(page))
    if language == "python"
]


@pytest.mark.parametrize("text", PYTHON)
def test_python_runs_when_it_is_pasted_alone(text: str, tmp_path: Path):
    home = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", text], env=home, cwd=tmp_path, capture_output=True, text=True
    )

    assert (ran.returncode, ran.stderr) == (0, "")


# ------------------------------------------------------------------ settings and files


@pytest.mark.parametrize("page", [page for page in LIVING if "helm" not in page.parts], ids=named)
def test_settings_are_ones_that_are_read(page: Path):
    for language, text in blocks(page):
        if language == "yaml" and "{…}" not in text and yaml.safe_load(text):
            readable(yaml.safe_load(filled_in(text)), f"{named(page)}:\n{text}")


def filled_in(text: str) -> str:
    """With something where the environment, or the reader, puts a secret."""
    return re.sub(r"\$\{\w+\}", "secret-of-the-environment", text).replace("sha256:…", DIGEST)


def readable(part: Mapping[str, object], place: str) -> None:
    """Fail unless one kind of settings has these keys, and takes their values."""
    keys = part.keys() - OTHERS
    kinds = [of for of in SETTINGS if keys <= types(of).keys()]
    assert kinds, f"no settings have all of these keys: {place}"
    wrong = [{key: fault(part[key], types(of)[key]) for key in keys} for of in kinds]
    assert any(not any(faults.values()) for faults in wrong), f"{wrong}: {place}"


def types(of: type[msgspec.Struct]) -> dict[str, object]:
    return {field.name: field.type for field in msgspec.structs.fields(of)}


def fault(value: object, of: object) -> str:
    """What is wrong with the value of a key; empty where nothing is."""
    try:
        msgspec.convert(value, of, dec_hook=lambda kind, text: kind(text))
    except msgspec.ValidationError as error:
        return str(error)
    return ""


@each_living_page
def test_files_that_are_named_are_there(page: Path):
    ours = r"(?:proxy|trainer|tests|docs|scripts|bench|deploy|helm|examples)/[\w./-]*\w"
    named_files = [span for span in code(page) if re.fullmatch(ours, span)]

    assert [span for span in named_files if not is_there(ROOT / span)] == []


def is_there(path: Path) -> bool:
    """A module may be named without its ending."""
    return path.exists() or path.with_suffix(".py").exists()
