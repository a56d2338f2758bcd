"""Frames between a manager and a worker: two lengths, a JSON header, a body (see README.md)."""

import json
import socket
import struct
from typing import Any, Dict, Tuple

_LENGTHS = struct.Struct(">II")
# Bound from the start: a task may replace what these modules hold.
_dumps = json.dumps
_loads = json.loads


class Frames:
    """Reads and writes frames on a connected stream socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._recv_into = sock.recv_into
        self._sendall = sock.sendall

    def _read(self, size: int) -> bytearray:
        buffer = bytearray(size)
        view = memoryview(buffer)
        at = 0
        while at < size:
            count = self._recv_into(view[at:])
            if count == 0:
                raise EOFError("the manager closed the connection")
            at += count
        return buffer

    def read(self) -> Tuple[Dict[str, Any], bytearray]:
        """Waits for a frame. Raises EOFError when the manager is gone."""
        header_size, body_size = _LENGTHS.unpack(self._read(8))
        whole = self._read(header_size + body_size)
        header = _loads(bytes(whole[:header_size]))
        del whole[:header_size]
        return header, whole

    def write(self, header: Dict[str, Any], body: bytes = b"") -> None:
        """Sends a frame as one piece."""
        head = _dumps(header, separators=(",", ":")).encode()
        self._sendall(_LENGTHS.pack(len(head), len(body)) + head + body)
