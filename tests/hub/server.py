"""A Hub small enough to read: the routes of huggingface_hub 2.4.0 for model repos and Spaces.

    hub = LocalHub()                          # serves at hub.endpoint until hub.close()
    commit = hub.commit("org/name", {"config.json": b"..."})
    hub.status = 500                          # every answer from now on

What it was asked lies in `hub.requests`; what it holds, in `hub.repos` and `hub.spaces`.
"""

import base64
import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import PurePosixPath
from urllib.parse import parse_qs, unquote, urlsplit

Files = dict[str, bytes]
# What the Hub itself puts into a new Space.
FIRST_FILES: Files = {".gitattributes": b"*.png filter=lfs\n", "README.md": b"---\nsdk: gradio\n---\n"}


@dataclass
class Repo:
    """A repo: commits of whole file sets, and the names that point at them."""

    commits: dict[str, Files] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)
    is_private: bool = False
    is_gated: bool = False
    token: str = "hf_right"

    def find(self, revision: str) -> str | None:
        commit = self.branches.get(revision) or self.tags.get(revision) or revision
        return commit if commit in self.commits else None


@dataclass(frozen=True)
class Request:
    """One request as it came in, and how many bytes went back."""

    method: str
    path: str
    range: str | None
    sent: int


class LocalHub:
    """The server, its repos, and the faults it is told to have."""

    def __init__(self) -> None:
        self.release = threading.Event()
        self.lfs: Files = {}
        self.reset()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def reset(self) -> None:
        """Forget every repo, request and fault."""
        self.repos: dict[str, Repo] = {}
        self.spaces: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.status: int | None = None
        self.hangs = False
        self.cut_once: dict[str, int] = {}
        self.false_bytes: Files = {}
        self.stated_sizes: dict[str, int] = {}

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()

    def commit(self, repo_id: str, files: Files, *, branch: str = "main", kind: str = "models") -> str:
        """Add a commit that holds exactly these files; return its id."""
        repo = self.of(kind).setdefault(repo_id, Repo())
        content = json.dumps([len(repo.commits), sorted((name, _sha256(data)) for name, data in files.items())])
        commit = hashlib.sha1(content.encode()).hexdigest()
        repo.commits[commit] = dict(files)
        repo.branches[branch] = commit
        return commit

    def of(self, kind: str) -> dict[str, Repo]:
        """Return the repos of a kind, models or spaces."""
        return {"models": self.repos, "spaces": self.spaces}[kind]

    def asked(self, method: str, ending: str) -> list[Request]:
        """Return the requests of a method whose path ends so."""
        return [request for request in self.requests if request.method == method and request.path.endswith(ending)]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _blob_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _listed(name: str, data: bytes) -> dict[str, object]:
    lfs = {"oid": _sha256(data), "size": len(data), "pointerSize": 130}
    info = {"type": "file", "path": name, "size": len(data), "oid": _blob_id(data)}
    return info | ({"lfs": lfs} if _is_lfs(name) else {})


def _is_lfs(name: str) -> bool:
    return name.endswith((".safetensors", ".png", ".bin", ".pkl"))


def _handler_of(hub: LocalHub) -> type[BaseHTTPRequestHandler]:
    class Handler(_Handler):
        pass

    Handler.hub = hub
    return Handler


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", commit: str = "") -> None:
        super().__init__(code)
        told = {"X-Error-Code": code, "X-Repo-Commit": commit}
        self.status, self.headers = status, {name: value for name, value in told.items() if value}


