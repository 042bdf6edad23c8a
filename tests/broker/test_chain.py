"""The calls through the whole chain: what each party is sent, what the platform is answered, what is there afterwards."""

from __future__ import annotations

import functools
import json
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from broker.proxy import Proxy
from broker.store import ConsumerRoute, ProviderRoute, Store
from tests.broker import service_broker
from tests.broker.chain import (
    BINDING,
    CONSUMER_ID,
    INSTANCE,
    PREFIX,
    PROFILE,
    SYSTEM_DOMAIN,
    Chain,
    Platform,
    consumer_settings,
    load,
    served,
    wait_until,
)
from tests.broker.service_broker import ASYNC_PLAN, MAINTENANCE, PLAN, SERVICE


def test_the_catalog_is_marked_by_the_provider_and_unmarked_by_the_consumer(chain: Chain) -> None:
    at_the_provider = chain.direct.client.get("/v2/catalog").json()
    at_the_platform = chain.platform.client.get("/v2/catalog").json()

    (service,) = at_the_provider["services"]
    assert service["name"] == f"{PREFIX}postgresql"
    assert service["plans"][0]["maintenance_info"] == {"version": MAINTENANCE}
    assert [plan["metadata"] for plan in service["plans"]] == [
        {"bullets": ["1 GB"], "supportedPlatforms": ["kubernetes"]},
        {"supportedPlatforms": ["kubernetes"]},
    ]
    assert at_the_platform["services"][0]["name"] == "postgresql"
    assert at_the_platform["services"][0]["plans"] == service["plans"]
    assert service["x-unknown"] == {"kept": 1.10}


def test_a_bind_makes_both_routes_and_hands_out_adapted_credentials(chain: Chain) -> None:
    answer = chain.platform.bind(
        parameters={"kept": [1, None]}, context={"platform": "kubernetes", "namespace": "billing"}
    )

    assert answer.status_code == 201
    assert chain.provider_cluster.objects == {
        f"0-{BINDING}": ProviderRoute(consumer_id=CONSUMER_ID, endpoints=[{"host": "10.0.0.1", "port": 5432}])
    }
    public = {"host": f"0.{BINDING}.{SYSTEM_DOMAIN}", "port": 9000}
    assert chain.consumer_cluster.objects == {
        f"0-{BINDING}": ConsumerRoute(namespace="billing", provider_id=SYSTEM_DOMAIN, endpoints=[public])
    }
    body = answer.json()
    credentials = body["credentials"]
    assert (credentials["hostname"], credentials["port"]) == ("10.96.0.1", "5555")
    assert credentials["uri"] == f"postgres://user-{BINDING}:secret@10.96.0.1:5555/db?sslmode=disable"
    assert credentials["password"] == "p/w:10.0.0.1"
    assert credentials["x-unknown"] == [1, {"a": None}]
    assert body["endpoints"] == [{"host": "10.96.0.1", "ports": ["5555"], "protocol": "tcp"}]
    assert body["network_data"] == {
        "network_profile_id": PROFILE,
        "data": {"provider_id": SYSTEM_DOMAIN, "endpoints": [public]},
    }
    assert json.dumps(body["x-unknown"]) == '{"z": 1, "a": 2}'
    assert answer.headers["x-from-the-broker"] == "kept"
    sent = chain.broker.seen[-1]
    assert sent.body["network_data"] == {"network_profile_id": PROFILE, "data": {"consumer_id": CONSUMER_ID}}
    assert sent.body["parameters"] == {"kept": [1, None]}


def test_an_unbind_removes_both_routes_and_a_repeated_one_says_gone(chain: Chain) -> None:
    chain.platform.bind()

    assert chain.platform.unbind().status_code == 200
    assert chain.broker.state.bindings == {}
    assert (chain.provider_cluster.objects, chain.consumer_cluster.objects) == ({}, {})
    assert [store.all() for store in chain.stores] == [[], []]
    assert chain.platform.unbind().status_code == 410


def test_a_repeated_bind_answers_200_and_leaves_the_live_route_alone(chain: Chain) -> None:
    first = chain.platform.bind()
    objects = dict(chain.consumer_cluster.objects)
    updates = len(chain.consumer_cluster.updates), len(chain.provider_cluster.updates)

    again = chain.platform.bind()

    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert chain.consumer_cluster.objects == objects
    assert (len(chain.consumer_cluster.updates), len(chain.provider_cluster.updates)) == updates


