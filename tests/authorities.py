"""Certificates of authorities, for stacks that name one."""

from __future__ import annotations

import datetime
from functools import cache

from pki import profile


@cache
def authority(name: str) -> str:
    """PEM of the certificate of an authority, the same one for the same name. It is valid for all the life of the
    tests."""
    start = datetime.datetime(2020, 1, 1, tzinfo=datetime.UTC)
    validity = profile.Validity(start, datetime.timedelta(days=365 * 100))
    made = profile.root(name, profile.new_key(profile.KeyType.EC_P256), validity, 0)
    return profile.pem(made).decode()
