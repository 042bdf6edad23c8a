"""The account that the stand-in works on: clients of a moto server."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

import boto3

from lab.providers.errors import ProviderError

ENDPOINT: Final = "AWS_ENDPOINT_URL"
"""Variable that names the server, for AWS's own tools too."""

ITSELF: Final = "stand-in"
"""Access key of the calls that AWS makes itself, where moto leaves a check out."""


class Account:
    """Clients for one region, with the environment's access key. `quiet` ones make the calls that are no deployer's, with
    a key of their own by which the server can tell."""

    def __init__(self, region: str, environment: Mapping[str, str] | None = None) -> None:
        variables = os.environ if environment is None else environment
        self._endpoint = _on_this_machine(variables.get(ENDPOINT, ""))
        self._region = region
        self._key = variables.get("AWS_ACCESS_KEY_ID") or ITSELF
        self._clients: dict[tuple[str, bool], Any] = {}

    def client(self, service: str, *, quiet: bool = False) -> Any:
        """The client of `ec2`, `elbv2`, `route53` or `sts`."""
        key = service, quiet
        if key not in self._clients:
            self._clients[key] = boto3.client(
                service,
                region_name=self._region,
                endpoint_url=self._endpoint,
                aws_access_key_id=ITSELF if quiet else self._key,
                aws_secret_access_key="stand-in",  # noqa: S106 - moto checks no signature
            )
        return self._clients[key]

    @property
    def region(self) -> str:
        """The region."""
        return self._region


def _on_this_machine(endpoint: str) -> str:
    host = urlsplit(endpoint).hostname or ""
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = False
    if not loopback:
        raise ProviderError(
            f"the AWS provider in use is Meshbridge's stand-in, which speaks only to a moto server on this machine, and "
            f"{ENDPOINT} is {endpoint!r}; install the official plugin (`pulumi plugin install resource aws`) to deploy to "
            "AWS"
        )
    return endpoint