def test_a_conflicting_bind_is_refused_and_leaves_the_live_route_alone(chain: Chain) -> None:
    chain.platform.bind()

    answer = chain.platform.bind(parameters={"other": 1})

    assert answer.status_code == 409
    assert chain.settled()
    assert list(chain.consumer_cluster.objects) == list(chain.provider_cluster.objects) == [f"0-{BINDING}"]
    assert chain.platform.bind().status_code == 200


def test_no_other_consumer_can_take_a_binding_over(chain: Chain) -> None:
    chain.platform.bind()
    thief = {"network_profile_id": PROFILE, "data": {"consumer_id": "thief.example"}}

    assert chain.direct.bind(network_data=thief).status_code == 409
    route = chain.provider_cluster.objects[f"0-{BINDING}"]
    assert isinstance(route, ProviderRoute)
    assert route.consumer_id == CONSUMER_ID


@pytest.mark.parametrize("consumer", [None, "", "  ", 7, "not a name", "*.example"])
def test_a_bind_without_a_consumer_never_reaches_the_broker(chain: Chain, consumer: object) -> None:
    data = {"network_profile_id": PROFILE, "data": {"consumer_id": consumer}}

    answer = chain.direct.bind(network_data=data)

    assert (answer.status_code, answer.json()["error"]) == (400, "InvalidConsumerID")
    assert all(seen.method != "PUT" or "bindings" not in seen.path for seen in chain.broker.seen)
    assert chain.provider_cluster.objects == {}


def test_several_endpoints_get_a_route_each_and_ports_keep_their_type(chain: Chain) -> None:
    chain.broker.endpoints = [
        {"host": "10.0.0.1", "port": 5432},
        {"host": "db.internal.example", "port": "5433"},
    ]

    body = chain.platform.bind().json()

    assert [e["host"] for e in body["network_data"]["data"]["endpoints"]] == [
        f"{index}.{BINDING}.{SYSTEM_DOMAIN}" for index in (0, 1)
    ]
    assert list(chain.provider_cluster.objects) == [f"0-{BINDING}", f"1-{BINDING}"]
    assert body["endpoints"] == [{"host": "10.96.0.1", "port": 5555}, {"host": "10.96.0.2", "port": 5555}]
    assert body["credentials"]["port"] == "5555"


def test_endpoints_in_the_credentials_move_out_of_them(chain: Chain) -> None:
    chain.broker.as_end_points = True

    body = chain.platform.bind().json()

    assert "end_points" not in body["credentials"]
    assert body["endpoints"] == [{"host": "10.96.0.1", "port": 5555}]


def test_every_port_of_an_endpoint_gets_a_route_of_its_own(chain: Chain) -> None:
    chain.broker.endpoints = [
        {"host": "10.0.0.1", "ports": ["5432", "5433"]},
        {"host": "10.0.0.2", "ports": ["80"], "protocol": "all"},
    ]

    body = chain.platform.bind().json()

    assert [
        (e.host, e.port)
        for slug in (0, 1, 2)
        for e in chain.provider_cluster.objects[f"0-{BINDING}"].endpoints[slug : slug + 1]  # type: ignore[attr-defined]
    ] == [("10.0.0.1", 5432), ("10.0.0.1", 5433), ("10.0.0.2", 80)]
    assert list(chain.consumer_cluster.objects) == [f"{index}-{BINDING}" for index in (0, 1, 2)]
    assert body["endpoints"] == [
        {"host": f"10.96.0.{number}", "ports": ["5555"], "protocol": "tcp"} for number in (1, 2, 3)
    ]


def test_a_rotation_names_nothing_but_its_predecessor(chain: Chain) -> None:
    context = {"platform": "kubernetes", "namespace": "billing"}
    chain.platform.bind("first", context=context)

    answer = chain.platform.client.put(
        chain.platform.path(binding="second"), json={"predecessor_binding_id": "first"}
    )

    assert answer.status_code == 201
    assert set(chain.consumer_cluster.objects) == {"0-first", "0-second"}
    route = chain.consumer_cluster.objects["0-second"]
    assert isinstance(route, ConsumerRoute)
    assert route.namespace == "billing"
    for store in chain.stores:
        first, second = store.all()
        assert (second.service_id, second.plan_id) == (first.service_id, first.plan_id)
    assert chain.platform.unbind("first").status_code == chain.platform.unbind("second").status_code == 200


