"""A subject named by its hub id, fetched by the real client from a hub on loopback."""

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

REVISION = "0" * 40
NAME = "someone/tiny-llama"


class Hub(ThreadingHTTPServer):
    """One repository, served as the hub's client asks for it; `asked` lists the files it took."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.asked: set[str] = set()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Tests print nothing."""

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(self.path.split("?")[0])
        names = sorted(each.name for each in self.server.folder.iterdir())
        if path == f"/api/models/{NAME}/revision/main":
            listed = [{"rfilename": name} for name in names]
            body = json.dumps({"id": NAME, "sha": REVISION, "siblings": listed}).encode()
        elif path.startswith(f"/api/models/{NAME}/tree/"):
            body = json.dumps([self._entry(name) for name in names]).encode()
        elif path.startswith(f"/{NAME}/resolve/"):
            name = path.rsplit("/", 1)[1]
            self.server.asked.add(name)
            body = (self.server.folder / name).read_bytes()
        else:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha1(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", REVISION)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _entry(self, name: str) -> dict[str, Any]:
        content = (self.server.folder / name).read_bytes()
        oid = hashlib.sha1(content).hexdigest()
        return {"type": "file", "path": name, "size": len(content), "oid": oid}


@pytest.fixture
def hub(tmp_path: Path, make_tiny: Callable[..., Any]) -> Iterator[Hub]:
    folder = tmp_path / "repository"
    subject = make_tiny("llama")
    subject.model.save_pretrained(folder)
    subject.tokenizer.save_pretrained(folder)
    (folder / "modeling_tiny.py").write_text("raise SystemExit('foreign code ran')\n")
    (folder / "pytorch_model.bin").write_bytes(b"a pickle")
    with Hub(folder) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def predict(hub: Hub, subject: str, tmp_path: Path) -> subprocess.CompletedProcess[str]:
    arguments = json.dumps({"prompt": "The capital of France is"})
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.address,
        "HF_HOME": str(tmp_path / "hub-cache"),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",
    }
    command = ["tool", "run", "predict_next", "--subject", subject, "--args", arguments, "--json"]
    return subprocess.run(
        [sys.executable, "-m", "dragoman", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_hub_id_names_a_subject(hub: Hub, tmp_path: Path) -> None:
    ran = predict(hub, NAME, tmp_path)
    assert ran.returncode == 0, ran.stderr
    result = json.loads(ran.stdout)
    assert result["status"] == "ok", result
    # Weights and tokenizer as safe formats; code and pickles stay where they are.
    assert "model.safetensors" in hub.asked
    assert not {"modeling_tiny.py", "pytorch_model.bin"} & hub.asked


def test_an_id_that_the_hub_does_not_have_is_one_clear_line(hub: Hub, tmp_path: Path) -> None:
    ran = predict(hub, "someone/else", tmp_path)
    assert ran.returncode == 2
    assert "someone/else" in ran.stderr
    assert "model hub" in ran.stderr
    assert "Traceback" not in ran.stderr
