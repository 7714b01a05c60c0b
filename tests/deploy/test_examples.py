"""Every example of the chart: linted, rendered, valid, safe, and accepted by the proxy."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest
import yaml

from proxy import config, plan_gpu
from proxy.plan_gpu import Order
from tests.deploy.conftest import CHART, EXAMPLES, INSTALL, ROOT, pod_of

NOT_OF_KUBERNETES = ("HTTPRoute", "PrometheusRule", "ServiceMonitor")
"""Kinds whose schemas come with what defines them."""
KEYS = (
    *("AZURE_OPENAI_API_KEY", "HEADRACE_KEY", "OPENAI_API_KEY", "OPERATOR_KEY", "SALES_KEY"),
    "SUPPORT_KEY",
)
SECRET = re.compile(
    r"\b(sk-|AKIA|ghp_|-----BEGIN)\w*|(?i:password|api[-_]?key|token)[\"']?: *[\"']?\w{12}"
)

examples = pytest.mark.parametrize("name", EXAMPLES)


def containers(manifests):
    for manifest in manifests:
        pod = pod_of(manifest)
        for container in (*pod.get("initContainers", ()), *pod["containers"]) if pod else ():
            yield manifest, pod, container


def test_examples_are_those_that_the_documentation_names():
    assert set(EXAMPLES) == {
        *("air-gapped", "azure-shadow", "cpu-demo", "multi-tenant", "tgi-2x3090", "vllm-2x3090"),
    }


@examples
def test_lint_finds_nothing(helm, name):
    report = helm.lint(CHART, EXAMPLES[name], strict=True)

    assert report["errors"] == []
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize("version", ["1.29", "1.31", "1.33", "1.35", "1.37"])
@examples
def test_manifests_follow_the_schemas_of_kubernetes(manifests, name, version):
    kubernetes = pytest.importorskip("kubernetes_validate", reason=f"missing: {INSTALL}")
    found = [m for m in manifests(EXAMPLES[name]) if m["kind"] not in NOT_OF_KUBERNETES]

    assert {kubernetes.validate(manifest, version, strict=True) for manifest in found} == {version}


@examples
def test_names_are_unique_and_in_the_namespace(manifests, name):
    found = manifests(EXAMPLES[name])

    names = [(m["kind"], m["metadata"]["name"]) for m in found]
    assert len(set(names)) == len(names)
    assert {m["metadata"]["namespace"] for m in found} == {"prod"}
    assert all(re.fullmatch(r"[a-z0-9-]{1,63}", name) for _, name in names)


@examples
def test_rendered_routes_load_and_find_the_engines(manifests, name):
    found = manifests(EXAMPLES[name])
    routes = next(m for m in found if "routes.yaml" in m.get("data", ()))["data"]["routes.yaml"]

    settings = config.parse(routes, CHART, dict.fromkeys(KEYS, "0123456789abcdef"))

    asked = {
        url for backend in settings.backends.values() for url in getattr(backend, "replicas", ())
    }
    there = {
        f"http://{m['metadata']['name']}:{m['spec']['ports'][0]['port']}"
        for m in found
        if m["kind"] == "Service" and "-engine-" in m["metadata"]["name"]
    }
    assert asked == there


@examples
def test_every_pod_is_confined(manifests, name):
    for _, pod, container in containers(manifests(EXAMPLES[name])):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod)
        assert not any("hostPath" in volume for volume in pod.get("volumes", ()))


@examples
def test_every_container_says_what_it_takes(manifests, name):
    for _, _, container in containers(manifests(EXAMPLES[name])):
        assert {"cpu", "memory"} <= set(container["resources"]["requests"])
        assert "memory" in container["resources"]["limits"]


@examples
def test_every_image_has_a_release(manifests, name):
    for _, _, container in containers(manifests(EXAMPLES[name])):
        assert re.fullmatch(r"\S+(:(?!latest)[\w.-]+|@sha256:[0-9a-f]{64})", container["image"])


@examples
def test_only_who_restarts_engines_has_a_token(manifests, name):
    found = manifests(EXAMPLES[name])
    with_token = {
        m["metadata"]["name"]
        for m, pod, _ in containers(found)
        if pod["automountServiceAccountToken"]
    }

    assert with_token == ({"demo-headrace"} if name == "tgi-2x3090" else set())


def test_the_token_may_do_nothing_but_restart_the_engines(manifests):
    (role,) = [m for m in manifests(EXAMPLES["tgi-2x3090"]) if m["kind"] == "Role"]

    assert role["rules"] == [
        {
            "apiGroups": ["apps"],
            "resources": ["deployments"],
            "resourceNames": ["demo-headrace-engine-0", "demo-headrace-engine-1"],
            "verbs": ["get", "patch"],
        }
    ]


@examples
def test_nothing_secret_is_rendered(manifests, name):
    found = manifests(EXAMPLES[name])

    assert "Secret" not in {m["kind"] for m in found}
    assert [m for m in found if SECRET.search(str(m))] == []


def test_what_looks_like_a_secret_would_be_found():
    assert SECRET.search(str({"env": [{"name": "A", "value": "sk-abcdef"}]}))
    assert SECRET.search(str({"api_key": "0123456789abcdef"}))


@examples
def test_mounts_have_a_volume_and_volumes_are_mounted(manifests, name):
    for manifest in manifests(EXAMPLES[name]):
        pod = pod_of(manifest)
        if pod and manifest["kind"] != "Pod":
            mounted = {
                mount["name"]
                for container in (*pod.get("initContainers", ()), *pod["containers"])
                for mount in container["volumeMounts"]
            }
            assert mounted == {volume["name"] for volume in pod["volumes"]}


# ---------------------------------------------------------------- engines


@pytest.mark.parametrize("kind", ["vllm", "tgi"])
def test_engines_are_launched_as_plan_gpu_says(manifests, kind):
    values = EXAMPLES[f"{kind}-2x3090"]
    order = Order(gpus=2, adapters=4, context=values["engine"]["context"])
    fit = next(fit for fit in plan_gpu.plan(order).fits if fit.engine == kind)

    assert values["engine"]["sequences"] == fit.sequences
    assert values["routes"]["backends"]["gpus"]["max_in_flight"] == fit.max_in_flight
    deployments = [m for m in manifests(values) if "-engine-" in m["metadata"]["name"]]
    launched = [_launched(m) for m in deployments if m["kind"] == "Deployment"]
    assert launched == [_planned(line) for line in fit.launch]


def _launched(deployment):
    (container,) = pod_of(deployment)["containers"]
    env = {variable["name"]: variable["value"] for variable in container["env"]}
    words = _options(container["command"])
    if "LORA_ADAPTERS" in env:
        words["--lora-adapters"] = "adapters"
    kept = ("PREFIX_CACHING", "VLLM_ALLOW_RUNTIME_LORA_UPDATING")
    return words | {name: env[name] for name in kept if name in env}


def _planned(line):
    """A launch line without what is the shell's, or the model's place."""
    words = shlex.split(line)
    set_to = [word.split("=", 1) for word in words if re.match(r"[A-Z_]+=", word)]
    options = _options([word for word in words if not re.match(r"[A-Z_]+=", word)])
    return options | {name: value for name, value in set_to if name != "CUDA_VISIBLE_DEVICES"}


def _options(words):
    """Option → value; adapters are whichever, and where the model and the port are is left out."""
    found: dict[str, str] = {}
    for word in words:
        if word.startswith("--"):
            option = word
            found[option] = ""
        elif found:
            adapters = option in ("--lora-modules", "--lora-adapters")
            found[option] = "adapters" if adapters else word
    return {
        k: v for k, v in found.items() if k not in ("--port", "--model-id", "--served-model-name")
    }


def test_engine_without_a_backend_is_refused(helm, manifests):
    engine = {"kind": "vllm", "image": {"repository": "r/vllm", "tag": "1"}}

    with pytest.raises(helm.HelmRenderError, match="nothing would be asked of the engines"):
        manifests({"engine": engine})


@pytest.mark.parametrize(
    ("image", "told"),
    [({}, "engine.image.repository"), ({"repository": "r/vllm"}, "engine.image.tag")],
)
def test_engine_without_an_image_is_refused(helm, manifests, image, told):
    values = {**EXAMPLES["vllm-2x3090"]}
    values["engine"] = {**values["engine"], "image": image}

    with pytest.raises(helm.HelmRenderError, match=re.escape(told)):
        manifests(values)


def test_adapters_on_awq_are_refused_for_tgi(helm, manifests):
    values = {**EXAMPLES["tgi-2x3090"]}
    values["engine"] = {**values["engine"], "quantize": "awq"}

    with pytest.raises(helm.HelmRenderError, match="awq"):
        manifests(values)


def test_model_is_fetched_before_the_engine_starts(manifests):
    (engine,) = [
        m
        for m in manifests(EXAMPLES["air-gapped"])
        if m["metadata"]["name"].endswith("engine-0") and m["kind"] == "Deployment"
    ]
    (fetch,) = pod_of(engine)["initContainers"]

    assert fetch["command"] == [
        *("headrace", "fetch"),
        *("s3://models/llama-3.1-8b-instruct", "/models/llama-3.1-8b-instruct"),
    ]
    assert fetch["envFrom"] == [{"secretRef": {"name": "bucket"}}]


# ---------------------------------------------------------------- what needs something else


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"trainer": {"enabled": True, "recipe": {"a": 1}}}, "needs adapters.enabled"),
        ({"trainer": {"enabled": True}, "adapters": {"enabled": True}}, "trainer.flywheel.domains"),
        (
            {
                "trainer": {"enabled": True, "flywheel": {"domains": {"a": {"recipe": "api"}}}},
                "adapters": {"enabled": True},
            },
            "trainer.runs.existingClaim",
        ),
        ({"compaction": {"enabled": True}}, "compaction.enabled needs"),
        ({"autoscaling": {"enabled": True}, "persistence": {"enabled": True}}, "ReadWriteMany"),
        ({"ingress": {"enabled": True}}, "ingress.host"),
        ({"httpRoute": {"enabled": True}}, "httpRoute.parentRefs"),
    ],
)
def test_half_of_a_thing_is_refused_with_the_other_half(helm, manifests, values, told):
    with pytest.raises(helm.HelmRenderError, match=re.escape(told)):
        manifests(values)


def test_tgi_without_the_way_to_the_cluster_is_refused(helm, manifests):
    values = {**EXAMPLES["tgi-2x3090"], "networkPolicy": {"enabled": True}}

    with pytest.raises(helm.HelmRenderError, match=r"networkPolicy\.apiServer"):
        manifests(values)


def test_streams_outlast_what_stands_before_the_proxy(manifests):
    (ingress,) = [m for m in manifests(EXAMPLES["azure-shadow"]) if m["kind"] == "Ingress"]
    (route,) = [m for m in manifests(EXAMPLES["multi-tenant"]) if m["kind"] == "HTTPRoute"]
    longest = config.LimitSettings().longest_s

    annotations = ingress["metadata"]["annotations"]
    prefix = "nginx.ingress.kubernetes.io/proxy-"
    assert int(annotations[prefix + "read-timeout"]) == longest
    assert annotations[prefix + "buffering"] == "off"
    most = config.LimitSettings().max_body_mib
    assert annotations[prefix + "body-size"] == f"{most:.0f}m"
    assert route["spec"]["rules"][0]["timeouts"]["request"] == f"{longest:.0f}s"


def test_autoscaler_is_the_only_one_who_says_how_many(manifests):
    found = {m["kind"]: m for m in manifests(EXAMPLES["multi-tenant"])}

    assert "replicas" not in found["Deployment"]["spec"]
    scaler = found["HorizontalPodAutoscaler"]["spec"]
    assert [metric["type"] for metric in scaler["metrics"]] == ["Pods", "Resource"]


def test_two_runs_of_the_trainer_never_meet(manifests):
    jobs = [m for m in manifests(EXAMPLES["vllm-2x3090"]) if m["kind"] == "CronJob"]

    assert {job["spec"]["concurrencyPolicy"] for job in jobs} == {"Forbid"}
    assert {job["metadata"]["name"] for job in jobs} == {
        *("demo-headrace-trainer", "demo-headrace-record"),
    }


def test_settings_of_the_trainer_are_a_flywheel(manifests, tmp_path):
    from trainer.flywheel.settings import domains

    found = manifests(EXAMPLES["vllm-2x3090"])
    config = next(m["data"] for m in found if "flywheel.yaml" in m.get("data", ()))
    (tmp_path / "flywheel.yaml").write_text(config["flywheel.yaml"])
    (tmp_path / "recipe.yaml").write_text(config["recipe.yaml"])

    (domain,) = domains(tmp_path / "flywheel.yaml")

    assert (domain.name, domain.recipe.domain, domain.runs) == ("api", "api", Path("/runs/api"))
    assert str(domain.adapters) == "/adapters"


def test_dashboard_and_alerts_are_those_that_ship(manifests):
    found = manifests(EXAMPLES["vllm-2x3090"])
    dashboard = next(m for m in found if "headrace.json" in m.get("data", ()))
    (rule,) = [m for m in found if m["kind"] == "PrometheusRule"]

    shipped = json.loads((ROOT / "deploy" / "grafana.json").read_text())
    assert json.loads(dashboard["data"]["headrace.json"]) == shipped
    assert rule["spec"] == yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())
    # Prometheus' own placeholders must get through Helm's.
    assert "$labels." in str(rule["spec"])