def test_nobody_rotates_a_binding_of_another_consumer(chain: Chain) -> None:
    chain.platform.bind("first")
    thief = {"network_profile_id": PROFILE, "data": {"consumer_id": "thief.example"}}

    body = {"predecessor_binding_id": "first", "network_data": thief}
    answer = chain.direct.client.put(chain.direct.path(binding="second"), json=body)

    assert answer.status_code == 409
    assert "second" not in chain.broker.state.bindings


def test_a_binding_without_endpoints_passes(chain: Chain) -> None:
    chain.broker.endpoints = []

    answer = chain.platform.bind()

    assert answer.status_code == 201
    assert answer.json()["network_data"]["data"]["endpoints"] == []
    assert [store.all() for store in chain.stores] == [[], []]
    assert chain.platform.unbind().status_code == 200


def test_an_answer_of_a_foreign_network_passes_untouched(chain: Chain, tmp_path: Path) -> None:
    foreign = (
        '{ "credentials" : {"a": 1e5, "\\/": "é\\u00e9", "a": -0},\n"network_data":{"network_profile_id":"urn:other"}}'
    ).encode()
    chain.broker.next_answers.append((201, foreign))
    # The provider would add its own profile, so the consumer is put before the broker itself.
    values = consumer_settings(
        tmp_path / "alone",
        chain.broker.url,
        upstreamUsername=service_broker.USER,
        upstreamPassword=service_broker.PASSWORD,
    )
    read = load(tmp_path / "alone", values)
    with served(read, Proxy(read, deployer=chain.consumer_cluster)) as url:
        platform = Platform(url)
        answer = platform.bind()
        platform.client.close()

    assert answer.status_code == 201
    assert answer.content == foreign
    assert chain.consumer_cluster.objects == {}


def test_fetching_a_binding_adapts_it_again(chain: Chain) -> None:
    bound = chain.platform.bind().json()

    assert chain.platform.fetch().json() == bound
    assert chain.platform.fetch("unknown").status_code == 404


def test_an_asynchronous_bind_succeeds_only_when_both_routes_are_there(chain: Chain) -> None:
    chain.platform.provision("async-instance", plan=ASYNC_PLAN)
    refused = chain.platform.bind(instance=INSTANCE, plan=ASYNC_PLAN)
    assert (refused.status_code, refused.json()["error"]) == (422, "AsyncRequired")
    begun = chain.platform.bind(plan=ASYNC_PLAN, query={"accepts_incomplete": "true"})
    assert (begun.status_code, begun.json()) == (202, {"operation": f"bind-{BINDING}"})
    assert chain.platform.fetch().status_code == 404

    states = []

    def polled() -> bool:
        answer = chain.platform.last_operation(operation=f"bind-{BINDING}")
        assert answer.status_code == 200
        states.append(answer.json()["state"])
        if states[-1] == "succeeded":
            assert (
                list(chain.provider_cluster.objects)
                == list(chain.consumer_cluster.objects)
                == [f"0-{BINDING}"]
            )
        elif not chain.broker.state.operations.get(BINDING):
            assert answer.headers["retry-after"] == "1"
        return bool(states[-1] != "in progress")

    wait_until(polled, "the bind ends")
    assert states[-1] == "succeeded"
    assert chain.platform.fetch().json()["credentials"]["hostname"] == "10.96.0.1"

    gone = chain.platform.unbind(plan=ASYNC_PLAN, accepts_incomplete="true")
    assert gone.status_code == 202
    assert chain.consumer_cluster.objects

    def unbound() -> bool:
        answer = chain.platform.last_operation(operation=f"unbind-{BINDING}")
        return answer.status_code == 410 or bool(answer.json()["state"] == "succeeded")

    wait_until(unbound, "the unbind ends")
    wait_until(lambda: not chain.consumer_cluster.objects, "the consumer's route is gone")
    wait_until(lambda: not chain.provider_cluster.objects, "the provider's route is gone")
    wait_until(lambda: [store.all() for store in chain.stores] == [[], []], "nothing is stored")


