"""The chart: its values, and what Helm makes of them.

Rendering needs Helm, here as a library (package helm-python-sdk); Kubernetes' own schemas come from
the package kubernetes-validate. Where they are missing, those tests are skipped and say so.
"""

from __future__ import annotations

import re

import jsonschema_rs
import msgspec
import pytest
import yaml

from proxy import config
from proxy.logs import LEVELS
from tests.deploy.conftest import CHART, INSTALL, ROOT, SCHEMA, VALUES, merged

KEY = {"HEADRACE_KEY": "0123456789abcdef"}
TEMPLATES = sorted((CHART / "templates").rglob("*.*"))
CLOUD_ONLY = {
    "image": {"tag": "0.1.0-proxy"},
    "routes": {
        "backends": {
            "local": None,
            "cloud": {
                "kind": "openai",
                "base_url": "https://api.openai.com/v1",
                "api_key": "${OPENAI_API_KEY}",
                "max_connections": 2_000_000,
            },
        },
        "domains": {
            "bookings": None,
            "api": {"plan": ["cloud"]},
            "chat": {"plan": ["cloud"]},
        },
        "record": None,
    },
}
EVERYTHING = {
    "replicaCount": 3,
    "image": {"digest": "sha256:" + "0" * 64},
    "imagePullSecrets": [{"name": "registry"}],
    "env": [{"name": "NO_PROXY", "value": "*"}],
    "persistence": {"enabled": True, "accessModes": ["ReadWriteMany"], "storageClass": "nfs"},
    "service": {"type": "LoadBalancer", "port": 8000, "annotations": {"a": "b"}},
    "serviceAccount": {"annotations": {"a": "b"}},
    "podDisruptionBudget": {"maxUnavailable": 1},
    "podAnnotations": {"a": "b"},
    "podLabels": {"a": "b"},
    "nodeSelector": {"kubernetes.io/arch": "amd64"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {}},
    "topologySpreadConstraints": [
        {
            "maxSkew": 1,
            "topologyKey": "kubernetes.io/hostname",
            "whenUnsatisfiable": "ScheduleAnyway",
        }
    ],
}
EXAMPLES = {"defaults": {}, "cloud only": CLOUD_ONLY, "everything": EVERYTHING}
# ---------------------------------------------------------------- without Helm


def test_versions_are_those_of_the_package():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


def test_schema_is_a_schema_of_draft_7():
    assert SCHEMA["$schema"] == "http://json-schema.org/draft-07/schema#"
    jsonschema_rs.meta.validate(SCHEMA)


@pytest.mark.parametrize("values", EXAMPLES.values(), ids=EXAMPLES)
def test_values_follow_the_schema(values):
    jsonschema_rs.validate(SCHEMA, merged(values, VALUES))


def test_schema_and_values_know_the_same_keys():
    assert set(SCHEMA["properties"]) - {"global"} == set(VALUES)


def test_schema_knows_the_sections_of_routes_yaml():
    fields = {field.encode_name for field in msgspec.structs.fields(config.Config)}

    assert set(SCHEMA["properties"]["routes"]["properties"]) == fields


