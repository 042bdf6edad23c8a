"""`python -m tests.broker.credentials.table` writes docs/credentials.md from the cases and from the protocols' table."""

from __future__ import annotations

import json
from pathlib import Path

from broker.credentials import REFUSED_BY_DEFAULT, Code
from broker.credentials.findings import REMEDIES
from broker.credentials.protocols import PROTOCOLS
from tests.broker.credentials.cases import SECTIONS, Case, Credentials

FILE = Path(__file__).parents[3] / "docs" / "credentials.md"

HEAD = """# Adapted credentials

A binding's credentials name the service where its provider reaches it. The client reaches it at a local address, so each
endpoint of `endpoint_mappings` that the credentials state, in whichever form, is replaced by its target:

```json
{"credentials": {"host": "my-cf-service", "port": 1234, "uri": "http://my-cf-service:1234"},
 "endpoint_mappings": [{"source": {"host": "my-cf-service", "port": 1234},
                        "target": {"host": "my-k8s-service", "port": 6789}}]}
```

becomes

```json
{"credentials": {"host": "my-k8s-service", "port": 6789, "uri": "http://my-k8s-service:6789"},
 "endpoints": [{"host": "my-k8s-service", "port": 6789}]}
```

Written by `python -m tests.broker.credentials.table`; every row below is a test.

## Rules

- An endpoint is a host *and* a port. Both must be the mapping's source: as members side by side, in a URL's authority, or in
  one of the forms below. A port that a URL leaves out is its scheme's default.
- All mappings apply at once, in any order: a→b and b→c never make c of a. No mappings, or two targets for one source, is an
  error (400).
- A port keeps its type. Whatever is no endpoint keeps its bytes: nothing is decoded and encoded again, members keep their
  order.
- Hosts are compared without regard to letter case, a trailing dot, or the spelling of IPv6.
- Secrets (by the member's or parameter's name, and user info) and names (user, database, …) are never read.
- A member is a host or a port by the words of its name: `host`, `hostname`, `hosts`, `nodes`, `endpoints`, `end_points`,
  `servers`, `brokers`, `address`, … and `port`, `ports`, with any prefix (`read_host`, `dbPort`, `PGHOST`). A URL or a keyword
  string is read under any name.
- A URL's query holds an endpoint in PostgreSQL (`host`, `hostaddr`, `port`, as libpq reads them; also `PGHOST`, `PGPORT`) and SQL
  Server (`serverName`, `server`, `portNumber`, `port`); no other parameter is an endpoint.
- What cannot be stated is left as it is, and a finding says so. A host and its (main) port
  change together or not at all.

Adapting back, with source and target exchanged, gives the original when no target occurs in the original, no two sources share a
target, the mapping spells its hosts as the credentials do, and no finding is `conflict`, `host-shared`, `endpoint-not-mapped` or
`port-not-stated`. One difference remains: a default port that was left out and had to be written stays written.
Adapting twice changes nothing more when no target is a source.

## Findings

The answer's metadata lists what the client may trip over, each with code, path, message and remedy; no value of the
credentials is in it. The policy refuses a binding for the codes that the setting `refuse` names (by default those marked),
and passes the others.

| Code | Refused by default | Remedy |
|---|---|---|
"""

PROTOCOLS_HEAD = """
## Protocols

| Protocol | URL schemes and the ports that they leave out |
|---|---|
"""

EXPLAINED = """
Before a scheme, `jdbc:` and names of drivers' modes may stand (`jdbc:mysql:loadbalance:`), behind it a driver's name
(`postgresql+asyncpg`). A scheme with `+srv` names DNS records, not endpoints.

The certificate's name counts as checked (`tls-name`) for `amqps`, `rediss`, `https`, `wss`, `sasl_ssl` and `sqlserver` URLs, and with
`sslmode=verify-full` or `VERIFY_IDENTITY` (in any client's spelling), `sslrootcert=system`, `ssl=true`, `tls=true`,
`encrypt=true`, `security.protocol=SSL` or `SASL_SSL`; in a URL, a keyword string or the members around it, an object `ssl` or `tls` among them. It does not when
an option turns the check off (`verify=verify_none`, `ssl_cert_reqs=none`, `ssl_check_hostname=false`, `tlsAllowInvalidHostnames`,
`tlsInsecure`, `rejectUnauthorized=false`, `trustServerCertificate`, `encrypt=false`, `ssl.endpoint.identification.algorithm=` …), another `sslmode` is said, or the
name is stated apart (`hostaddr` beside `host`, `server_name_indication`, `tls_server_name`, `sni`, `hostNameInCertificate`, `sslHost`).
"""


def text() -> str:
    """The file as it should stand."""
    findings = [
        f"| `{code}` | {'yes' if code in REFUSED_BY_DEFAULT else ''} | {REMEDIES[code]} |\n" for code in Code
    ]
    protocols = [
        f"| {protocol.name} | {', '.join(f'`{name}` {port}' for name, port in protocol.schemes.items())} |\n"
        for protocol in PROTOCOLS
    ]
    sections = [
        f"\n## {title}\n\n| | Mapped | Credentials | Adapted | Findings |\n|---|---|---|---|---|\n{''.join(map(_row, cases))}"
        for title, cases in SECTIONS.items()
    ]
    return "".join([HEAD, *findings, PROTOCOLS_HEAD, *protocols, EXPLAINED, *sections])


def _row(case: Case) -> str:
    mapped = "<br>".join(f"`{line.replace(' ', ' → ')}`" for line in case.mappings.splitlines())
    findings = "<br>".join(f"`{code}` {path.partition('.')[2] or path}" for code, path in case.findings)
    adapted = _code(case.adapted) if case.adapted is not None else "as it was"
    return f"| {case.says} | {mapped} | {_code(case.credentials)} | {adapted} | {findings} |\n"


def _code(credentials: Credentials) -> str:
    members = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in credentials.items())
    return "<br>".join(f"`{member}`" for member in members)


if __name__ == "__main__":
    FILE.write_text(text())