def test_everything_else_passes_verbatim(chain: Chain) -> None:
    info = chain.platform.client.get("/info", params={"a": "1", "b": "x y"})
    assert info.json() == {"query": {"a": ["1"], "b": ["x y"]}, "name": "service fabrik"}

    body = {"service_id": SERVICE, "unknown": {"x": None}, "maintenance_info": {"version": MAINTENANCE}}
    assert chain.platform.client.patch(chain.platform.path(), json=body).json()["got"] == body
    stale = chain.platform.client.patch(
        chain.platform.path(), json={**body, "maintenance_info": {"version": "1.0.0"}}
    )
    assert (stale.status_code, stale.json()["error"]) == (422, "MaintenanceInfoConflict")
    assert chain.platform.client.get(chain.platform.path()).json()["plan_id"] == PLAN
    assert chain.platform.client.get(chain.platform.path(rest="/last_operation")).json() == {
        "state": "succeeded"
    }
    assert chain.platform.client.get("/v2/nothing").status_code == 404


def test_the_service_managers_paths_work_the_same(chain: Chain) -> None:
    chain.platform.base = chain.direct.base = "/v1/osb/fabrik"

    assert chain.platform.provision("managed").status_code == 201
    assert chain.platform.bind(instance="managed").status_code == 201
    assert chain.broker.seen[-1].path.startswith("/v1/osb/fabrik/v2/")
    assert chain.platform.unbind(instance="managed").status_code == 200
    assert (chain.provider_cluster.objects, chain.consumer_cluster.objects) == ({}, {})


def test_identities_and_versions_travel_along_the_chain(chain: Chain) -> None:
    headers = {
        "X-Broker-API-Originating-Identity": "kubernetes eyJ1c2VybmFtZSI6ImFubiJ9",
        "X-Broker-API-Request-Identity": "7f9c-request",
        "X-Istio-Broker-Versions": "manager/3",
    }

    answer = chain.platform.client.get("/v2/catalog", headers=headers)

    sent = chain.broker.seen[-1].headers
    assert sent["x-broker-api-originating-identity"] == headers["X-Broker-API-Originating-Identity"]
    assert sent["x-broker-api-request-identity"] == "7f9c-request"
    assert sent["x-istio-broker-versions"] == "manager/3, meshbridge/0.1.0, meshbridge/0.1.0"
    assert answer.headers["x-broker-api-request-identity"] == "7f9c-request"
    assert answer.headers["x-istio-broker-versions"] == "meshbridge/0.1.0, meshbridge/0.1.0"


def test_each_side_has_credentials_of_its_own(chain: Chain) -> None:
    assert chain.platform.client.get("/v2/catalog", auth=("platform", "wrong")).status_code == 401
    assert (
        chain.platform.client.get("/info", auth=None, headers={"Authorization": "Bearer x"}).status_code
        == 401
    )
    sent = chain.broker.seen[-1].headers["authorization"]
    assert sent == "Basic " + b64encode(f"{service_broker.USER}:{service_broker.PASSWORD}".encode()).decode()


@pytest.mark.parametrize(
    ("version", "status"), [("2.17", 200), ("2.0", 200), ("1.3", 412), ("3.0", 412), ("x", 412), (None, 412)]
)
def test_other_versions_of_the_api_are_refused(chain: Chain, version: str | None, status: int) -> None:
    headers = {} if version is None else {"X-Broker-API-Version": version}
    del chain.platform.client.headers["X-Broker-API-Version"]

    answer = chain.platform.client.get("/v2/catalog", headers=headers)
    assert answer.status_code == status
    assert answer.headers["x-istio-broker-versions"]
    assert answer.headers["x-broker-api-request-identity"]


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE", "PUT"])
@pytest.mark.parametrize("rest", ["", "/last_operation", "/anything", "/service_bindings/b"])
def test_no_call_of_the_api_passes_without_its_version(chain: Chain, method: str, rest: str) -> None:
    del chain.platform.client.headers["X-Broker-API-Version"]
    before = len(chain.broker.seen)

    for base in ("", "/v1/osb/fabrik"):
        chain.platform.base = base
        answer = chain.platform.client.request(method, chain.platform.path(rest=rest), json={})
        assert answer.status_code == 412

    assert len(chain.broker.seen) == before