def test_schema_knows_the_levels_of_the_log():
    assert SCHEMA["properties"]["logLevel"]["enum"] == list(LEVELS)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"replicas": 2}, "replicas"),
        ({"replicaCount": "2"}, "integer"),
        ({"image": {"tga": "1"}}, "tga"),
        ({"image": {"repository": ""}}, "shorter than 1"),
        ({"image": {"tag": "latest"}}, "latest"),
        ({"image": {"digest": "0a1b"}}, "0a1b"),
        ({"routes": {"recrod": {}}}, "recrod"),
        ({"routes": {"version": 2}}, "1 was expected"),
        ({"routes": {"record": {"directory": "~/record"}}}, "~/record"),
        ({"routes": {"auth": {"keys": [{"key": "0123456789abcdef"}]}}}, "0123456789abcdef"),
        ({"persistence": {"size": "ten"}}, "ten"),
        ({"service": {"port": 0}}, "minimum of 1"),
        ({"service": {"type": "Clusterip"}}, "Clusterip"),
        ({"serviceAccount": {"annotations": {"a": 1}}}, "string"),
        ({"env": [{"name": "A", "valeu": "b"}]}, "valeu"),
        ({"podDisruptionBudget": {"selector": {}}}, "selector"),
        ({"resources": {"limit": {}}}, "limit"),
        ({"logLevel": "trace"}, "trace"),
        ({"autoscaling": {"maxReplica": 3}}, "maxReplica"),
        ({"autoscaling": {"minReplicas": 0}}, "minimum of 1"),
        ({"adapters": {"accessModes": ["RWX"]}}, "RWX"),
        ({"models": {"fetch": {"url": "https://models"}}}, "https://models"),
        ({"engine": {"kind": "sglang"}}, "sglang"),
        ({"engine": {"image": {"tag": "latest"}}}, "latest"),
        ({"engine": {"quantize": "fp4"}}, "fp4"),
        ({"engine": {"rank": 24}}, "24"),
        ({"engine": {"adapters": ["api"]}}, "api"),
        ({"engine": {"gpuShare": 90}}, "maximum of 1"),
        ({"engine": {"model": "llama"}}, "llama"),
        ({"trainer": {"schedule": "weekly"}}, "weekly"),
        ({"trainer": {"args": []}}, "has less than 1"),
        ({"networkPolicy": {"dns": {"k8s-app": 1}}}, "string"),
        ({"serviceMonitor": {"interval": "30"}}, "30"),
        ({"serviceMonitor": {"existingSecret": {"name": "a"}}}, "not valid under any"),
        ({"ingress": {"hosts": ["a"]}}, "hosts"),
        ({"httpRoute": {"parentRefs": [{}]}}, "name"),
    ],
)
def test_wrong_value_is_refused_and_named(values, told):
    with pytest.raises(jsonschema_rs.ValidationError, match=re.escape(told)):
        jsonschema_rs.validate(SCHEMA, merged(values, VALUES))


def test_every_value_that_a_template_names_is_in_values_yaml():
    text = "".join(path.read_text() for path in TEMPLATES)
    named = {tuple(name.split(".")) for name in re.findall(r"\.Values\.([\w.]+)", text)}

    assert ("image", "pullPolicy") in named
    assert {name for name in named if not _is_in(name, VALUES)} == set()


def _is_in(path: tuple[str, ...], values: object) -> bool:
    if not path:
        return True
    return isinstance(values, dict) and path[0] in values and _is_in(path[1:], values[path[0]])


def test_every_value_is_used():
    text = "".join(path.read_text() for path in TEMPLATES)

    assert {key for key in VALUES if f".Values.{key}" not in text} == set()


def test_every_value_has_a_comment():
    text = (CHART / "values.yaml").read_text()
    ours = "image|persistence|service|serviceAccount"
    blocks = "".join(re.findall(rf"^(?:{ours}):\n(?:  .*\n)+", text, re.M))

    assert set(re.findall(r"^# .*\n(\w+):", text, re.M)) == set(VALUES)
    assert re.findall(r"^  \w+:", blocks, re.M) == re.findall(r"^  # .*\n(  \w+:)", blocks, re.M)


def test_routes_of_the_values_are_settings_of_the_proxy():
    settings = config.parse(yaml.safe_dump(VALUES["routes"]), CHART, KEY)

    assert settings.auth.keys[0].key == KEY["HEADRACE_KEY"]


def test_routes_of_the_values_serve_the_domains_of_routes_yaml():
    shipped = yaml.safe_load((ROOT / "routes.yaml").read_text())

    ours = VALUES["routes"]
    assert ours["models"] == shipped["models"]
    assert ours["defaults"] == shipped["defaults"]
    assert {name: domain.get("tools") for name, domain in ours["domains"].items()} == {
        name: domain.get("tools") for name, domain in shipped["domains"].items()
    }


# ---------------------------------------------------------------- with Helm


def pod(manifests):
    return manifests["Deployment"]["spec"]["template"]["spec"]


