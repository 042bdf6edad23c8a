"""Thin resources of AWS, with the type tokens and property names of Pulumi's AWS provider.

`pulumi_aws` itself is no dependency of the program: the engine's language host reports every installed provider package
as needed, so each stack would download that provider's plugin (hundreds of MB), AWS or not; the package alone takes
270 MB, and importing its modules for load balancers, EC2 and Route 53 0.7 s of CPU. A stack that uses these classes says by itself which version of the plugin it needs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pulumi

from components.resources import owner
from config import Aws
from config.edge import OWNER_TAGS

PLUGIN_VERSION = "7.51.1"
"""Version of Pulumi's AWS provider whose schema these classes follow."""

NAME_LIMIT = 32
"""Characters that AWS allows in the name of a load balancer or target group."""

RANDOM_SUFFIX = 8
"""Characters that the provider appends to a resource's name to make its own name unique."""


class Account(pulumi.ProviderResource):
    """The AWS provider of a stack: one region of one account."""

    def __init__(self, name: str, config: Aws) -> None:
        inputs = {
            "region": config.region,
            "profile": config.profile,
            "allowedAccountIds": json.dumps([config.account]) if config.account is not None else None,
        }
        super().__init__("aws", name, inputs, pulumi.ResourceOptions(version=PLUGIN_VERSION))
        self._tags = {**config.tags, **dict(zip(OWNER_TAGS, ("meshbridge", owner()), strict=True))}

    def tags(self, name: str) -> dict[str, str]:
        """The tags of what the stack makes: its name for a person, its owner, and the configuration's."""
        return {"Name": name, **self._tags}

    def look_up(
        self, token: str, arguments: Mapping[str, pulumi.Input[Any]]
    ) -> pulumi.Output[Mapping[str, Any]]:
        """What a function of the provider returns; also in a preview, where the arguments are known."""
        options = pulumi.InvokeOutputOptions(provider=self, version=PLUGIN_VERSION)
        return pulumi.runtime.invoke_output(token, dict(arguments), options)


class AwsResource(pulumi.CustomResource):
    """A resource of the AWS provider. `outputs` are the properties that only AWS knows."""

    token: ClassVar[str]
    outputs: ClassVar[tuple[str, ...]]

    def __init_subclass__(cls, token: str, outputs: Sequence[str] = ()) -> None:
        cls.token, cls.outputs = token, tuple(outputs)

    def __init__(
        self, name: str, inputs: Mapping[str, pulumi.Input[Any]], opts: pulumi.ResourceOptions
    ) -> None:
        given = {key: value for key, value in inputs.items() if value is not None}
        opts = pulumi.ResourceOptions.merge(opts, pulumi.ResourceOptions(version=PLUGIN_VERSION))
        super().__init__(self.token, name, {**given, **dict.fromkeys(self.outputs)}, opts)

    def known(self, output: str) -> pulumi.Output[str]:
        """One of `outputs`. Raises AttributeError for another name."""
        value: pulumi.Output[str] = getattr(self, output)
        return value


class LoadBalancer(
    AwsResource, token="aws:lb/loadBalancer:LoadBalancer", outputs=("arn", "dnsName", "zoneId")
):
    """A load balancer."""


class TargetGroup(AwsResource, token="aws:lb/targetGroup:TargetGroup", outputs=("arn",)):
    """Where a load balancer sends connections."""


class Listener(AwsResource, token="aws:lb/listener:Listener"):
    """A port of a load balancer."""


class SecurityGroup(AwsResource, token="aws:ec2/securityGroup:SecurityGroup"):
    """The firewall of a load balancer."""


class IngressRule(AwsResource, token="aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule"):
    """Who may connect."""


class EgressRule(AwsResource, token="aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule"):
    """Where connections may go."""


class ElasticIp(AwsResource, token="aws:ec2/eip:Eip"):
    """A fixed public address."""


class Record(AwsResource, token="aws:route53/record:Record"):
    """A record set of a Route 53 hosted zone."""
