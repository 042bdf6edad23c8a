"""A consumer that names its provider's stack instead of repeating what stands there."""

from __future__ import annotations

import copy
import gc
import json
import logging
from typing import Any

import pulumi
import pytest
from hypothesis import assume, given, settings

import config
from components import declare_stack
from config import reference
from tests import strategies
from tests.components import samples
from tests.components.cloud import AWS, Cloud
from tests.components.recorder import Previewed, Run, Secret, Stacks, leaves, run

HOST = "main.orders.istio.data.example"


def exported(**more: object) -> Any:
    """The output `provider` of a stack, with numbers as the engine hands them over."""
    return {
        "id": "id.data.example",
        "systemDomain": "istio.data.example",
        "port": 9443.0,
        "caCertificate": samples.CA,
        "ingressGateway": "mesh-ingress/provider-ingress",
        "address": None,
        "services": {
            "orders": {
                "consumers": [samples.CONSUMER_ID],
                "endpoints": {
                    "main": {"host": HOST, "port": 9443.0},
                    "replica": {"host": "replica.orders.istio.data.example", "port": 9443.0},
                },
            }
        },
        **more,
    }


def consumed(outputs: Any, raw: samples.Raw | None = None, *, preview: bool = False) -> Run:
    stack = samples.parsed(raw or samples.referring_consumer())
    plugin = (Previewed if preview else Stacks)({samples.PROVIDER_STACK: {"provider": outputs}})
    return run(lambda: declare_stack(stack), plugin=plugin, preview=preview)


@pytest.mark.parametrize("preview", [False, True])
def test_host_port_id_and_ca_are_the_stack_s(preview: bool) -> None:
    done = consumed(exported(), preview=preview)

    inputs = {key: child.inputs for key, child in done.children("orders-main").items()}
    assert inputs["service-entry"]["spec"]["hosts"] == [HOST]
    assert inputs["service-entry"]["spec"]["ports"][0]["number"] == 9443
    tls = inputs["upstream-rule"]["spec"]["trafficPolicy"]["tls"]
    assert (tls["sni"], tls["subjectAltNames"]) == (HOST, ["id.data.example"])
    assert inputs["egress-server"]["spec"]["servers"][0]["hosts"] == [HOST]
    assert inputs["sidecar-rule"]["spec"]["subsets"][0]["trafficPolicy"]["tls"]["sni"] == HOST
    anchor = done.named("consumer-client-cacert.mesh-egress").inputs
    assert anchor["stringData"] == {"ca.crt": samples.CA}
    (endpoint,) = done.result["consumer"]["endpoints"]
    assert (endpoint["host"], endpoint["port"], endpoint["providerId"]) == (HOST, 9443, "id.data.example")


def standalone() -> samples.Raw:
    """A consumer whose broker calls that of the provider's stack."""
    raw = samples.referring_consumer()
    broker = samples.brokered_consumer()["broker"]
    return {**raw, "broker": broker}


@pytest.mark.parametrize("preview", [False, True])
def test_a_broker_s_way_and_the_domain_that_it_believes_are_the_stack_s(preview: bool) -> None:
    route = {"host": "proxy.istio.data.example", "consumers": [samples.CONSUMER_ID]}

    done = consumed(exported(controlPlane=route), standalone(), preview=preview)

    inputs = {key: child.inputs for key, child in done.children("broker-upstream").items()}
    assert inputs["service-entry"]["spec"]["hosts"] == ["proxy.istio.data.example"]
    assert inputs["upstream-rule"]["spec"]["trafficPolicy"]["tls"]["subjectAltNames"] == ["id.data.example"]
    text = done.children("broker")["settings"].inputs["data"]["settings.json"]
    assert json.loads(text)["consumer"]["systemDomains"] == ["istio.data.example"]


def test_a_broker_that_the_provider_does_not_admit_is_an_error_at_preview() -> None:
    route = {"host": "istio-broker.istio.data.example", "consumers": ["client.other.example"]}

    with pytest.raises(pulumi.RunError, match="is not admitted to the control plane"):
        consumed(exported(controlPlane=route), standalone(), preview=True)