def container(manifests):
    return pod(manifests)["containers"][0]


@pytest.mark.parametrize("values", EXAMPLES.values(), ids=EXAMPLES)
def test_lint_finds_nothing(helm, values):
    report = helm.lint(CHART, values, strict=True)

    assert report["errors"] == []
    # An icon would be asked of a server that clusters without internet do not reach.
    assert {message["error"] for message in report["messages"]} <= {"icon is recommended"}


@pytest.mark.parametrize("version", ["1.29", "1.32", "1.34", "1.37"])
@pytest.mark.parametrize("values", EXAMPLES.values(), ids=EXAMPLES)
def test_manifests_follow_the_schemas_of_kubernetes(render, values, version):
    kubernetes = pytest.importorskip("kubernetes_validate", reason=f"missing: {INSTALL}")

    checked = [
        kubernetes.validate(manifest, version, strict=True) for manifest in render(values).values()
    ]

    assert set(checked) == {version}


@pytest.mark.parametrize("values", EXAMPLES.values(), ids=EXAMPLES)
def test_rendered_routes_are_settings_of_the_proxy(render, values):
    routes = render(values)["ConfigMap"]["data"]["routes.yaml"]

    settings = config.parse(routes, CHART, {**KEY, "OPENAI_API_KEY": "sk"})

    assert settings.auth.keys
    assert yaml.safe_load(routes) == merged(values.get("routes", {}), VALUES["routes"])


def test_misspelt_key_fails_in_helm(helm, render):
    with pytest.raises(helm.HelmValuesError, match="replicas"):
        render({"replicas": 2})


def test_routes_without_a_key_fail(helm, render):
    with pytest.raises(helm.HelmRenderError, match=r"routes\.auth\.keys must name a key"):
        render({"routes": {"auth": None}})


def test_two_pods_cannot_share_a_volume_for_one(helm, render):
    with pytest.raises(helm.HelmRenderError, match="ReadWriteMany"):
        render({"replicaCount": 2, "persistence": {"enabled": True}})


@pytest.mark.parametrize("kind", ["Deployment", "Pod"])
def test_pods_are_confined(render, kind):
    manifest = render({})[kind]
    spec = manifest["spec"]["template"]["spec"] if kind == "Deployment" else manifest["spec"]

    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert [one["securityContext"] for one in spec["containers"]] == [
        {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    ]


def test_whatever_is_written_to_is_a_volume(render):
    mounts = {mount["mountPath"]: mount["name"] for mount in container(render({}))["volumeMounts"]}
    volumes = {volume["name"]: set(volume) - {"name"} for volume in pod(render({}))["volumes"]}

    assert mounts == {
        "/etc/headrace": "routes",
        "/var/cache/headrace": "cache",
        "/tmp": "tmp",
        "/var/lib/headrace/record": "record",
    }
    assert volumes == {
        "routes": {"configMap"},
        "cache": {"emptyDir"},
        "tmp": {"emptyDir"},
        "record": {"emptyDir"},
    }


def test_record_can_lie_elsewhere(render):
    manifests = render({"routes": {"record": {"directory": "/mnt/record"}}})

    assert "/mnt/record" in [mount["mountPath"] for mount in container(manifests)["volumeMounts"]]


def test_without_a_record_no_volume_is_mounted_for_it(render):
    manifests = render({"routes": {"record": None}})

    assert "record" not in [volume["name"] for volume in pod(manifests)["volumes"]]


def test_kept_record_outlives_the_release_and_is_used_by_one_pod_at_a_time(render):
    manifests = render({"persistence": {"enabled": True}})

    claim = manifests["PersistentVolumeClaim"]
    assert claim["metadata"]["annotations"] == {"helm.sh/resource-policy": "keep"}
    assert {"name": "record", "persistentVolumeClaim": {"claimName": "demo-headrace"}} in pod(
        manifests
    )["volumes"]
    assert manifests["Deployment"]["spec"]["strategy"] == {"type": "Recreate"}


def test_claim_of_ones_own_is_used_and_none_made(render):
    manifests = render({"persistence": {"enabled": True, "existingClaim": "mine"}})

    assert "PersistentVolumeClaim" not in manifests
    assert {"name": "record", "persistentVolumeClaim": {"claimName": "mine"}} in pod(manifests)[
        "volumes"
    ]


def test_pods_that_share_a_volume_are_replaced_one_by_one(render):
    assert "strategy" not in render(EVERYTHING)["Deployment"]["spec"]


def test_change_of_the_routes_restarts_the_pods(render):
    def checksum(values):
        return render(values)["Deployment"]["spec"]["template"]["metadata"]["annotations"][
            "checksum/config"
        ]

    assert checksum({}) == checksum({"replicaCount": 2})
    assert checksum({}) != checksum({"routes": {"models": ["other"]}})


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 5 + 60 + 60 + 5),
        ({"routes": {"limits": {"grace_s": 0.5}}}, 5 + 1 + 1 + 5),
        ({"routes": {"limits": None}}, 5 + 10 + 10 + 5),
        ({"preStopSleepSeconds": 20}, 20 + 60 + 60 + 5),
    ],
)
def test_pod_has_time_for_load_balancers_answers_and_record(render, values, seconds):
    assert pod(render(values))["terminationGracePeriodSeconds"] == seconds


