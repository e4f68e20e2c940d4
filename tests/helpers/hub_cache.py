"""A hub cache written by hand, and a hub of our own on this machine: no test reaches for the network."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlparse

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def write_cached(cache, name, files):
    """A repository in the hub's cache; `files` maps paths to bytes, or to files to be linked to."""
    folder = Path(cache) / f"models--{name.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text(COMMIT, "utf-8")
    for path, content in files.items():
        place = folder / "snapshots" / COMMIT / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.symlink_to(Path(content).resolve())
    return folder / "snapshots" / COMMIT


def files_in(folder, prefix=""):
    """The files of a folder as a repository has them."""
    return {prefix + p.relative_to(folder).as_posix(): p for p in Path(folder).rglob("*") if p.is_file()}


class Hub(ThreadingHTTPServer):
    """Serves repositories: name to files. Those in `gated` refuse their files, those in `private` everything."""

    daemon_threads = True

    def __init__(self, repositories, gated=(), private=()):
        super().__init__(("127.0.0.1", 0), Answers)
        self.repositories, self.gated, self.private = repositories, gated, private
        self.fetched = []


class Answers(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        path = unquote(urlparse(self.path).path).strip("/")
        name = next((n for n in self.server.repositories if path.removeprefix("api/models/").startswith(n)), None)
        if name is None or name in self.server.private:
            return self.send(401 if name else 404, b"{}", {"X-Error-Code": "RepoNotFound"}, body)
        files = self.server.repositories[name]
        if path.startswith("api/models/"):
            rest = path.removeprefix(f"api/models/{name}").strip("/")
            return self.send(200, json.dumps(self.listing(name, files, rest)).encode(), {}, body)
        file = path.removeprefix(f"{name}/resolve/").partition("/")[2]
        if name in self.server.gated:
            return self.send(401, b"{}", {"X-Error-Code": "GatedRepo"}, body)
        if file not in files:
            return self.send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, body)
        if body:
            self.server.fetched.append(f"{name}/{file}")
        return self.send(200, files[file], {"ETag": f'"{abs(hash(file)):x}"', "X-Repo-Commit": COMMIT}, body)

    def listing(self, name, files, rest):
        tree = [{"type": "file", "path": p, "size": len(c), "oid": f"{abs(hash(p)):x}"} for p, c in files.items()]
        if rest.startswith("tree"):
            return tree
        siblings = [{"rfilename": p, "size": len(c), "blobId": "0"} for p, c in files.items()]
        return {"id": name, "modelId": name, "sha": COMMIT, "siblings": siblings, "private": False}

    def send(self, status, content, headers, body):
        self.send_response(status)
        for key, value in {"Content-Length": str(len(content)), "Content-Type": "application/json", **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


@contextmanager
def serving(*args, **options):
    """A hub that runs; `.endpoint` is where."""
    hub = Hub(*args, **options)
    hub.endpoint = f"http://127.0.0.1:{hub.server_address[1]}"
    threading.Thread(target=hub.serve_forever, daemon=True).start()
    try:
        yield hub
    finally:
        hub.shutdown()
        hub.server_close()