def test_the_network_profile_is_agreed_upon(chain: Chain) -> None:
    taken = chain.platform.provision("p1", network_profiles=[{"id": PROFILE}])
    assert (taken.status_code, taken.json()["error"]) == (400, "InvalidNetworkProfile")
    for profiles in ([], [{"id": "urn:other"}], [{"id": PROFILE}, {"id": "urn:other"}], "x", None):
        answer = chain.direct.provision("p2", network_profiles=profiles)
        assert (answer.status_code, answer.json()["error"]) == (400, "InvalidConsumerNetworkProfile")
    chain.broker.next_answers.append((201, b'{"network_profiles": [{"id": "x"}]}'))
    answer = chain.direct.provision("p3", network_profiles=[{"id": PROFILE}])
    assert (answer.status_code, answer.json()["error"]) == (500, "InvalidServerNetworkProfile")
    assert chain.platform.provision("p4").json() == {
        "dashboard_url": "https://dash",
        "x-unknown": 1,
        "network_profiles": [],
    }
    assert chain.direct.provision("p4", network_profiles=[{"id": PROFILE}]).json()["network_profiles"] == [
        {"id": PROFILE}
    ]


def test_a_namespace_that_gets_no_routes_is_refused_before_the_broker_hears_of_it(chain: Chain) -> None:
    answer = chain.platform.bind(context={"platform": "kubernetes", "namespace": "kube-system"})

    assert (answer.status_code, answer.json()["error"]) == (400, "InvalidNamespace")
    assert chain.broker.state.bindings == {}
    assert [store.all() for store in chain.stores] == [[], []]


def test_adapting_needs_neither_upstream_nor_cluster(chain: Chain) -> None:
    chain.broker.stop()
    mapping = {
        "source": {"host": "my-cf-service", "port": 1234},
        "target": {"host": "my-k8s-service", "port": 6789},
    }
    credentials = {"host": "my-cf-service", "port": 1234, "uri": "http://my-cf-service:1234"}

    answer = chain.platform.adapt({"credentials": credentials, "endpoint_mappings": [mapping]})

    assert answer.status_code == 200
    assert answer.json()["credentials"] == {
        "host": "my-k8s-service",
        "port": 6789,
        "uri": "http://my-k8s-service:6789",
    }
    assert answer.json()["endpoints"] == [{"host": "my-k8s-service", "port": 6789}]
    wrong: object
    for wrong in (
        {"credentials": {}},
        {"credentials": {}, "endpoint_mappings": []},
        {"endpoint_mappings": [mapping]},
        [],
    ):
        assert chain.platform.adapt(wrong).status_code == 400


def test_concurrent_calls_for_one_binding_leave_one_binding(chain: Chain) -> None:
    with ThreadPoolExecutor(16) as pool:
        codes = [f.result().status_code for f in [pool.submit(chain.platform.bind) for _ in range(16)]]

    assert codes.count(201) == 1
    assert set(codes) <= {200, 201, 422}
    assert list(chain.consumer_cluster.objects) == list(chain.provider_cluster.objects) == [f"0-{BINDING}"]
    assert chain.platform.bind().status_code == 200


def all_are_wanted(store: Store, number: int) -> bool:
    return sum(binding.wanted for binding in store.all()) == number


def test_64_callers_share_few_updates(chain: Chain) -> None:
    """While the first update of each shard runs, the others gather, and the next one takes them all."""
    names = [f"b-{number}" for number in range(64)]
    clusters = (chain.provider_cluster, chain.consumer_cluster)
    for cluster in clusters:
        cluster.gate = threading.Event()
    with ThreadPoolExecutor(64) as pool:
        calls = [pool.submit(chain.platform.bind, name) for name in names]
        for cluster, store in zip(clusters, chain.stores, strict=True):
            wait_until(functools.partial(all_are_wanted, store, len(names)), "all routes are wanted")
            assert cluster.gate is not None
            cluster.gate.set()
        codes = [call.result().status_code for call in calls]

    assert codes == [201] * 64
    assert [len(cluster.updates) <= 4 for cluster in clusters] == [True, True]
    assert chain.consumer_cluster.objects.keys() == {f"0-{name}" for name in names}
    assert len(set(chain.consumer_cluster.addresses.values())) == 64
    assert chain.settled()
