"""The stand-in for the Hub, with the routes that publishing needs: what is sent is kept and served.

`server.faults` maps a part of a path to the status it is answered with; `server.requests` lists
every method and path that came; `server.commits` what each commit changed.
"""

import base64
import hashlib
import json
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

from tests.model.hub_stub import COMMIT, HubStub, Routes, files_of

TOKEN = "hf_of_the_keeper"


class WritingHubStub(HubStub):
    def __init__(self, folder: Path):
        self.faults: dict[str, int] = {}
        self.requests: list[str] = []
        self.commits: list[dict[str, list[str]]] = []
        self.private: dict[str, bool] = {}
        self.large: dict[str, bytes] = {}  # by sha256: sent, and in no repository yet
        super().__init__(folder, WritingRoutes)


class WritingRoutes(Routes):
    server: WritingHubStub

    def parse_request(self) -> bool:
        """Read the request; answer what is asked to fail."""
        if not super().parse_request():
            return False
        self.place = unquote(urlsplit(self.path).path)
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.requests.append(f"{self.command} {self.place}")
        for part, status in self.server.faults.items():
            if part in self.place:
                self.answer(status, error="refused by the stand-in")
                return False
        writes = self.command in ("POST", "PUT") or "whoami" in self.place
        if writes and self.headers.get("Authorization") != f"Bearer {TOKEN}":
            if not self.place.startswith("/upload/"):
                self.answer(401, error="Invalid user token.")
                return False
        return True

    def do_GET(self) -> None:
        if self.place == "/api/whoami-v2":
            return self.answer(200, {"type": "user", "name": "keeper"})
        super().do_GET()

    def describe(self, kind: str, parts: list[str]) -> None:
        name = "/".join(parts)
        if name not in self.server.private:
            return super().describe(kind, parts)
        repository = self.server.folder / kind / name
        files = [{"rfilename": str(f.relative_to(repository))} for f in files_of(repository)]
        info = {"id": name, "sha": COMMIT, "siblings": files, "private": self.server.private[name]}
        self.answer(200, info)

    def do_PUT(self) -> None:
        self.server.large[self.place.removeprefix("/upload/")] = self.body
        self.answer(200, {})

    def do_POST(self) -> None:
        if self.place == "/api/repos/create":
            return self.create(json.loads(self.body))
        if self.place == "/api/validate-yaml":
            text = json.loads(self.body)["content"]
            yaml.safe_load(text.split("---\n")[1])
            return self.answer(200, {"errors": [], "warnings": []})
        if match := re.fullmatch(r"/api/models/(.+)/preupload/main", self.place):
            asked = json.loads(self.body)["files"]
            return self.answer(200, {"files": [self.mode_of(match[1], file) for file in asked]})
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", self.place):
            objects = [self.destination(entry) for entry in json.loads(self.body)["objects"]]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        if match := re.fullmatch(r"/api/models/(.+)/commit/main", self.place):
            return self.commit(match[1], [json.loads(line) for line in self.body.splitlines()])
        self.answer(404, error="RepoNotFound")

    def create(self, asked: dict) -> None:
        owner = asked.get("organization") or "keeper"
        name = f"{owner}/{asked['name']}"
        if owner != "keeper":
            return self.answer(403, error="You don't have the rights to create a model there")
        found = {"url": f"{self.server.url}/{name}", "name": name}
        if name in self.server.private:
            return self.answer(409, found | {"error": "You already created this model repo"})
        self.server.private[name] = asked.get("visibility") == "private" or asked.get("private")
        (self.server.folder / "models" / name).mkdir(parents=True)
        self.answer(200, found)

    def mode_of(self, name: str, file: dict) -> dict:
        """Return how a file is to be sent; large ones are sent beside the commit."""
        large = file["path"].endswith(".safetensors")
        path = self.server.folder / "models" / name / file["path"]
        found = {"path": file["path"], "shouldIgnore": False}
        if path.is_file():
            content = path.read_bytes()
            head = b"" if large else f"blob {len(content)}\0".encode()
            digest = hashlib.sha256 if large else hashlib.sha1
            found["oid"] = digest(head + content).hexdigest()
        return found | {"uploadMode": "lfs" if large else "regular"}

    def destination(self, entry: dict) -> dict:
        return entry | {"actions": {"upload": {"href": f"{self.server.url}/upload/{entry['oid']}"}}}

    def commit(self, name: str, lines: list[dict]) -> None:
        repository = self.server.folder / "models" / name
        changed: dict[str, list[str]] = {"added": [], "deleted": []}
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                assert value["parentCommit"] == COMMIT
            elif line["key"] == "deletedFile":
                (repository / value["path"]).unlink()
                changed["deleted"].append(value["path"])
            else:
                large = line["key"] == "lfsFile"
                content = (
                    self.server.large[value["oid"]] if large else base64.b64decode(value["content"])
                )
                (repository / value["path"]).write_bytes(content)
                changed["added"].append(value["path"])
        self.server.commits.append(changed)
        url = f"{self.server.url}/{name}/commit/{COMMIT}"
        self.answer(200, {"commitUrl": url, "commitOid": COMMIT})
