"""What the broker remembers: the wanted and the observed state of each binding, and who asked for what.

No credentials are stored, not even encrypted: they pass through, and where a platform asks again, the upstream is asked again.
"""

from broker.store.locks import DatabaseInUseError, Locks, open_locks
from broker.store.models import Audit, Binding, ConsumerRoute, Phase, ProviderRoute, Route
from broker.store.store import Store, VersionError

__all__ = [
    "Audit",
    "Binding",
    "ConsumerRoute",
    "DatabaseInUseError",
    "Locks",
    "Phase",
    "ProviderRoute",
    "Route",
    "Store",
    "VersionError",
    "open_locks",
]
