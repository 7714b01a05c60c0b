"""flywheel.yaml: what it says is found, and what it cannot mean is named with its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainer.errors import FlywheelError
from trainer.flywheel.settings import domains
from trainer.recipe.sources import ExchangesSettings


def written(directory: Path, text: str) -> Path:
    path = directory / "flywheel.yaml"
    path.write_text(f"version: 1\n{text}\n")
    return path


def test_a_record_takes_the_place_of_the_recipes_sources(tmp_path):
    path = written(tmp_path, "domains: {geo: {recipe: api, record: kept}}")

    (domain,) = domains(path)

    assert (domain.recipe.domain, domain.runs) == ("geo", tmp_path / "runs" / "geo")
    assert domain.recipe.sources == [
        ExchangesSettings(directory=str(tmp_path / "kept"), domains=("geo",))
    ]


def test_without_a_record_the_recipes_own_sources_are_read(tmp_path):
    path = written(tmp_path, "domains: {geo: {recipe: api, promotion: ~}}")

    assert [type(one).__name__ for one in domains(path)[0].recipe.sources] == ["BfclSettings"]


@pytest.mark.parametrize(
    ("registry", "place"),
    [("''", "{here}/adapters"), ("kept", "{here}/kept"), ("s3://models/geo", "s3://models/geo")],
)
def test_a_registry_is_a_directory_or_a_bucket(tmp_path, registry, place):
    path = written(tmp_path, f"registry: {registry}\ndomains: {{geo: {{recipe: api, record: x}}}}")

    (domain,) = domains(path)

    assert (domain.place, domain.adapters) == (place.format(here=tmp_path), tmp_path / "adapters")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("domains: {geo: {recipe: api, recrod: x}}", "`recrod` - at `$.domains[...]`"),
        ("domains: {}", "length >= 1"),
        ("domains: {geo: {recipe: apy, record: x}}", "domains.geo.recipe: no recipe 'apy'"),
        ("domains: {geo: {recipe: api}}", "domains.geo: a promotion step by step takes traffic"),
        ("domains: {geo: {recipe: api, least_new: -1}}", "least_new"),
    ],
)
def test_what_cannot_be_meant_is_named(tmp_path, text, told):
    with pytest.raises(FlywheelError) as error:
        domains(written(tmp_path, text))

    assert told in str(error.value)


def test_an_unknown_domain_is_told_with_those_there_are(tmp_path):
    path = written(tmp_path, "domains: {geo: {recipe: api, record: x}}")

    with pytest.raises(FlywheelError, match="no domain 'goe'; it has geo"):
        domains(path, "goe")
