"""Prints, as JSON, the task buffers that the bench sends and the result strings it wants, made by the real SDK."""

import json
import sys

from globus_compute_sdk.serialize import ComputeSerializer


def noop():
    return None


def same(value):
    return value


serializer = ComputeSerializer()


def case(function, *args):
    parts = [serializer.serialize(part) for part in (function, args, {})]
    return {
        "task_buffer": serializer.pack_buffers(parts),
        "result": serializer.serialize(function(*args)),
    }


def text(size):
    """Text that does not compress to nothing, the same at each call."""
    line = "".join(chr(97 + n * 7 % 26) for n in range(997))
    return (line * (size // len(line) + 1))[:size]


json.dump(
    {
        "0 B": case(noop),
        "64 KiB": case(same, text(64 * 1024)),
        "1 MiB": case(same, text(1024 * 1024)),
        # over 10 MB in base64 is refused by the service: 5 MiB are 7.1 MB
        "5 MiB": case(same, text(5 * 1024 * 1024)),
    },
    sys.stdout,
)
