"""A Hugging Face hub on loopback that serves folders: what huggingface_hub and datasets ask of one, no more."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

COMMIT = "a" * 40


class FakeHub(ThreadingHTTPServer):
    """Serves `root/models/<owner>/<name>` and `root/datasets/<owner>/<name>`, and notes every request.

    gated: repositories that answer 403 to whoever asks for a file.
    """

    daemon_threads = True

    def __init__(self, root: Path, gated: tuple[str, ...] = ()) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.root = root
        self.gated = gated
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def downloads(self) -> list[str]:
        """The files that were fetched, as `<owner>/<name>/<path>`, in order of their names."""
        fetched = {path for path in self.requests if path.startswith("GET /") and "/resolve/" in path}
        return sorted(path.removeprefix("GET /").replace(f"/resolve/{COMMIT}", "") for path in fetched)


@contextmanager
def fake_hub(root: Path, gated: tuple[str, ...] = ()) -> Iterator[FakeHub]:
    """Run a hub until the block ends."""
    hub = FakeHub(root, gated)
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append(f"{self.command} {path}")
        if path.startswith(("/api/models/", "/api/datasets/")):
            _, kind, owner, name, *rest = path.strip("/").split("/")
            self._api(kind, f"{owner}/{name}", rest, body)
        elif "/resolve/" in path:
            self._file(path.strip("/"))
        else:
            self._error(404, "EntryNotFound", "no such page")

    def _api(self, kind: str, repo_id: str, rest: list[str], body: bytes) -> None:
        folder = self.server.root / kind / repo_id
        if not folder.is_dir():
            self._error(401, "RepoNotFound", "Repository not found")
            return
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        entries = [_entry(folder, name) for name in names]
        if not rest or rest[0] == "revision":
            siblings = [{"rfilename": name} for name in names]
            self._json({"_id": repo_id, "id": repo_id, "modelId": repo_id, "sha": COMMIT, "siblings": siblings})
        elif rest[0] == "tree":
            below = "/".join(rest[2:])
            recursive = parse_qs(urlsplit(self.path).query).get("recursive", [""])[0].lower() == "true"
            found = [e for e in entries if not below or str(e["path"]).startswith(f"{below}/")]
            folders = {str(e["path"])[len(below) :].strip("/").split("/")[0] for e in found if "/" in str(e["path"])}
            top = [e for e in found if recursive or "/" not in str(e["path"])[len(below) :].strip("/")]
            here = [{"type": "directory", "path": f"{below}/{f}".strip("/"), "oid": "0", "size": 0} for f in folders]
            self._json(top + ([] if recursive else here))
        elif rest[0] == "paths-info":
            asked = json.loads(body)["paths"] if body.startswith(b"{") else parse_qs(body.decode())["paths"]
            self._json([entry for entry in entries if entry["path"] in asked])
        else:
            self._error(404, "EntryNotFound", "no such call")

    def _file(self, path: str) -> None:
        repo_id, _, rest = path.partition("/resolve/")
        kind = "datasets" if repo_id.startswith("datasets/") else "models"
        repo_id = repo_id.removeprefix("datasets/")
        file = self.server.root / kind / repo_id / rest.split("/", maxsplit=1)[1]
        if repo_id in self.server.gated:
            self._error(403, "GatedRepo", f"Access to {repo_id} is restricted")
        elif not file.is_file():
            self._error(404, "EntryNotFound", "Entry not found")
        else:
            content = file.read_bytes()
            self._send(200, content, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": COMMIT})

    def _json(self, value: object) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _error(self, status: int, code: str, message: str) -> None:
        self._send(status, b"{}", {"X-Error-Code": code, "X-Error-Message": message})

    def _send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def _entry(folder: Path, name: str) -> dict[str, object]:
    content = (folder / name).read_bytes()
    return {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
