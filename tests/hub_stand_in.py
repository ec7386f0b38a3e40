"""The Hugging Face Hub's HTTP API on 127.0.0.1, as far as publishing and fetching a model need it.

It keeps what was committed, stores large files by LFS, and refuses what the Hub refuses, with its status codes and
headers; huggingface_hub talks to it as it does to the Hub.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from huggingface_hub import constants

LFS = (".safetensors", ".png")
LICENSES = ("apache-2.0", "mit", "cc-by-4.0", "other", "unknown")  # of those the Hub knows, what the tests use


@dataclass
class Repo:
    """A repository: files by path at each commit, the newest last."""

    private: bool
    commits: list[tuple[str, dict[str, bytes]]] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)

    def at(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if revision == "main":
            return self.commits[-1]
        return next((one for one in self.commits if one[0] == revision), None)

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[-1][1]

    def commit(self, files: dict[str, bytes], message: str) -> str:
        oid = hashlib.sha1(f"{len(self.commits)} {message}".encode()).hexdigest()
        self.commits.append((oid, files))
        self.messages.append(message)
        return oid


@dataclass
class Hub:
    """What the server knows. `owners` maps tokens to the names that they may write under."""

    owners: dict[str, str] = field(default_factory=lambda: {"hf_mine": "me"})
    repos: dict[str, Repo] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    before_commit: Any = None  # called once, before a commit is looked at: somebody else at the same time
    url: str = ""

    def create(self, name: str, private: bool) -> Repo:
        repo = self.repos[name] = Repo(private)
        repo.commit({".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return repo

    def oid(self, path: str, data: bytes) -> str:
        return hashlib.sha256(data).hexdigest() if path.endswith(LFS) else _git_oid(data)


@contextmanager
def serving(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def point_at(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have the Hub's client speak to a server at `url`."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", url + "/{repo_id}/resolve/{revision}/{filename}")


def _git_oid(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _problems(card: str) -> list[str]:
    """What the Hub finds wrong with a card's metadata."""
    found = re.match(r"---\n(.*?)\n---\n", card, re.DOTALL)
    try:
        metadata = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError as error:
        return [f"bad YAML: {error}"]
    if not isinstance(metadata, dict):
        return ["no metadata"]
    problems = []
    if metadata.get("license", "unknown") not in LICENSES:
        problems.append('"license" must be one of [apache-2.0, mit, …]')
    if metadata.get("license") == "other" and not metadata.get("license_name"):
        problems.append('"license_name" is required')
    for key in ("tags", "datasets", "metrics"):
        values = metadata.get(key, [])
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            problems.append(f'"{key}" must be an array of strings')
    for model in metadata.get("model-index", []):
        for result in model["results"]:
            if not (result["task"]["type"] and result["dataset"]["type"] and result["dataset"]["name"]):
                problems.append("model-index lacks task or dataset")
            if not all({"type", "value"} <= set(metric) for metric in result["metrics"]):
                problems.append("model-index lacks a metric's type or value")
    return problems


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            """Quiet."""

        # -- who may what ------------------------------------------------------------------------------------------

        @property
        def token(self) -> str | None:
            value = self.headers.get("authorization", "")
            return value.removeprefix("Bearer ") if value.startswith("Bearer ") else None

        def is_known(self) -> bool:
            if self.token in hub.owners:
                return True
            self.refuse(401, "Invalid credentials in Authorization header")
            return False

        def may_read(self, name: str) -> Repo | None:
            """The repository; None, with an answer given, if there is none for this token."""
            if self.token is not None and not self.is_known():
                return None
            repo = hub.repos.get(name)
            mine = hub.owners.get(self.token or "") == name.split("/", maxsplit=1)[0]
            if repo is None or (repo.private and not mine):
                self.refuse(404 if self.token else 401, "Repository not found", "RepoNotFound")
                return None
            return repo

        def may_write(self, name: str) -> bool:
            if not self.is_known():
                return False
            owner = name.split("/", maxsplit=1)[0]
            if hub.owners[self.token or ""] != owner:
                self.refuse(403, f"You don't have the rights to create a model under the namespace {owner!r}")
                return False
            return True

        # -- answering ---------------------------------------------------------------------------------------------

        def body(self) -> bytes:
            if self.headers.get("transfer-encoding") == "chunked":
                parts = []
                while size := int(self.rfile.readline(), 16):
                    parts.append(self.rfile.read(size))
                    self.rfile.readline()
                self.rfile.readline()
                return b"".join(parts)
            return self.rfile.read(int(self.headers.get("content-length", 0)))

        def send(self, status: int, data: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            if "Content-Length" not in headers:
                headers["Content-Length"] = str(len(data))
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def answer(self, value: Any, status: int = 200) -> None:
            self.send(status, json.dumps(value).encode(), Content_Type="application/json")

        def refuse(self, status: int, message: str, code: str = "") -> None:
            headers = {"X_Error_Message": message, **({"X_Error_Code": code} if code else {})}
            self.send(status, json.dumps({"error": message}).encode(), Content_Type="application/json", **headers)

        # -- routes ------------------------------------------------------------------------------------------------

        def route(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            body = self.body()
            for method, pattern, work in ROUTES:
                found = re.fullmatch(pattern, path)
                if found and self.command in method.split():
                    work(self, body, *found.groups())
                    return
            self.refuse(404, "Not found")

        do_GET = do_HEAD = do_POST = do_PUT = route  # noqa: N815  (the names that http.server asks for)

        def create(self, body: bytes) -> None:
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            if not self.may_write(name):
                return
            if name in hub.repos:
                self.refuse(409, "You already created this model repo")
                return
            hub.create(name, asked.get("private", asked.get("visibility") == "private"))
            self.answer({"url": f"{hub.url}/{name}", "name": name, "id": name})

        def whoami(self, _: bytes) -> None:
            if self.is_known():
                self.answer({"type": "user", "name": hub.owners[self.token or ""]})

        def info(self, _: bytes, name: str, revision: str | None = None) -> None:
            repo = self.may_read(name)
            if repo is None:
                return
            found = repo.at(revision or "main")
            if found is None:
                self.refuse(404, "Invalid rev id", "RevisionNotFound")
                return
            siblings = [{"rfilename": path} for path in sorted(found[1])]
            self.answer({"id": name, "modelId": name, "sha": found[0], "private": repo.private, "siblings": siblings})

        def tree(self, _: bytes, name: str, revision: str) -> None:
            repo = self.may_read(name)
            found = repo.at(revision) if repo else None
            if found is None:
                return
            entries = []
            for path, data in sorted(found[1].items()):
                entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": _git_oid(data)}
                if path.endswith(LFS):
                    entry["lfs"] = {"oid": hub.oid(path, data), "size": len(data), "pointerSize": 130}
                entries.append(entry)
            self.answer(entries)

        def validate(self, body: bytes) -> None:
            problems = _problems(json.loads(body)["content"])
            self.answer({"errors": [{"message": one} for one in problems], "warnings": []}, 400 if problems else 200)

        def preupload(self, body: bytes, name: str, _: str) -> None:
            if not self.may_write(name):
                return
            there = hub.repos[name].files
            self.answer(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if file["path"].endswith(LFS) else "regular",
                            "shouldIgnore": False,
                            **({"oid": hub.oid(file["path"], there[file["path"]])} if file["path"] in there else {}),
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )

        def batch(self, body: bytes, name: str) -> None:
            if not self.may_write(name):
                return
            objects = [
                {
                    "oid": one["oid"],
                    "size": one["size"],
                    **(
                        {}
                        if one["oid"] in hub.large
                        else {
                            "actions": {
                                "upload": {"href": f"{hub.url}/lfs/{one['oid']}", "header": {}},
                                "verify": {"href": f"{hub.url}/lfs-verify", "header": {}},
                            }
                        }
                    ),
                }
                for one in json.loads(body)["objects"]
            ]
            self.answer({"transfer": "basic", "objects": objects})

        def upload(self, body: bytes, oid: str) -> None:
            if hashlib.sha256(body).hexdigest() != oid:
                self.refuse(400, "the content has another hash")
                return
            hub.large[oid] = body
            self.send(200)

        def verify(self, body: bytes) -> None:
            asked = json.loads(body)
            there = len(hub.large.get(asked["oid"], b"")) == asked["size"]
            self.send(200) if there else self.refuse(404, "there is no such object")

        def commit(self, body: bytes, name: str, _: str) -> None:
            if not self.may_write(name):
                return
            if hub.before_commit is not None:
                hub.before_commit()
                hub.before_commit = None
            repo = hub.repos[name]
            files, message = dict(repo.files), ""
            for line in body.splitlines():
                operation = json.loads(line)
                value = operation["value"]
                if operation["key"] == "header":
                    message = value["summary"]
                    if value.get("parentCommit", repo.commits[-1][0]) != repo.commits[-1][0]:
                        self.refuse(412, "A commit has happened since. Please refresh and try again.")
                        return
                elif operation["key"] == "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                elif operation["key"] == "lfsFile":
                    files[value["path"]] = hub.large[value["oid"]]
                elif operation["key"] == "deletedFile":
                    del files[value["path"]]
            oid = repo.commit(files, message)
            self.answer({"success": True, "commitOid": oid, "commitUrl": f"{hub.url}/{name}/commit/{oid}"})

        def resolve(self, _: bytes, name: str, revision: str, path: str) -> None:
            repo = self.may_read(name)
            found = repo.at(revision) if repo else None
            if found is None:
                return
            oid, files = found
            if path not in files:
                self.refuse(404, "Entry not found", "EntryNotFound")
                return
            data = files[path]
            headers = {"X_Repo_Commit": oid, "ETag": f'"{hub.oid(path, data)}"', "Content_Length": str(len(data))}
            if not path.endswith(LFS):
                self.send(200, data, **headers)
                return
            linked = {"X_Linked_Etag": headers["ETag"], "X_Linked_Size": str(len(data))}
            elsewhere = hub.url.replace("127.0.0.1", "localhost")  # large files come from another host
            location = f"{elsewhere}/cdn/{hub.oid(path, data)}"
            self.send(302, X_Repo_Commit=oid, ETag='"pointer"', Location=location, Content_Length="0", **linked)

        def cdn(self, _: bytes, oid: str) -> None:
            if self.token is not None:
                self.refuse(400, "tokens are not for other hosts")
                return
            self.send(200, hub.large[oid], ETag=f'"{oid}"', Content_Length=str(len(hub.large[oid])))

    name = r"([^/]+/[^/]+)"
    ROUTES = (
        ("POST", "/api/repos/create", Handler.create),
        ("GET", "/api/whoami-v2", Handler.whoami),
        ("POST", "/api/validate-yaml", Handler.validate),
        ("POST", rf"/api/models/{name}/preupload/([^/]+)", Handler.preupload),
        ("POST", rf"/api/models/{name}/commit/([^/]+)", Handler.commit),
        ("GET", rf"/api/models/{name}/tree/([^/]+)", Handler.tree),
        ("GET", rf"/api/models/{name}/revision/([^/]+)", Handler.info),
        ("GET", rf"/api/models/{name}", Handler.info),
        ("POST", rf"/{name}\.git/info/lfs/objects/batch", Handler.batch),
        ("PUT", "/lfs/([0-9a-f]+)", Handler.upload),
        ("POST", "/lfs-verify", Handler.verify),
        ("GET HEAD", rf"/{name}/resolve/([^/]+)/(.+)", Handler.resolve),
        ("GET HEAD", "/cdn/([0-9a-f]+)", Handler.cdn),
    )
    return Handler
