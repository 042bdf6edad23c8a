"""Whether a certificate, its key and what it trusts will work at a gateway, told before anything is deployed.

Nothing here reads files or knows the engine; importing it imports `cryptography`, so importers do it where it is needed.
"""

from certificates.checks import CHECKS, check, check_trust, own_authority
from certificates.material import Expectation, Material, Problem, Severity, Usage
from certificates.mesh import MESH_CA_KEY, MESH_KEYS, check_mesh
from certificates.pem import fingerprints

__all__ = [
    "CHECKS",
    "MESH_CA_KEY",
    "MESH_KEYS",
    "Expectation",
    "Material",
    "Problem",
    "Severity",
    "Usage",
    "check",
    "check_mesh",
    "check_trust",
    "fingerprints",
    "own_authority",
]
