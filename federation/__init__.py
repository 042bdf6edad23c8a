"""How two organisations tell each other who they are without a shared Pulumi backend: the federation bundle.

A bundle is a JSON file with what a provider's stack exports (id, system domain, port, CA, services), an end, a digest
and a signature by the provider's certificate. Its reader pins what it got by another way: the fingerprint of the
provider's CA, or the digest of the very file. `python -m pki bundle` makes, verifies and shows bundles.
"""

from federation.bundle import FORMAT, Bundle, Pins, Signer, create, verify

__all__ = ["FORMAT", "Bundle", "Pins", "Signer", "create", "verify"]