def test_ports_stay_whole_numbers() -> None:
    (endpoint,) = consumed(exported()).result["consumer"]["endpoints"]

    assert isinstance(endpoint["port"], int)


def test_the_gateway_may_reach_the_stack_s_port() -> None:
    done = consumed(exported())

    egress = done.named("istio-egressgateway-network-policy").inputs["spec"]["egress"]
    assert 9443 in [port["port"] for rule in egress for port in rule["ports"]]


def test_the_reference_is_named_after_the_stack() -> None:
    done = consumed(exported())

    (found,) = [r for r in done if r.type == "pulumi:pulumi:StackReference"]
    assert (found.name, found.inputs["id"]) == (samples.PROVIDER_STACK, samples.PROVIDER_STACK)


def test_a_stack_that_supplies_two_providers_is_read_once() -> None:
    raw = samples.referring_consumer(
        samples.an_import(endpoints=[{"name": "main"}]),
        samples.an_import("copies", [{"name": "replica"}], provider="again", service="orders"),
        clientSecret="first",
    )
    raw["consumer"]["providers"].append(
        {"name": "again", "stack": samples.PROVIDER_STACK, "clientSecret": "second"}
    )

    done = consumed(exported(), raw)

    assert len([r for r in done if r.type == "pulumi:pulumi:StackReference"]) == 1
    assert done.children("copies-replica")["service-entry"].inputs["spec"]["hosts"] == [
        "replica.orders.istio.data.example"
    ]


def test_the_trust_anchor_comes_before_what_trusts_it() -> None:
    done = consumed(exported())

    for child in done.children("orders-main").values():
        assert "consumer-client-cacert.mesh-egress" in done.ancestors(child)


def test_the_ca_may_be_left_to_the_client_secret() -> None:
    done = consumed(
        exported(caCertificate=None),
        samples.referring_consumer(caFromStack=False),
    )

    assert not [o for o in done.objects if o.kind == "Secret"]


def test_what_is_secret_in_the_provider_s_stack_stays_secret() -> None:
    done = consumed(Secret(exported()))

    anchor = done.named("consumer-client-cacert.mesh-egress").inputs
    assert anchor["stringData"] == {"ca.crt": Secret(samples.CA)}
    (endpoint,) = done.result["consumer"]["endpoints"]
    assert (endpoint["host"], endpoint["providerId"]) == (Secret(HOST), Secret("id.data.example"))
    shown = [
        f"{o.name}: {path}"
        for o in done.objects
        for path, leaf in leaves(o.inputs)
        if leaf in (HOST, samples.CA)
    ]
    assert shown == []


def services(**more: object) -> Any:
    outputs = exported()
    outputs["services"]["orders"] |= more
    return outputs


REFUSED = {
    "no output": (None, "provider: null is no output of that stack"),
    "no mapping": ("text", "must be a mapping"),
    "nothing in it": ({}, "is missing but required"),
    "no such service": (exported(services={}), r"is no service of stack .* \(exported there: none\)"),
    "no such endpoint": (
        services(endpoints={"other": {"host": HOST, "port": 9443.0}}),
        r"is no endpoint of 'orders' .*other",
    ),
    "not admitted": (services(consumers=["someone.example"]), r"is not admitted .*someone.example"),
    "no CA": (exported(caCertificate=None), "is not exported; set it in that stack, or `caFromStack: false`"),
    "host of another domain": (
        services(endpoints={"main": {"host": "main.elsewhere.example", "port": 9443.0}}),
        "is not below its system domain",
    ),
    "wildcard": (services(endpoints={"main": {"host": "*.istio.data.example", "port": 9443.0}}), "wildcard"),
    "no port": (exported(port=70000.0), "out of range"),
    "empty id": (exported(id=""), "is empty"),
    "fraction": (exported(port=9443.5), "integer"),
    "an unknown key": (exported(speed="fast"), "is not a known key"),
}


