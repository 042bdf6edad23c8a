"""Records of Route 53.

Source pages: AWS's API reference "Amazon Route 53"; Terraform's `internal/service/route53`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lab.providers.aws.resource import Resource
from lab.providers.values import Object, Value, integer, mapping, sequence, text


class Record(Resource):
    """A record set. One that exists already is refused; a change of its type deletes and creates in one batch."""

    service = "route53"
    missing = ("NoSuchHostedZone",)

    def create(self, inputs: Object) -> str:
        zone = text(inputs, "zoneId")
        self.client.get_hosted_zone(Id=zone)
        self._change(zone, [("CREATE", _record_set(inputs))])
        return _identifier(inputs)

    def read(self, identifier: str, state: Object) -> Object:
        zone, name, kind = _parts(identifier, state)
        found = self._find(zone, name, kind)
        result: Object = {"zoneId": zone, "name": name, "type": kind, "fqdn": name}
        if "AliasTarget" in found:
            alias = found["AliasTarget"]
            result["aliases"] = [
                {
                    "name": alias["DNSName"].rstrip("."),
                    "zoneId": alias["HostedZoneId"],
                    "evaluateTargetHealth": alias["EvaluateTargetHealth"],
                }
            ]
        else:
            values: list[Value] = [item["Value"] for item in found["ResourceRecords"]]
            result |= {"ttl": int(found["TTL"]), "records": values}
        return result

    def update(self, identifier: str, changed: frozenset[str], inputs: Object, state: Object) -> None:
        zone, name, kind = _parts(identifier, state)
        if "type" not in changed:
            self._change(zone, [("UPSERT", _record_set(inputs))])
        else:
            old = self._find(zone, name, kind)
            self._change(zone, [("DELETE", old), ("CREATE", _record_set(inputs))])

    def new_identifier(self, inputs: Object) -> str:
        """The id after an update, of which the type is a part."""
        return _identifier(inputs)

    def delete(self, identifier: str, state: Object) -> None:
        zone, name, kind = _parts(identifier, state)
        self._change(zone, [("DELETE", self._find(zone, name, kind))])

    def _find(self, zone: str, name: str, kind: str) -> Any:
        listed = self.client.list_resource_record_sets(
            HostedZoneId=zone, StartRecordName=name, StartRecordType=kind, MaxItems="1"
        )["ResourceRecordSets"]
        for found in listed:
            if found["Name"].rstrip(".").replace("\\052", "*") == name and found["Type"] == kind:
                return found
        raise LookupError(f"no record {name} of type {kind}")

    def _change(self, zone: str, changes: list[tuple[str, Any]]) -> None:
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record} for action, record in changes]}
        made = self.client.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)
        self.client.get_change(Id=made["ChangeInfo"]["Id"])


def _identifier(inputs: Object) -> str:
    return f"{text(inputs, 'zoneId')}_{text(inputs, 'name')}_{text(inputs, 'type')}"


def _parts(identifier: str, state: Object) -> tuple[str, str, str]:
    zone, _, rest = identifier.partition("_")
    name, _, kind = rest.rpartition("_")
    return text(state, "zoneId") or zone, text(state, "name") or name, text(state, "type") or kind


def _record_set(inputs: Object) -> dict[str, Any]:
    record: dict[str, Any] = {"Name": text(inputs, "name"), "Type": text(inputs, "type")}
    aliases = sequence(inputs, "aliases")
    if aliases:
        alias = mapping({"alias": aliases[0]}, "alias")
        return record | {
            "AliasTarget": {
                "HostedZoneId": text(alias, "zoneId"),
                "DNSName": text(alias, "name"),
                "EvaluateTargetHealth": alias["evaluateTargetHealth"] is True,
            }
        }
    values = [{"Value": str(value)} for value in sequence(inputs, "records")]
    return record | {"TTL": integer(inputs, "ttl"), "ResourceRecords": values}


RESOURCES: Mapping[str, type[Resource]] = {"aws:route53/record:Record": Record}
