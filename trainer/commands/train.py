"""headrace-trainer train"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from proxy.protocol.command_line import whole_number
from trainer import pipeline
from trainer.commands.shared import Commands, console, tell
from trainer.errors import TrainerError
from trainer.jobs import job, kubernetes, local, on_ray
from trainer.recipe import find as find_recipe
from trainer.recipe import path_of
from trainer.sources.base import Skips


def add(commands: Commands) -> None:
    """Add the command."""
    train = commands.add_parser("train", help="train an adapter and write its bundle")
    train.add_argument(
        "--recipe",
        required=True,
        action="append",
        help="a YAML file, or the name of a shipped recipe; with --on several may be given",
    )
    train.add_argument(
        "--dataset", type=Path, help="a dataset that is there; the recipe's is built otherwise"
    )
    train.add_argument(
        "--out",
        type=Path,
        required=True,
        help="directory of the run: dataset, metrics, checkpoint; a stopped run goes on there",
    )
    train.add_argument(
        "--adapters", type=Path, default=Path("adapters"), help="where bundles live (%(default)s)"
    )
    train.add_argument(
        "--on",
        choices=("local", "ray", "k8s"),
        help="a job for each recipe, several at a time, each in --out/<domain>: on the GPUs of this"
        " machine, a Ray cluster, or as Kubernetes Jobs",
    )
    train.add_argument(
        "--cards",
        type=whole_number(1, 1024),
        default=1,
        help="GPUs of a job; more than one: data parallel",
    )
    train.add_argument(
        "--slots",
        type=whole_number(1, 1024),
        default=1,
        help="jobs at a time on a machine without a GPU",
    )
    train.add_argument(
        "--cronjob", help="with k8s: the chart's CronJob, by name, or a file to write the Jobs from"
    )
    train.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    if options.on is not None:
        return _queued(options)
    if len(options.recipe) > 1 or options.cards > 1:
        raise TrainerError("several recipes, or several cards, are for --on local, ray or k8s")
    read = find_recipe(options.recipe[0])
    engine = pipeline.engine(read)
    options.out.mkdir(parents=True, exist_ok=True)
    options.adapters.mkdir(parents=True, exist_ok=True)
    if int(os.environ.get("RANK", "0")):
        pipeline.assist(read, engine, options.out, options.dataset)
        return 0
    skips = Skips()
    bundle = pipeline.train(read, engine, options.out, options.adapters, skips, options.dataset)
    console.print(f"{bundle}: next: headrace-trainer evaluate, gate, promote {bundle.name}")
    return tell(skips)


# ------------------------------------------------------------------ several


def _queued(options: argparse.Namespace) -> int:
    """A job for each recipe, where `--on` says."""
    named = {name: find_recipe(name).domain for name in options.recipe}
    job.require_distinct(list(named.values()))
    recipes = {domain: name for name, domain in named.items()}
    if options.on == "k8s":
        return _on_kubernetes(options, recipes)
    jobs = job.plan(recipes, options.out, options.adapters, options.dataset, options.cards)
    options.adapters.mkdir(parents=True, exist_ok=True)
    if options.on == "ray":
        codes = on_ray.run(jobs, options.cards)
    else:
        among = local.groups(local.slots(_gpus(), max(options.slots, options.cards)), options.cards)
        codes = local.Queue(jobs, console.print).run(among)
    job.require_done(codes, jobs)
    console.print(f"{len(jobs)} trained; what they printed is in {options.out}/*/{job.LOG}")
    return 0


def _on_kubernetes(options: argparse.Namespace, recipes: dict[str, str]) -> int:
    """Write the Jobs, and apply them where the CronJob is one of the cluster's."""
    if options.cronjob is None:
        raise TrainerError("--on k8s needs --cronjob: `kubectl get cronjobs` names the chart's")
    cron = kubernetes.cronjob(options.cronjob)
    texts = {domain: path_of(name).read_text() for domain, name in recipes.items()}
    made = kubernetes.manifests(cron, texts)
    options.out.mkdir(parents=True, exist_ok=True)
    written = options.out / "jobs.json"
    written.write_bytes(kubernetes.as_list(made))
    if Path(options.cronjob).is_file():
        console.print(f"{written}: hand it to the cluster with `kubectl apply -f {written}`")
    else:
        kubernetes.apply(made)
        console.print(f"{len(texts)} started; `kubectl get jobs` shows them")
    return 0


def _gpus() -> list[str]:
    """CUDA's numbers of the GPUs that this process may use."""
    import torch

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = torch.cuda.device_count()
    return visible.split(",")[:count] if visible else [str(number) for number in range(count)]
