"""What other projects document of the objects that we write for them: `data/facts.json`, and where it comes from.

Facts alone are kept: names, types, and which values are allowed; nothing of the pages' text. To renew them, after
reading what changed: `python -m tests.routing.facts CLONES`, where CLONES holds a clone `OWNER+NAME` of each repository
in SOURCES (or a bare one, `OWNER+NAME/repo`).
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).parent / "data" / "facts.json"
ANNOTATIONS = "annotations"
SOURCES = {
    ANNOTATIONS: ("kubernetes-sigs/aws-load-balancer-controller", "docs/guide/service/annotations.md"),
    "TargetGroupBinding": (
        "kubernetes-sigs/aws-load-balancer-controller",
        "config/crd/bases/elbv2.k8s.aws_targetgroupbindings.yaml",
    ),
    "DNSEndpoint": (
        "kubernetes-sigs/external-dns",
        "config/crd/standard/dnsendpoints.externaldns.k8s.io.yaml",
    ),
    "Certificate": ("cert-manager/cert-manager", "deploy/crds/cert-manager.io_certificates.yaml"),
}
"""Repository and path of each page."""

USED = {
    "TargetGroupBinding": ("targetGroupARN", "targetType", "serviceRef", "networking"),
    "DNSEndpoint": ("endpoints",),
    "Certificate": (
        "secretName",
        "dnsNames",
        "usages",
        "duration",
        "renewBefore",
        "privateKey",
        "issuerRef",
    ),
}
"""Fields of a kind's spec that are kept; those below them are kept whole."""

KEPT = ("type", "enum", "required", "minimum", "maximum", "minItems", "x-kubernetes-int-or-string")
ROW = re.compile(
    r"^\| \[(?P<name>[\w./-]+) ?\]\(#[^)]*\) *\| (?P<type>(?:\\\||[^|])*?) *\| (?P<default>[^|]*?) *\|", re.M
)
PREFIX = "service.beta.kubernetes.io/"
TEXT_OF_VALUES = {
    "aws-load-balancer-nlb-target-type": r"You can choose between\s+`(\w+)` and `(\w+)`",
    "aws-load-balancer-scheme": r"Valid values are `([\w-]+)`, `([\w-]+)`",
    "aws-load-balancer-ip-address-type": r"ip-address-type\]\(#ip-address-type\)[^\n]*\| (\w+) \\\| (\w+) ",
    "aws-load-balancer-healthcheck-protocol": r"you can specify `(\w+)`, or `(\w+)` or `(\w+)`",
}
"""Where the page lists the values of an annotation that takes no others."""

IN_EXAMPLES = re.compile(
    r"^\s*service\.beta\.kubernetes\.io/aws-load-balancer-(?:target-group-)?attributes(?:\.\d+)?: (.*)$", re.M
)


def facts() -> dict[str, Any]:
    """The facts by page: `commit`, `sha256`, and `annotations` or `schema`."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def violations(schema: Mapping[str, Any], value: Any, path: str = "") -> Iterator[str]:
    """What of a value contradicts a schema as Kubernetes reads it: a field that is not there is one that is pruned."""
    kinds: dict[str, tuple[Any, ...]] = {
        "object": (dict,),
        "array": (list, tuple),
        "string": (str,),
        "integer": (int,),
        "boolean": (bool,),
    }
    if schema.get("x-kubernetes-int-or-string"):
        if not isinstance(value, (int, str)):
            yield f"{path}: {value!r} is neither a number nor a text"
        return
    kind = schema["type"]
    if not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool)):
        yield f"{path}: {value!r} is no {kind}"
        return
    if "enum" in schema and value not in schema["enum"]:
        yield f"{path}: {value!r} is none of {schema['enum']}"
    if kind == "integer" and not schema.get("minimum", value) <= value <= schema.get("maximum", value):
        yield f"{path}: {value!r} is out of range"
    if kind == "array":
        if len(value) < schema.get("minItems", 0):
            yield f"{path}: has fewer than {schema['minItems']} items"
        for index, item in enumerate(value):
            yield from violations(schema["items"], item, f"{path}[{index}]")
    if kind == "object":
        yield from (f"{path}.{key}: is missing" for key in schema.get("required", ()) if key not in value)
        for key, item in value.items():
            below = schema.get("properties", {}).get(key, schema.get("additionalProperties"))
            if below is None:
                yield f"{path}.{key}: is no field"
            else:
                yield from violations(below, item, f"{path}.{key}")


def _reduced(schema: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: schema[key] for key in KEPT if key in schema}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            kept[key] = _reduced(schema[key])
    if "properties" in schema:
        kept["properties"] = {name: _reduced(below) for name, below in schema["properties"].items()}
    return kept


def _spec(page: str, kind: str) -> dict[str, Any]:
    stored = next(v for v in yaml.safe_load(page)["spec"]["versions"] if v["storage"])
    spec = _reduced(stored["schema"]["openAPIV3Schema"]["properties"]["spec"])
    spec["properties"] = {name: spec["properties"][name] for name in USED[kind]}
    spec["required"] = [name for name in spec.get("required", ()) if name in USED[kind]]
    return {"apiVersion": stored["name"], "spec": spec}


def _annotations(page: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in ROW.finditer(page):
        name = row["name"].removeprefix(PREFIX)
        found[name] = {"type": row["type"].replace("\\|", "|").strip(), "default": row["default"].strip()}
        if name in TEXT_OF_VALUES:
            listed = re.search(TEXT_OF_VALUES[name], page)
            if listed is None:
                raise ValueError(f"the page does not list the values of {name} as it did")
            found[name]["values"] = sorted(listed.groups())
    return found


def _attributes(page: str) -> list[str]:
    """Names of the attributes in the page's examples."""
    pairs = (pair for match in IN_EXAMPLES.finditer(page) for pair in match[1].split(","))
    return sorted({pair.partition("=")[0].strip() for pair in pairs})


def _renew(clones: Path) -> None:
    found: dict[str, Any] = {}
    for name, (repository, path) in SOURCES.items():
        clone = clones / repository.replace("/", "+")
        bare = clone / "repo"
        git = ["git", "-C", str(bare if bare.is_dir() else clone)]
        page = subprocess.run([*git, "show", f"HEAD:{path}"], check=True, capture_output=True).stdout
        commit = subprocess.run(
            [*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True
        ).stdout
        text = page.decode()
        read = (
            {"annotations": _annotations(text), "attributes": _attributes(text)}
            if name == ANNOTATIONS
            else _spec(text, name)
        )
        found[name] = {
            "repository": repository,
            "path": path,
            "commit": commit.strip(),
            "sha256": hashlib.sha256(page).hexdigest(),
            **read,
        }
    FILE.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    _renew(Path(sys.argv[1]))
