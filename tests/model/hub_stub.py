"""A stand-in for the Hugging Face Hub on loopback: the routes that loading models and data needs.

`folder/models/<id>/` and `folder/datasets/<id>/` hold the repositories. Faults can be asked for:
`server.broken` names a file whose body is cut short, `server.refuse` answers 503 to everything.
"""

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class HubStub(ThreadingHTTPServer):
    def __init__(self, folder: Path, routes: "type[Routes] | None" = None):
        super().__init__(("127.0.0.1", 0), routes or Routes)
        self.folder, self.broken, self.refuse = folder, None, False
        self.url = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Routes(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: HubStub

    def log_message(self, *_) -> None:
        pass

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if self.server.refuse:
            return self.answer(503)
        if parts[0] == "api" and parts[1] in ("models", "datasets"):
            return self.describe(parts[1], parts[2:])
        kind, rest = ("datasets", parts[1:]) if parts[0] == "datasets" else ("models", parts)
        if "resolve" not in rest:
            return self.answer(404, error="RepoNotFound")
        name, path = rest[: rest.index("resolve")], rest[rest.index("resolve") + 2 :]
        repository = self.server.folder / kind / "/".join(name)
        if not repository.is_dir():
            return self.answer(404, error="RepoNotFound")
        file = repository.joinpath(*path)
        self.send_file(file) if file.is_file() else self.answer(404, error="EntryNotFound")

    def describe(self, kind: str, parts: list[str]) -> None:
        """Answer .../<id>/revision/<revision> and .../<id>/tree/<revision>/<folder>."""
        verb = next((word for word in ("revision", "tree") if word in parts), None)
        name = parts[: parts.index(verb)] if verb else parts
        repository = self.server.folder / kind / "/".join(name)
        if not repository.is_dir():
            return self.answer(404, error="RepoNotFound")
        if verb != "tree":
            revision = parts[parts.index(verb) + 1] if verb else "main"
            if revision not in ("main", COMMIT):
                return self.answer(404, error="RevisionNotFound")
            files = [{"rfilename": str(f.relative_to(repository))} for f in files_of(repository)]
            return self.answer(200, {"id": "/".join(name), "sha": COMMIT, "siblings": files})
        below = repository.joinpath(*parts[parts.index("tree") + 2 :])
        if not below.is_dir():
            return self.answer(404, error="EntryNotFound")
        deep = "recursive=true" in self.path.lower()
        found = files_of(below) if deep else sorted(below.iterdir())
        self.answer(200, [entry_of(path, repository) for path in found])

    def send_file(self, file: Path) -> None:
        content = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{digest(file)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if self.command == "GET":
            if file.name == self.server.broken:
                content, self.close_connection = content[: len(content) // 2], True
            self.wfile.write(content)

    def answer(self, status: int, value: object = None, error: str | None = None) -> None:
        body = json.dumps({"error": error} if value is None else value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if error:
            self.send_header("X-Error-Code", error)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def files_of(folder: Path) -> list[Path]:
    return sorted(file for file in folder.rglob("*") if file.is_file())


def entry_of(path: Path, repository: Path) -> dict:
    name = str(path.relative_to(repository))
    if path.is_dir():
        return {"type": "directory", "path": name, "size": 0, "oid": COMMIT}
    return {"type": "file", "path": name, "size": path.stat().st_size, "oid": digest(path)}


def digest(file: Path) -> str:
    return hashlib.sha1(file.read_bytes()).hexdigest()
