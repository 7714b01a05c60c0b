"""Who reaches whom: the NetworkPolicies of the examples, computed pair by pair.

What a plug-in for networks makes of them on a cluster is not tested; what they say is.
"""

from __future__ import annotations

import pytest

from tests.deploy.conftest import EXAMPLES, pod_of

PARTS = ("client", "proxy", "engine", "trainer", "record")


def pods(manifests):
    """Part → (labels, container ports), of the release; and a client in the same namespace."""
    found = {"client": ({"app": "client"}, {})}
    for manifest in manifests:
        spec = pod_of(manifest)
        if spec is None or manifest["kind"] == "Pod":
            continue
        template = (
            manifest["spec"].get("template")
            or (manifest["spec"]["jobTemplate"]["spec"]["template"])
        )
        labels = template["metadata"]["labels"]
        part = labels.get("app.kubernetes.io/component", "proxy")
        ports = {p["name"]: p["containerPort"] for p in spec["containers"][0].get("ports", ())}
        found[part] = (labels, ports)
    return found


def selects(selector, labels):
    return selector.get("matchLabels", {}).items() <= labels.items()


def allows(policies, pod, peer, port, direction):
    """Whether `pod` may talk with `peer` in this direction: yes, unless policies select it and none
    of their rules lets it."""
    labels, ports = pod
    binding = [
        p["spec"]
        for p in policies
        if selects(p["spec"]["podSelector"], labels)
        and direction.capitalize() in p["spec"]["policyTypes"]
    ]
    side = "from" if direction == "ingress" else "to"
    rules = [rule for spec in binding for rule in spec.get(direction) or ()]
    named = ports if direction == "ingress" else peer[1]
    return not binding or any(
        _names(rule.get(side), peer[0]) and _opens(rule.get("ports"), port, named) for rule in rules
    )


def _names(peers, labels):
    if not peers:
        return True
    return any(
        "podSelector" in p and "namespaceSelector" not in p and selects(p["podSelector"], labels)
        for p in peers
    )


def _opens(ports, port, named):
    return not ports or any(named.get(p["port"], p["port"]) == port for p in ports)


def reaches(manifests, source, target, port):
    policies = [m for m in manifests if m["kind"] == "NetworkPolicy"]
    found = pods(manifests)
    out = allows(policies, found[source], found[target], port, "egress")
    return out and allows(policies, found[target], found[source], port, "ingress")


@pytest.mark.parametrize("example", ["vllm-2x3090", "tgi-2x3090", "air-gapped"])
def test_engines_are_reached_by_the_proxy_alone(manifests, example):
    found = manifests(EXAMPLES[example])
    others = set(pods(found)) - {"proxy", "engine"}

    assert reaches(found, "proxy", "engine", 8000)
    assert [other for other in others if reaches(found, other, "engine", 8000)] == []
    assert not reaches(found, "engine", "engine", 8000)


def test_matrix_of_the_release_with_everything(manifests):
    found = manifests(EXAMPLES["vllm-2x3090"])
    ports = {"proxy": 8080, "engine": 8000}

    reached = {
        (source, target)
        for source in PARTS
        for target, port in ports.items()
        if source != target and reaches(found, source, target, port)
    }

    assert reached == {
        *(("client", "proxy"), ("trainer", "proxy"), ("record", "proxy"), ("proxy", "engine")),
    }


def test_engine_cannot_reach_the_proxy_nor_the_world(manifests):
    found = manifests(EXAMPLES["vllm-2x3090"])
    policy = next(
        m
        for m in found
        if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "demo-headrace-engine"
    )

    assert policy["spec"]["egress"] == []
    assert not reaches(found, "engine", "proxy", 8080)


def test_clients_can_be_named(manifests):
    found = manifests(EXAMPLES["multi-tenant"])

    assert not reaches(found, "client", "proxy", 8080)


def test_without_policies_everybody_reaches_everybody(manifests):
    values = {**EXAMPLES["vllm-2x3090"], "networkPolicy": {"enabled": False}}

    assert reaches(manifests(values), "client", "engine", 8000)


def test_egress_of_the_proxy_is_dns_engines_and_what_was_named(manifests):
    found = manifests(EXAMPLES["vllm-2x3090"])
    policy = next(
        m
        for m in found
        if m["kind"] == "NetworkPolicy" and m["metadata"]["name"] == "demo-headrace"
    )

    ports = [[port["port"] for port in rule["ports"]] for rule in policy["spec"]["egress"]]
    assert ports == [[53, 53], [8000], [443]]
