"""Drives the real nursery and worker over a real unix socket, under each interpreter that is at hand."""

import glob
import json
import os
import shutil
import socket
import struct
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import pytest

ROOT = Path(__file__).resolve().parents[2]


def interpreters() -> List[str]:
    """`EP_TEST_PYTHONS` (paths, colon between), else what pyenv or PATH has of 3.8 to 3.14."""
    named = os.environ.get("EP_TEST_PYTHONS")
    if named:
        return named.split(":")
    found: Dict[str, str] = {}
    for minor in range(8, 15):
        version = "3.%d" % minor
        candidates = sorted(glob.glob(os.path.expanduser("~/.pyenv/versions/%s.*/bin/python" % version)))
        on_path = shutil.which("python" + version)
        for path in candidates + ([on_path] if on_path else []):
            if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
                found[version] = path
                break
    found.setdefault("%d.%d" % sys.version_info[:2], sys.executable)
    return list(found.values())


class Worker:
    """One worker of one nursery, called as a manager calls it."""

    def __init__(self, python: str, folder: Path, **settings: Any) -> None:
        code = folder / "code"
        code.mkdir()
        for path in (ROOT / "src" / "worker").glob("*.py"):
            shutil.copy(path, code)
        for path in (ROOT / ".tools" / "assets").glob("dill-*.whl"):
            shutil.copy(path, code)
        self.logs = folder / "logs"
        self.logs.mkdir()
        self.dir = folder / "work"
        self._path = "/tmp/ep-test-%s" % uuid.uuid4().hex[:12]
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self._path)
        self._listener.listen(4)
        self._listener.settimeout(20)
        (folder / "settings.json").write_text(
            json.dumps(dict(socket=self._path, working_dir=str(self.dir), log_dir=str(self.logs), **settings))
        )
        self.nursery = subprocess.Popen(
            [python, str(code / "nursery.py"), str(folder / "settings.json")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.facts = self.heard()
        self.fork()

    def heard(self) -> Dict[str, Any]:
        assert self.nursery.stdout is not None
        return json.loads(self.nursery.stdout.readline())

    def fork(self, **more: Any) -> None:
        assert self.nursery.stdin is not None
        self.nursery.stdin.write(json.dumps(dict(t="fork", slot=0, **more)).encode() + b"\n")
        self.nursery.stdin.flush()
        self.forked = self.heard()
        self.connection, _ = self._listener.accept()
        self.connection.settimeout(30)
        assert self._read()[0]["t"] == "ready"

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            chunk = self.connection.recv(size - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    def _read(self) -> Tuple[Dict[str, Any], bytes]:
        head, body = struct.unpack(">II", self._exactly(8))
        return json.loads(self._exactly(head)), self._exactly(body)

    def send(self, body: bytes, **header: Any) -> str:
        task_id = header.pop("id", None) or str(uuid.uuid4())
        head = json.dumps(dict(t="task", id=task_id, **header)).encode()
        self.connection.sendall(struct.pack(">II", len(head), len(body)) + head + body)
        return task_id

    def answer(self) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        header, body = self._read()
        assert body[:1] == b"\x01"
        return header, json.loads(body[1:] + b"}}")["data"]

    def run(self, task_buffer: str, **header: Any) -> Tuple[Dict[str, Any], Dict[str, Any]]:
        task_id = str(uuid.uuid4())
        data = {"task_id": task_id, "task_buffer": task_buffer}
        body = b"\x01" + json.dumps({"message_type": "task", "data": data}).encode()
        self.send(body, id=task_id, **header)
        return self.answer()

    def close(self) -> None:
        assert self.nursery.stdin is not None
        self.nursery.stdin.close()
        self.nursery.wait(10)
        os.unlink(self._path)


@pytest.fixture(params=interpreters(), ids=lambda path: Path(path).parts[-3] if "versions" in path else Path(path).name)
def worker(request: Any, tmp_path: Path) -> Iterator[Worker]:
    made = Worker(request.param, tmp_path, run_in_sandbox=False)
    yield made
    made.close()


@pytest.fixture()
def own_worker(tmp_path: Path) -> Iterator[Worker]:
    """Under the interpreter of the tests, which has the SDK."""
    made = Worker(sys.executable, tmp_path)
    yield made
    made.close()