class _Handler(BaseHTTPRequestHandler):
    hub: LocalHub
    kind: str
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Keep the terminal quiet."""

    def _handle(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = unquote(urlsplit(self.path).path)
        if self.hub.hangs:
            self.hub.requests.append(Request(self.command, path, None, 0))
            self.hub.release.wait(60)
            self.close_connection = True
            return
        try:
            if self.hub.status is not None:
                raise _Refused(self.hub.status)
            sent = self._route(path)
        except _Refused as refused:
            sent = self._send(refused.status, b"", refused.headers)
        self.hub.requests.append(Request(self.command, path, self.headers.get("Range"), sent))

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle

    def _route(self, path: str) -> int:
        if path.startswith("/lfs/"):
            return self._lfs_object(path.split("/")[2])
        if path == "/api/repos/create":
            return self._create_repo()
        if path == "/api/validate-yaml":
            return self._send_json({"warnings": [], "errors": []})
        if path.endswith(".git/info/lfs/objects/batch"):
            return self._lfs_batch()
        if path.startswith(("/api/models/", "/api/spaces/")):
            return self._api(*path.split("/")[2:])
        if "/resolve/" in path:
            return self._resolve(path)
        raise _Refused(404)

    def _repo(self, repo_id: str, kind: str = "models") -> Repo:
        repo = self.hub.of(kind).get(repo_id)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if repo is None or (repo.is_private and token != repo.token):
            # The Hub does not tell a stranger whether a private repo exists.
            raise _Refused(404 if token else 401, "RepoNotFound")
        if repo.is_gated and token != repo.token:
            raise _Refused(403 if token else 401, "GatedRepo")
        return repo

    def _files(self, repo: Repo, revision: str) -> tuple[str, Files]:
        commit = repo.find(revision)
        if commit is None:
            raise _Refused(404, "RevisionNotFound")
        return commit, repo.commits[commit]

    def _resolve(self, path: str) -> int:
        repo_id, rest = path[1:].split("/resolve/", 1)
        revision, name = rest.split("/", 1)
        commit, files = self._files(self._repo(repo_id), revision)
        if name not in files:
            raise _Refused(404, "EntryNotFound", commit)
        data = files[name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{_blob_id(data)}"', "Accept-Ranges": "bytes"}
        if _is_lfs(name):
            headers |= {"X-Linked-Etag": f'"{_sha256(data)}"', "X-Linked-Size": str(len(data))}
        if name in self.hub.stated_sizes:
            headers["X-Linked-Size"] = str(self.hub.stated_sizes[name])
        if self.command == "GET":
            data = self.hub.false_bytes.get(name, data)
        start = int((self.headers.get("Range") or "bytes=0-")[len("bytes=") :].split("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        cut = self.hub.cut_once.pop(name, None) if self.command == "GET" else None
        return self._send(206 if start else 200, data[start:], headers, cut=cut)

    def _api(self, kind: str, owner: str, name: str, *rest: str) -> int:
        repo_id = f"{owner}/{name}"
        self.kind, repo = kind, self._repo(repo_id, kind)
        if not rest or rest[0] == "revision":
            commit, files = self._files(repo, "/".join(rest[1:]) or "main")
            siblings = [{"rfilename": name} for name in files]
            info = {"id": repo_id, "sha": commit, "siblings": siblings, "private": repo.is_private}
            return self._send_json(info)
        actions: dict[str, Callable[[str, Repo, str], int]] = {
            "refs": self._refs, "paths-info": self._paths_info, "preupload": self._preupload,
            "commit": self._commit, "tag": self._tag, "tree": self._tree, "variables": self._variables,
        }  # fmt: skip
        if rest[0] not in actions:
            raise _Refused(404)
        return actions[rest[0]](repo_id, repo, "/".join(rest[1:]))

    def _refs(self, _: str, repo: Repo, __: str) -> int:
        def listed(names: dict[str, str], kind: str) -> list[dict[str, str]]:
            return [{"name": n, "ref": f"refs/{kind}/{n}", "targetCommit": commit} for n, commit in names.items()]

        return self._send_json(
            {"branches": listed(repo.branches, "heads"), "tags": listed(repo.tags, "tags"), "converts": []}
        )

    def _paths_info(self, _: str, repo: Repo, revision: str) -> int:
        files = self._files(repo, revision)[1]
        asked = parse_qs(self.body.decode()).get("paths", [])
        return self._send_json([_listed(name, files[name]) for name in asked if name in files])

    def _tree(self, _: str, repo: Repo, revision: str) -> int:
        files = self._files(repo, revision)[1]
        folders = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents[:-1]}
        listed = [{"type": "directory", "path": path, "size": 0, "oid": _blob_id(path.encode())} for path in folders]
        return self._send_json([*listed, *(_listed(name, data) for name, data in files.items())])

    def _variables(self, _: str, repo: Repo, __: str) -> int:
        asked = json.loads(self.body or b"{}")
        if self.command == "POST":
            repo.variables[asked["key"]] = asked["value"]
        elif self.command == "DELETE":
            repo.variables.pop(asked["key"])
        return self._send_json({key: {"value": value} for key, value in repo.variables.items()})

    def _create_repo(self) -> int:
        data = json.loads(self.body)
        repo_id, kind = f"{data.get('organization') or 'me'}/{data['name']}", f"{data.get('type', 'model')}s"
        url = f"{self.hub.endpoint}/{'' if kind == 'models' else kind + '/'}{repo_id}"
        if repo_id in self.hub.of(kind):
            return self._send_json({"url": url}, status=409)
        if kind == "spaces" and data.get("sdk") != "gradio":
            raise _Refused(400)
        self.hub.of(kind)[repo_id] = Repo(is_private=data.get("visibility") == "private")
        if kind == "spaces":
            self.hub.commit(repo_id, FIRST_FILES, kind=kind)
        return self._send_json({"url": url})

    def _preupload(self, _: str, repo: Repo, revision: str) -> int:
        there = repo.commits.get(repo.find(revision) or "", {})
        answer = []
        for file in json.loads(self.body)["files"]:
            name = file["path"]
            mode = "lfs" if _is_lfs(name) else "regular"
            entry = {"path": name, "uploadMode": mode, "shouldIgnore": False}
            if name in there:
                entry["oid"] = _sha256(there[name]) if mode == "lfs" else _blob_id(there[name])
            answer.append(entry)
        return self._send_json({"files": answer})

    def _lfs_batch(self) -> int:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.hub.endpoint}/lfs/{wanted['oid']}"}}}
            for wanted in json.loads(self.body)["objects"]
        ]
        return self._send_json({"transfer": "basic", "objects": objects})

    def _lfs_object(self, oid: str) -> int:
        if _sha256(self.body) != oid:
            raise _Refused(422)
        self.hub.lfs[oid] = self.body
        return self._send_json({})

    def _commit(self, repo_id: str, repo: Repo, branch: str) -> int:
        files = dict(repo.commits.get(repo.branches.get(branch, ""), {}))
        for line in self.body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.hub.lfs[value["oid"]]
            elif operation["key"] == "deletedFile" and files.pop(value["path"], None) is None:
                raise _Refused(404, "EntryNotFound")
        commit = self.hub.commit(repo_id, files, branch=branch, kind=self.kind)
        url = f"{self.hub.endpoint}/{repo_id}/commit/{commit}"
        return self._send_json({"success": True, "commitOid": commit, "commitUrl": url})

    def _tag(self, _: str, repo: Repo, revision: str) -> int:
        tag = json.loads(self.body)["tag"]
        if tag in repo.tags:
            raise _Refused(409)
        repo.tags[tag] = self._files(repo, revision)[0]
        return self._send_json({})

    def _send_json(self, data: object, *, status: int = 200) -> int:
        return self._send(status, json.dumps(data).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, data: bytes, headers: dict[str, str], *, cut: int | None = None) -> int:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return 0
        if cut is not None:
            self.close_connection = True
        self.wfile.write(data[:cut])
        return len(data[:cut])
