"""The funnel for people: in a terminal, and as a page that opens anywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import msgspec
from rich.console import Group, RenderableType
from rich.table import Table

from proxy.protocol.page.frame import page
from trainer.dataset import Manifest, Opening, Slice, StepReport, Taint

_SLICES = 10
"""Tools and tenants that the terminal shows; the page shows all that the manifest has."""


def steps(manifest: Manifest) -> Iterator[StepReport]:
    """Those that took in rows, whether they dropped some or not."""
    return (step for step in manifest.steps if step.entered)


def read(manifest: Manifest) -> int:
    """Rows that were read."""
    return manifest.steps[0].entered if manifest.steps else 0


def tables(manifest: Manifest) -> RenderableType:
    """The funnel, the sides, and what was kept of each tool and tenant."""
    parts: list[RenderableType] = [_funnel(manifest), _sides(manifest)]
    parts += [
        _slices(name, slices)
        for name, slices in (("tool", manifest.tools), ("tenant", manifest.tenants))
        if len(slices) > 1
    ]
    return Group(*parts)


def _funnel(manifest: Manifest) -> Table:
    table = Table("step", "in", "out", "dropped because", title=f"{read(manifest)} rows read")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for step in steps(manifest):
        reasons = [f"{count} {reason}" for reason, count in step.dropped.items()]
        if step.changed:
            reasons.append(f"({step.changed} changed)")
        table.add_row(step.name, f"{step.entered}", f"{step.left}", ", ".join(reasons))
    return table


def _sides(manifest: Manifest) -> Table:
    table = Table(*manifest.rows, title="examples, and rows on the other sides")
    table.add_row(*(f"{count}" for count in manifest.rows.values()))
    return table


def _slices(name: str, slices: Mapping[str, Slice]) -> Table:
    table = Table(name, "read", "kept")
    for column in (1, 2):
        table.columns[column].justify = "right"
    for key, one in list(slices.items())[:_SLICES]:
        table.add_row(key, f"{one.read}", f"{one.kept}")
    if len(slices) > _SLICES:
        table.add_row(f"… and {len(slices) - _SLICES} more", "", "")
    return table


def facts(manifest: Manifest, taint: Taint | None, openings: list[Opening]) -> Iterator[str]:
    """What else there is to say, one line each."""
    if taint is not None:
        yield f"TAINTED: {taint.exchanges} of its exchanges were erased; build it again"
    yield f"fingerprint {manifest.fingerprint}"
    if manifest.skipped:
        yield "not read: " + ", ".join(f"{n} {name}" for name, n in manifest.skipped.items())
    if manifest.isolation:
        yield f"code was held by {manifest.isolation}"
    if manifest.largest_cluster > 1:
        yield f"largest set of linked groups: {manifest.largest_cluster} rows"
    wanted, watched = _wanted(manifest), manifest.rows.get("validation", 0)
    if watched < wanted:
        yield (
            f"validation has {watched} of {wanted} rows: linked groups stay together, and those "
            "that are left are larger than what is missing"
        )
    if openings:
        yield f"sealed rows opened {len(openings)} times"


class _Split(msgspec.Struct):
    validation: int = 0


class _Recipe(msgspec.Struct):
    split: _Split


def _wanted(manifest: Manifest) -> int:
    """Rows of validation that the recipe asked for; 0 where a dataset was made by hand."""
    recipe = msgspec.json.decode(manifest.recipe, type=_Recipe | None)
    return recipe.split.validation if recipe else 0


def html(manifest: Manifest, taint: Taint | None, openings: list[Opening]) -> str:
    """The page."""
    return page(
        "trainer.curate",
        "dataset.html.jinja",
        title=f"Dataset of {manifest.domain or 'no domain'}",
        subtitle=manifest.fingerprint,
        manifest=manifest,
        steps=list(steps(manifest)),
        widest=max(1, read(manifest)),
        facts=list(facts(manifest, None, openings)),
        taint=taint,
    )