def test_default_grace_of_the_chart_is_that_of_the_proxy():
    helpers = (CHART / "templates" / "_helpers.tpl").read_text()

    assert f'dig "limits" "grace_s" {config.LimitSettings().grace_s}' in helpers


def test_service_and_selector_find_the_pods_and_not_the_test(render):
    manifests = render({})
    selector = manifests["Service"]["spec"]["selector"]
    labels = manifests["Deployment"]["spec"]["template"]["metadata"]["labels"]

    assert manifests["Deployment"]["spec"]["selector"]["matchLabels"] == selector
    assert selector.items() <= labels.items()
    assert not selector.items() <= manifests["Pod"]["metadata"]["labels"].items()


def test_keys_come_from_a_secret_that_is_named_only(render):
    assert container(render({}))["envFrom"] == [{"secretRef": {"name": "headrace-keys"}}]
    assert "envFrom" not in container(render({"existingSecret": ""}))
    assert "Secret" not in render(EVERYTHING)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ({}, "headrace:0.1.0"),
        ({"repository": "r/h", "tag": "1"}, "r/h:1"),
        ({"tag": "1", "digest": "sha256:" + "a" * 64}, "headrace@sha256:" + "a" * 64),
    ],
)
def test_digest_wins_over_the_tag_and_the_tag_over_the_version(render, image, name):
    manifests = render({"image": image})

    assert container(manifests)["image"] == name
    assert manifests["Pod"]["spec"]["containers"][0]["image"] == name


def test_disruption_budget_is_made_only_when_asked_for(render):
    assert "PodDisruptionBudget" not in render({})
    assert render(EVERYTHING)["PodDisruptionBudget"]["spec"]["maxUnavailable"] == 1


def test_service_account_of_ones_own_is_used_and_none_made(render):
    manifests = render({"serviceAccount": {"create": False, "name": "mine"}})

    assert "ServiceAccount" not in manifests
    assert pod(manifests)["serviceAccountName"] == "mine"


def test_arguments_are_those_of_the_command(render):
    from proxy.__main__ import _parser

    # What the entry point of the image already says; tests/test_dockerfile.py holds it to that.
    entry = ["serve", "--config", "/etc/headrace/routes.yaml", "--host", "0.0.0.0"]
    options = _parser().parse_args([*entry, *container(render({}))["args"]])

    assert options.port == container(render({}))["ports"][0]["containerPort"]
    assert options.log_level == "info"


def test_notes_tell_address_secret_and_record(notes):
    text = notes({})

    assert "http://demo-headrace.prod:80/v1" in text
    assert "create secret generic headrace-keys --namespace prod" in text
    assert "headrace record ls --config /etc/headrace/routes.yaml" in text
    assert "Nothing is recorded" in notes({"routes": {"record": None}})
