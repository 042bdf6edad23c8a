"""The provider's functions: look-ups that the program makes."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from lab.providers.aws.account import Account
from lab.providers.errors import ProviderError
from lab.providers.values import Object, text

NLB_ZONES: Final = {
    "eu-central-1": "Z3F0SRJ5LGBH90",
    "eu-west-1": "Z2IFOLAFXWLO4F",
    "us-east-1": "Z26RNL4JYFTOTI",
    "us-west-2": "Z18D5FSROUN65G",
}
"""Route 53 zones of Network Load Balancers, from AWS's "Elastic Load Balancing endpoints and quotas"; the official
provider knows every region's."""


def _get_zone(account: Account, arguments: Object) -> Object:
    route53 = account.client("route53")
    wanted = text(arguments, "zoneId")
    if wanted:
        zone = route53.get_hosted_zone(Id=wanted)["HostedZone"]
    else:
        name, private = text(arguments, "name").rstrip("."), arguments.get("privateZone") is True
        pages = route53.get_paginator("list_hosted_zones").paginate()
        found = [
            zone
            for page in pages
            for zone in page["HostedZones"]
            if zone["Name"].rstrip(".") == name and zone["Config"]["PrivateZone"] == private
        ]
        if len(found) != 1:
            raise ProviderError(
                f"no matching Route 53 Hosted Zone found: {name}"
                if not found
                else f"multiple Route 53 Hosted Zones matched: {name}"
            )
        zone = found[0]
        route53.get_hosted_zone(Id=zone["Id"])
    identifier = zone["Id"].rpartition("/")[2]
    route53.list_tags_for_resource(ResourceType="hostedzone", ResourceId=identifier)
    return {
        "id": identifier,
        "zoneId": identifier,
        "name": zone["Name"].rstrip("."),
        "privateZone": zone["Config"]["PrivateZone"],
    }


def _get_records(account: Account, arguments: Object) -> Object:
    pattern = re.compile(text(arguments, "nameRegex"))
    zone = text(arguments, "zoneId")
    pages = account.client("route53").get_paginator("list_resource_record_sets").paginate(HostedZoneId=zone)
    records = [
        {"name": record["Name"], "type": record["Type"]}
        for page in pages
        for record in page["ResourceRecordSets"]
        if pattern.search(record["Name"])
    ]
    return {"id": zone, "zoneId": zone, "resourceRecordSets": list(records)}


def _get_load_balancer(account: Account, arguments: Object) -> Object:
    elb = account.client("elbv2")
    arn = text(arguments, "arn")
    (balancer,) = elb.describe_load_balancers(LoadBalancerArns=[arn])["LoadBalancers"]
    elb.describe_load_balancer_attributes(LoadBalancerArn=arn)
    elb.describe_tags(ResourceArns=[arn])
    return {
        "id": arn,
        "arn": arn,
        "dnsName": balancer["DNSName"],
        "zoneId": balancer["CanonicalHostedZoneId"],
        "loadBalancerType": balancer["Type"],
        "ipAddressType": balancer["IpAddressType"],
    }


def _get_hosted_zone_id(account: Account, _arguments: Object) -> Object:
    zone = NLB_ZONES.get(account.region)
    if zone is None:
        raise ProviderError(f"the stand-in knows no hosted zone of region {account.region}")
    return {"id": zone, "region": account.region}


def _get_subnet(account: Account, arguments: Object) -> Object:
    identifier = text(arguments, "id")
    (subnet,) = account.client("ec2").describe_subnets(SubnetIds=[identifier])["Subnets"]
    return {
        "id": identifier,
        "vpcId": subnet["VpcId"],
        "availabilityZone": subnet["AvailabilityZone"],
        "cidrBlock": subnet["CidrBlock"],
    }


FUNCTIONS: Mapping[str, Callable[[Account, Object], Object]] = {
    "aws:route53/getZone:getZone": _get_zone,
    "aws:route53/getRecords:getRecords": _get_records,
    "aws:lb/getLoadBalancer:getLoadBalancer": _get_load_balancer,
    "aws:lb/getHostedZoneId:getHostedZoneId": _get_hosted_zone_id,
    "aws:ec2/getSubnet:getSubnet": _get_subnet,
}
