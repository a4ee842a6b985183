"""Provide a model hub with the Hugging Face protocol for uploads and downloads."""

from __future__ import annotations

import base64
import hashlib
import json
import re

from .faulty import FaultyServer, Reply, Request, as_json

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub(FaultyServer):
    """Keep the files of the last commit of each repository in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.files: dict[str, dict[str, bytes]] = {}

    def answer(self, request: Request) -> Reply:
        if request.path == "/api/repos/create":
            asked = json.loads(request.body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.files.setdefault(name, {})
            return as_json({"url": f"{self.url}{name}", "id": name})
        if request.path == "/api/validate-yaml":
            return as_json({"errors": [], "warnings": []})
        if match := re.match(r"/api/models/([^/]+/[^/]+)(?:/(\w+)/\w+)?$", request.path):
            return self._answer_api(match[1], match[2], request)
        if match := re.match(r"/([^/]+/[^/]+)/resolve/\w+/(.+)$", request.path):
            content = self.files[match[1]][match[2]]
            return Reply(200, content, {"ETag": f'"{_hash(content)}"', "X-Repo-Commit": COMMIT})
        return Reply(404)

    def _answer_api(self, name: str, what: str | None, request: Request) -> Reply:
        if name not in self.files:
            return as_json({"error": "not found"}, 404, **{"X-Error-Code": "RepoNotFound"})
        if what == "preupload":
            paths = [file["path"] for file in json.loads(request.body)["files"]]
            regular = {"uploadMode": "regular", "shouldIgnore": False}
            return as_json({"files": [{"path": path} | regular for path in paths]})
        if what == "commit":
            for line in request.body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    value = entry["value"]
                    self.files[name][value["path"]] = base64.b64decode(value["content"])
            return as_json({"commitUrl": f"{self.url}{name}/commit/{COMMIT}", "commitOid": COMMIT})
        if what == "tree":
            return as_json(
                [
                    {"type": "file", "path": path, "size": len(content), "oid": _hash(content)}
                    for path, content in self.files[name].items()
                ]
            )
        siblings = [{"rfilename": path} for path in self.files[name]]
        return as_json({"id": name, "sha": COMMIT, "siblings": siblings, "private": False})


def _hash(content: bytes) -> str:
    """Return the hash of a file in git, which the hub also uses."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
