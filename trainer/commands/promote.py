"""headrace-trainer promote, rollback"""

from __future__ import annotations

import argparse
import os
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import msgspec
from rich.text import Text

from proxy.protocol.places import place
from trainer import gate
from trainer.commands.shared import Commands, console
from trainer.errors import PromotionError
from trainer.promotion import settings as promotion_settings
from trainer.promotion.evidence import Record
from trainer.promotion.promote import Outcome, Promotion, rollback, vacate
from trainer.promotion.proxies import Proxies
from trainer.promotion.settings import PromotionSettings
from trainer.promotion.steps import Word, told
from trainer.recipe.sources import ExchangesSettings
from trainer.registry.registry import Registry

EXIT: dict[Word, int] = {"promoted": 0, "waiting": 10, "rolled back": 20}
"""Exit status of `promote`; 1 and 2 are errors, as everywhere."""
_PLACE = "a directory, or a bucket's URL (%(default)s)"
_PAUSE_S = 2.0
"""Seconds between two looks. Chosen: the record is on the disk within half a second, and a proxy
sees a changed champion file within another; together well below ten."""


def add(commands: Commands) -> None:
    """Add both commands."""
    promote = commands.add_parser("promote", help="let a bundle serve its domain, step by step")
    promote.add_argument("id", help="of the bundle: geo-v8")
    promote.add_argument("--domain", default="", help="another one than the bundle's own")
    promote.add_argument("--verdict", type=Path, help="what `gate --out` wrote of it")
    promote.add_argument(
        "--record", action="append", default=[], help="directory of a proxy's record; repeatable"
    )
    promote.add_argument(
        "--proxy", action="append", default=[], help="address of a proxy to wait for; repeatable"
    )
    promote.add_argument("--key-env", default="", help="variable that holds an admin's key")
    promote.add_argument("--at-once", action="store_true", help="no trial: it answers all")
    promote.add_argument("--once", action="store_true", help="look once, instead of following")
    promote.add_argument("--force", action="store_true", help="against verdict or cooldown")
    promote.set_defaults(run=_promote)
    back = commands.add_parser("rollback", help="back to the domain's former champion, at once")
    back.add_argument("domain", help="whose champion goes back")
    back.add_argument("--vacate", action="store_true", help="to no champion at all")
    back.set_defaults(run=_rollback)
    for one in (promote, back):
        one.add_argument("--adapters", default="adapters", help=_PLACE)
        one.add_argument("--settings", type=Path, help="YAML file (docs/promotion.md)")
        one.add_argument("--reason", default="", help="what the history says")
        one.add_argument("--json", action="store_true", help="one JSON object a line")


# ---------------------------------------------------------------- promote


def _promote(options: argparse.Namespace) -> int:
    registry = Registry(options.adapters)
    registry.require_promotable(options.id)
    _require_reason(options)
    if not options.force:
        require_verdict(options.id, options.verdict)
    if options.at_once:
        reason = options.reason or "by hand, without a trial"
        registry.appoint(options.id, reason, options.domain)
        return _tell(Outcome(word="promoted", reason=reason), options)
    return _follow(_promotion(registry, options), options)


def _require_reason(options: argparse.Namespace) -> None:
    if options.force and not options.reason:
        raise PromotionError("--force goes with a --reason: the history keeps it")


def require_verdict(id: str, path: Path | None) -> None:
    """Raises PromotionError unless the gate's verdict on this adapter is to promote it."""
    if path is None:
        raise PromotionError(
            f"{id} needs the gate's verdict: --verdict FILE, as `headrace-trainer gate --out FILE`"
            " writes it; or --force with a --reason"
        )
    verdict = gate.read(path)
    if re.split(r"[!, ]", verdict.candidate)[0] != id:
        raise PromotionError(f"{path} is the verdict on {verdict.candidate}, and not on {id}")
    if verdict.decision != "promote":
        raise PromotionError(f"{path}: {verdict.sentence} (--force with a --reason overrules it)")


def _allowed(verdict: Path | None) -> float | None:
    return gate.read(verdict).may_differ if verdict else None


def _promotion(registry: Registry, options: argparse.Namespace) -> Promotion:
    if not options.record:
        raise PromotionError(
            "whose traffic shall decide? --record DIR, `record.directory` of each proxy's"
            " routes.yaml; or --at-once"
        )
    settings = _settings(options).allowing(_allowed(options.verdict))
    _tell_of_missing(options.record)
    return Promotion(
        registry,
        options.domain or registry.manifest(options.id).domain,
        options.id,
        settings,
        Record([ExchangesSettings(directory=directory) for directory in options.record]),
        run=f"by-hand-{os.getpid()}-{time.time_ns()}",
        proxies=Proxies(options.proxy, os.environ.get(options.key_env, "")),
        force=options.reason if options.force else "",
    )


def _settings(options: argparse.Namespace) -> PromotionSettings:
    if options.settings is None:
        return PromotionSettings()
    return promotion_settings.read(options.settings)


def _tell_of_missing(records: Sequence[str]) -> None:
    """A proxy makes its record with the first exchange; a slip of the pen never comes to be."""
    for directory in records:
        if not place(directory).is_dir():
            said = f"{directory} is not there: no traffic is known until a proxy records into it"
            print(f"headrace-trainer: {said}", file=sys.stderr)


def _follow(promotion: Promotion, options: argparse.Namespace) -> int:
    """Look until it is decided, and tell what is new."""
    last = ""
    while True:
        outcome = promotion.advance()
        if outcome.reason != last or options.once:
            status = _tell(outcome, options)
            last = outcome.reason
        if outcome.word != "waiting" or options.once:
            return status
        time.sleep(_PAUSE_S)


# ---------------------------------------------------------------- rollback


def _rollback(options: argparse.Namespace) -> int:
    reason = options.reason or "by hand"
    registry = Registry(options.adapters)
    before = registry.champions().serving.get(options.domain, "none")
    go_back = vacate if options.vacate else rollback
    outcome = go_back(registry, options.domain, reason, _settings(options))
    _tell(outcome, options)
    if not options.json:
        after = registry.champions().serving.get(options.domain, "none")
        console.print(f"{options.domain}: {before} → {after}", highlight=False)
    return 0


def _tell(outcome: Outcome, options: argparse.Namespace) -> int:
    if options.json:
        print(msgspec.json.encode(outcome).decode(), flush=True)
        return EXIT[outcome.word]
    console.print(Text(outcome.word, "bold"), "", outcome.reason, highlight=False)
    for finding in outcome.figures.findings if outcome.figures else ():
        if finding.state != "silent":
            console.print(f"  {finding.state:9}  {told(finding)}", highlight=False)
    for note in outcome.figures.notes if outcome.figures else ():
        console.print(f"  {note}", style="dim", highlight=False)
    return EXIT[outcome.word]
