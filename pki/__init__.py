"""A certificate authority for development and for small federations: create, issue, renew, revoke, rotate.

`CertificateAuthority` is the library, `python -m pki` the command line. Private keys lie in files of mode 600 below a
directory of mode 700, or in a stack's secrets, and nowhere else.
"""

from pki.authority import CertificateAuthority, Issued
from pki.errors import LockedError, PkiError
from pki.index import Kind, Purpose, Reason, Record, RootState, Status
from pki.profile import KeyType

__all__ = [
    "CertificateAuthority",
    "Issued",
    "KeyType",
    "Kind",
    "LockedError",
    "PkiError",
    "Purpose",
    "Reason",
    "Record",
    "RootState",
    "Status",
]