@pytest.mark.parametrize("preview", [False, True])
@pytest.mark.parametrize(("outputs", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_fit_is_an_error_without_a_traceback(
    outputs: Any,
    message: str,
    preview: bool,
    caplog: pytest.LogCaptureFixture,
) -> None:
    # Python 3.11 fails to parse source (which messages are made of) while it reports a former run's lost futures.
    with caplog.at_level(logging.CRITICAL, "asyncio"):
        gc.collect()
    with pytest.raises(pulumi.RunError, match=message) as refused:
        consumed(outputs, preview=preview)

    assert samples.PROVIDER_STACK in str(refused.value)


def test_what_stacks_and_the_configuration_import_under_one_host_is_refused_at_preview() -> None:
    raw = samples.referring_consumer(
        samples.an_import(endpoints=[{"name": "main"}]),
        samples.an_import("spelled", [{"name": "out", "host": HOST}], provider="plain"),
        samples.an_import("missing", [{"name": "main"}], service="nix"),
        clientSecret="first",
    )
    raw["consumer"]["providers"].append({"name": "plain", "systemDomain": "istio.data.example"})

    with pytest.raises(pulumi.RunError) as refused:
        consumed(exported(), raw, preview=True)

    said = str(refused.value)
    assert f'1. consumer.imports[orders].endpoints[main]: "{HOST}"' in said
    assert "that of consumer.imports[spelled].endpoints[out]" in said
    assert '2. consumer.imports[missing].service: "nix" is no service of stack' in said


def test_a_stack_that_was_never_checked_is_refused() -> None:
    stack = samples.parsed(samples.consumer())
    endpoint = stack.consumer.imports[0].endpoints[0].model_copy(update={"host": None})  # type: ignore[union-attr]
    broken = samples.given(stack.consumer)
    imported = broken.imports[0].model_copy(update={"endpoints": (endpoint,)})
    unchecked = stack.model_copy(update={"consumer": broken.model_copy(update={"imports": (imported,)})})

    with pytest.raises(ValueError, match=r"provider data: the stack was not checked by config\.parse"):
        run(lambda: declare_stack(unchecked))


def as_the_engine_hands_it_over(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: as_the_engine_hands_it_over(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_the_engine_hands_it_over(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


@settings(max_examples=12)
@given(provider=strategies.providers(samples.APPLIED))
def test_what_a_provider_exports_a_consumer_imports(provider: samples.Raw) -> None:
    """Both programs, the outputs of one as the engine hands them to the other."""
    exports = provider.get("exports", [])
    assume(exports)
    account = {"aws": AWS} if strategies.uses_aws(provider) else {}
    stack = config.parse({"cluster": samples.APPLIED, "provider": copy.deepcopy(provider), **account})
    done = run(lambda: declare_stack(stack), plugin=Cloud())
    outputs = as_the_engine_hands_it_over(done.result["provider"])

    read = reference.read_outputs(outputs, samples.PROVIDER_STACK)
    assert read.system_domain == provider["systemDomain"]
    for export in exports:
        consumer_id = export["consumers"][0]
        endpoints = [{"name": e["name"]} for e in export["endpoints"]]
        raw = samples.referring_consumer(
            samples.an_import("mine", endpoints, service=export["name"]),
            caFromStack="caCertificate" in provider,
        )
        raw["consumer"]["id"] = consumer_id
        consumer = consumed(outputs, raw)
        for endpoint in export["endpoints"]:
            wanted = reference.Wanted("mine", endpoint["name"], export["name"])
            found = reference.resolve(read, samples.PROVIDER_STACK, consumer_id, wanted)
            assert (found.host, found.port) == (endpoint["host"], read.port)
            ours = consumer.children(f"mine-{endpoint['name']}")
            theirs = done.children(f"{export['name']}-{endpoint['name']}")
            (server,) = theirs["public-server"].inputs["spec"]["servers"]
            rule = ours["upstream-rule"].inputs["spec"]
            assert [rule["host"]] == server["hosts"]
            assert rule["trafficPolicy"]["tls"]["sni"] == rule["host"]
            assert consumer_id in server["tls"]["subjectAltNames"]
            assert rule["trafficPolicy"]["tls"]["subjectAltNames"] == [read.id]
            (port,) = ours["service-entry"].inputs["spec"]["ports"]
            assert port["number"] == server["port"]["number"]
