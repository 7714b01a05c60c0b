"""compose.yaml, as data: no container engine is needed, and nothing proves that it comes up."""

from __future__ import annotations

import re
import shlex

import pytest
import yaml

from proxy import config, plan_gpu
from proxy.plan_gpu import Order
from tests.deploy.conftest import ROOT

COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES = COMPOSE["services"]
ROUTES = sorted((ROOT / "deploy").glob("routes-*.yaml"))
KEY = {"HEADRACE_KEY": "0123456789abcdef"}


def loaded(path):
    return config.parse(path.read_text(), ROOT, KEY)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_confined(name):
    service = SERVICES[name]

    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged", False)


@pytest.mark.parametrize("name", SERVICES)
def test_every_image_has_a_release(name):
    image = SERVICES[name]["image"].rpartition(":-")[2].rstrip("}")

    assert re.fullmatch(r"\S+:v?\d[\w.-]*", image)


@pytest.mark.parametrize("name", SERVICES)
def test_only_this_machine_reaches_what_is_published(name):
    assert all(port.startswith("127.0.0.1:") for port in SERVICES[name].get("ports", ()))


def test_what_is_mounted_from_here_exists():
    mounts = [m.split(":")[0] for s in SERVICES.values() for m in s.get("volumes", ())]

    ours = [mount for mount in mounts if mount.startswith("./")]
    assert ours
    assert [mount for mount in ours if not (ROOT / mount).is_file()] == []


def test_volumes_and_networks_that_are_used_are_declared_and_used():
    mounts = {m.split(":")[0] for s in SERVICES.values() for m in s.get("volumes", ())}

    assert {m for m in mounts if re.fullmatch(r"[a-z]+", m)} == set(COMPOSE["volumes"])
    assert COMPOSE["networks"]["engines"] == {"internal": True}


@pytest.mark.parametrize("path", ROUTES, ids=lambda path: path.stem)
def test_routes_load_and_ask_services_that_are_there(path):
    profile = path.stem.removeprefix("routes-")
    urls = [u for b in loaded(path).backends.values() for u in getattr(b, "replicas", ())]

    names = {re.fullmatch(r"http://([\w-]+):8000", url)[1] for url in urls}
    assert names == {
        name
        for name, service in SERVICES.items()
        if service["profiles"] == [profile] and not name.startswith("headrace")
    }


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
def test_engines_are_launched_as_plan_gpu_says(kind):
    plan = plan_gpu.plan(Order(gpus=2, adapters=4, context=4096))
    fit = next(fit for fit in plan.fits if fit.engine == kind)
    routes = loaded(ROOT / "deploy" / f"routes-{kind}.yaml")

    assert routes.backends["gpus"].max_in_flight == fit.max_in_flight
    ours = set(shlex.split(SERVICES[f"{kind}-0"]["command"]))
    environment = SERVICES[f"{kind}-0"]["environment"]
    ours |= {f"{name}={value}" for name, value in environment.items()}
    planned = [w for w in shlex.split(fit.launch[0]) if "domain1" not in w]
    left_out = {
        *("CUDA_VISIBLE_DEVICES=0", "vllm", "serve", "text-generation-launcher", "8081"),
        *("meta-llama/Llama-3.1-8B-Instruct", "--lora-modules", "--lora-adapters"),
    }
    assert {w for w in planned if not w.startswith("domain")} - left_out <= ours


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
def test_each_engine_has_a_card_of_its_own(kind):
    def card(name):
        devices = SERVICES[name]["deploy"]["resources"]["reservations"]["devices"]
        return devices[0]["device_ids"]

    assert [card(f"{kind}-{n}") for n in (0, 1)] == [["0"], ["1"]]


def test_answers_in_flight_have_time_to_end():
    grace = max(loaded(path).limits.grace_s for path in ROUTES)

    stop = SERVICES["headrace-cpu"]["stop_grace_period"]
    assert int(stop.removesuffix("s")) > 2 * grace


def test_metrics_are_asked_of_the_proxies():
    scraped = yaml.safe_load((ROOT / "deploy" / "prometheus.yaml").read_text())["scrape_configs"]

    targets = scraped[0]["static_configs"][0]["targets"]
    assert {t.removesuffix(":8080") for t in targets} == {
        name for name in SERVICES if name.startswith("headrace-")
    }
