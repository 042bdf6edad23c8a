"""A Pulumi program whose objects are files: small, real, and slow on demand. The tests copy it as `__main__.py`."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pulumi
from pulumi.dynamic import CreateResult, DiffResult, ReadResult, Resource, ResourceProvider, UpdateResult

Props = dict[str, Any]


def _write(props: Props) -> None:
    shown = {key: props[key] for key in ("content", "secret") if key in props}
    Path(props["path"]).write_text(json.dumps(shown))


class FileProvider(ResourceProvider):
    """Creates, updates, reads and deletes files."""

    def create(self, props: Props) -> CreateResult:
        Path(props["path"] + ".creating").touch()
        time.sleep(float(props["seconds"]))
        _write(props)
        return CreateResult(props["path"], props)

    def update(self, _id: str, _olds: Props, props: Props) -> UpdateResult:
        _write(props)
        return UpdateResult(props)

    def diff(self, _id: str, olds: Props, news: Props) -> DiffResult:
        changed = [key for key in news if not key.startswith("__") and olds.get(key) != news[key]]
        return DiffResult(changes=bool(changed), replaces=[key for key in changed if key == "path"])

    def read(self, id_: str, props: Props) -> ReadResult:
        if not Path(id_).exists():
            return ReadResult("", {})
        return ReadResult(id_, {**props, **json.loads(Path(id_).read_text())})

    def delete(self, id_: str, _props: Props) -> None:
        Path(id_).unlink(missing_ok=True)


class File(Resource):
    """A file."""

    def __init__(self, name: str, props: Props, opts: pulumi.ResourceOptions) -> None:
        super().__init__(FileProvider(), name, props, opts)


class Folder(pulumi.ComponentResource):
    """A component with two files, one behind the other."""

    def __init__(self, name: str) -> None:
        super().__init__("meshbridge:index:Folder", name)
        config = pulumi.Config()
        base = {"seconds": config.get("seconds") or "0"}
        path = f"{Path.cwd()}/{pulumi.get_stack()}-first"
        secret = config.get_secret("secret")
        first = File(
            f"{name}-first",
            {**base, "path": path, "content": config.require("content"), "secret": secret},
            pulumi.ResourceOptions(parent=self),
        )
        second = {"seconds": "0", "path": path.replace("first", "second"), "content": "second"}
        File(f"{name}-second", second, pulumi.ResourceOptions(parent=self, depends_on=[first]))
        self.register_outputs({})


if __name__ == "__main__":
    source = pulumi.Config().get_object("source")
    if source is not None:
        pulumi.StackReference(source["stack"])
    Folder("folder")
    pulumi.export("target", "context files")
