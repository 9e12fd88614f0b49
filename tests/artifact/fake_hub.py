"""A server that answers what ``huggingface_hub`` asks of the Hub, in a thread and in memory."""

import hashlib
import json
import threading
from base64 import b64decode
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

import pytest
from huggingface_hub import constants

from noumena.artifact import hub

TOKEN = "hf_of_the_owner"


@dataclass
class Repo:
    private: bool
    branches: dict = field(default_factory=dict)  # name to commit
    commits: dict = field(default_factory=dict)  # commit to files by path
    messages: list = field(default_factory=list)

    def add(self, branch, files, message):
        files = {**self.commits.get(self.branches.get(branch), {}), **files}
        commit = hashlib.sha1(repr((branch, len(self.commits), sorted(files.items()))).encode()).hexdigest()
        self.commits[commit] = files
        self.branches[branch] = commit
        self.messages.append(message)
        return commit


class FakeHub:
    """Attributes: ``repos`` by name, ``requests`` as (method, path), ``trouble`` a status to answer everything with."""

    def __init__(self):
        self.repos, self.objects, self.requests, self.trouble = {}, {}, [], None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def files(self, repo, revision="main"):
        return self.repos[repo].commits[self.repos[repo].branches.get(revision, revision)]

    def downloads(self):
        return sorted(
            path.rpartition("/")[2] for method, path in self.requests if method == "GET" and "/resolve/" in path
        )


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._serve()

    def do_HEAD(self):
        self._serve()

    def do_POST(self):
        self._serve()

    def do_PUT(self):
        self._serve()

    def _serve(self):
        path = urlsplit(self.path).path
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.hub.requests.append((self.command, unquote(path)))
        parts = [unquote(part) for part in path.strip("/").split("/")]
        self.knows = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if self.hub.trouble:
            self._answer({"error": "trouble"}, self.hub.trouble)
        elif self.headers.get("Authorization") and not self.knows:
            self._answer({"error": "no"}, 401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        elif parts[:2] == ["api", "validate-yaml"]:
            self._answer({"errors": [], "warnings": []})
        elif parts == ["api", "repos", "create"]:
            self._create(json.loads(body))
        elif parts[0] == "lfs":
            self.hub.objects[parts[1]] = body
            self._answer({})
        else:
            self._of_a_repo(parts, body)

    def _create(self, asked):
        name = f"{asked['organization']}/{asked['name']}"
        if not self.knows:
            return self._answer({"error": "no"}, 401)
        url = {"url": f"{self.hub.url}/{name}"}
        if name in self.hub.repos:
            return self._answer(url, 409)
        self.hub.repos[name] = Repo(asked.get("visibility") == "private" or asked.get("private", False))
        self.hub.repos[name].add("main", {".gitattributes": b"*.safetensors filter=lfs\n"}, "initial commit")
        return self._answer(url)

    def _of_a_repo(self, parts, body):
        api = parts[:2] == ["api", "models"]
        owner, name, *rest = parts[2:] if api else parts
        name = name.removesuffix(".git")
        repo = self.hub.repos.get(f"{owner}/{name}")
        if repo is None or (repo.private and not self.knows):
            return self._answer({"error": "Repository not found"}, 404 if self.knows else 401, _code("RepoNotFound"))
        if self.command in ("POST", "PUT"):
            return self._write(f"{owner}/{name}", repo, rest, body)
        revision = rest[1] if len(rest) > 1 else "main"
        commit = repo.branches.get(revision, revision)
        if commit not in repo.commits:
            return self._answer({"error": "Invalid rev id"}, 404, _code("RevisionNotFound"))
        files = repo.commits[commit]
        if rest[:1] == ["resolve"]:
            return self._file(commit, files, "/".join(rest[2:]))
        if rest[:1] == ["tree"]:
            return self._answer([_entry(path, data) for path, data in files.items()])
        known = {"id": f"{owner}/{name}", "sha": commit, "private": repo.private, "tags": [], "downloads": 0}
        return self._answer({**known, "siblings": [{"rfilename": path} for path in files]})

    def _write(self, name, repo, rest, body):
        if not self.knows:
            return self._answer({"error": "no"}, 403)
        if rest[0] == "branch":
            exists = rest[1] in repo.branches
            repo.branches.setdefault(rest[1], repo.branches["main"])
            return self._answer({}, 409 if exists else 200)
        if rest[0] == "preupload":
            files = [
                {
                    "path": path,
                    "uploadMode": "lfs" if path.endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for path in (file["path"] for file in json.loads(body)["files"])
            ]
            return self._answer({"files": files})
        if rest[0] == "info":
            objects = [
                {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}"}}}
                for one in json.loads(body)["objects"]
            ]
            return self._answer({"transfer": "basic", "objects": objects})
        files, message = {}, ""
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            else:
                data = b64decode(value["content"]) if line["key"] == "file" else self.hub.objects[value["oid"]]
                files[value["path"]] = data
        commit = repo.add(rest[1], files, message)
        return self._answer({"commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"})

    def _file(self, commit, files, path):
        if path not in files:
            return self._answer({"error": "Entry not found"}, 404, _code("EntryNotFound"))
        etag = hashlib.sha1(files[path]).hexdigest()
        return self._send(files[path], 200, {"ETag": f'"{etag}"', "X-Repo-Commit": commit})

    def _answer(self, content, status=200, headers=None):
        self._send(json.dumps(content).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _send(self, data, status, headers):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


def _code(word):
    return {"X-Error-Code": word}


def _entry(path, data):
    return {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}


@pytest.fixture
def hub_server(tmp_path, monkeypatch):
    """The server, named by what a user would set; nothing of this machine's own cache or token is looked at."""
    fake = FakeHub()
    monkeypatch.setattr(constants, "ENDPOINT", fake.url)
    template = f"{fake.url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub, "_fetched", {})
    yield fake
    fake.close()
