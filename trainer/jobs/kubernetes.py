"""Jobs on Kubernetes: a Job for each domain, made of the CronJob that the Helm chart installed.

Image, volumes, limits and security are the chart's; what differs is the recipe, which gets a
ConfigMap of its own, and where the run is kept.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from trainer.errors import TrainerError

Manifest: TypeAlias = Any
"""As JSON has it."""
RECIPE = "recipe.yaml"
_TRAIN = ("train", "--recipe", f"/etc/trainer/{RECIPE}", "--adapters", "/adapters")
_RUNS = "/runs"
"""Where the chart mounts recipe, adapters and runs."""
_MOST_NAME = 63
"""Letters of a label's value, and so of a job's name."""


def cronjob(named: str) -> Manifest:
    """The chart's CronJob: a file of JSON, or the name of one that is installed."""
    path = Path(named)
    text = path.read_bytes() if path.is_file() else _kubectl("get", "cronjob", named, "-o", "json")
    try:
        found = msgspec.json.decode(text)
        found["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"]
    except (msgspec.DecodeError, KeyError, TypeError, IndexError) as error:
        raise TrainerError(
            f"{named} is no CronJob of the chart ({error!r}); install it with trainer.enabled"
        ) from error
    return found


def manifests(cron: Manifest, recipes: Mapping[str, str]) -> list[Manifest]:
    """A ConfigMap and a Job for each of the recipes (domain → text of the YAML file)."""
    return [one for domain, text in recipes.items() for one in _of_domain(cron, domain, text)]


def apply(made: list[Manifest]) -> None:
    """Hand them to the cluster; raises TrainerError with kubectl's own words."""
    _kubectl("apply", "-f", "-", stdin=as_list(made))


def as_list(made: list[Manifest]) -> bytes:
    """One file for `kubectl apply -f`."""
    whole = {"apiVersion": "v1", "kind": "List", "items": made}
    return msgspec.json.format(msgspec.json.encode(whole)) + b"\n"


def _of_domain(cron: Manifest, domain: str, recipe: str) -> list[Manifest]:
    name = _name(cron["metadata"]["name"], domain, recipe)
    spec = deepcopy(cron["spec"]["jobTemplate"]["spec"])
    template = spec["template"]
    labels = cron["metadata"].get("labels", {}) | {"headrace.dev/domain": _label(domain)}
    template.setdefault("metadata", {})["labels"] = template["metadata"].get("labels", {}) | {
        "headrace.dev/domain": _label(domain)
    }
    for volume in template["spec"]["volumes"]:
        if volume["name"] == "recipe":
            volume["configMap"] = {"name": name}
    (container,) = template["spec"]["containers"]
    container["args"] = [*_TRAIN, "--out", f"{_RUNS}/{_label(domain)}"]
    place = {"name": name, "labels": labels}
    if "namespace" in cron["metadata"]:
        place["namespace"] = cron["metadata"]["namespace"]
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": place, "data": {RECIPE: recipe}},
        {"apiVersion": "batch/v1", "kind": "Job", "metadata": deepcopy(place), "spec": spec},
    ]


def _name(cron: str, domain: str, recipe: str) -> str:
    """Equal recipes, equal name: given twice, the command changes nothing."""
    digest = hashlib.sha256(recipe.encode()).hexdigest()[:8]
    room = _MOST_NAME - len(digest) - 1
    return f"{_label(f'{cron}-{domain}')[:room].rstrip('-')}-{digest}"


def _label(text: str) -> str:
    return re.sub(r"[^a-z0-9-]+", "-", text.lower()).strip("-")[:_MOST_NAME]


def _kubectl(*arguments: str, stdin: bytes = b"") -> bytes:
    program = shutil.which("kubectl")
    if program is None:
        raise TrainerError(
            "kubectl is not here; give --cronjob a file, and apply what is written yourself"
        )
    ended = subprocess.run(  # noqa: S603  # arguments of ours, no shell
        [program, *arguments], input=stdin, capture_output=True, check=False
    )
    if ended.returncode:
        last = ended.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no word"]
        raise TrainerError(f"kubectl {arguments[0]} failed: {last[0]}")
    return ended.stdout
