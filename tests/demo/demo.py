"""The user's side of the demo: functions submitted with the real SDK to the endpoint named on the command line."""

import hashlib
import sys
import time
from concurrent.futures import as_completed

from globus_compute_sdk import Client, Executor, ShellFunction

WIDE = sys.stdout.isatty()


def square(number):
    return number * number


def divide(a, b):
    return a / b


def digest(data):
    import hashlib
    import os

    return hashlib.sha256(data).hexdigest(), os.urandom(0) + data[::-1]


def step(text):
    print(f"\n\033[1m{text}\033[0m" if WIDE else f"\n{text}", flush=True)


def bar(done, total):
    if WIDE or done == total:
        filled = 40 * done // total
        end = "\n" if done == total else ""
        start = "\r" if WIDE else ""
        print(f"{start}  [{'#' * filled}{'.' * (40 - filled)}] {done}/{total}", end=end, flush=True)


def main(endpoint_id):
    with Executor(endpoint_id, client=Client(local_compute_services=True)) as executor:
        step("1. One hundred calls of one function")
        started = time.monotonic()
        futures = {executor.submit(square, n): n for n in range(100)}
        for done, future in enumerate(as_completed(futures, timeout=120), 1):
            assert future.result() == futures[future] ** 2
            bar(done, len(futures))
        print(f"  all right, in {time.monotonic() - started:.1f} s")

        step("2. A shell command")
        shell = ShellFunction("echo hello from $(hostname) to {name}; seq 3")
        result = executor.submit(shell, name="you").result(timeout=60)
        print(f"  exit code {result.returncode}, it wrote:")
        for line in result.stdout.splitlines():
            print(f"  | {line}")
        assert result.returncode == 0 and "to you" in result.stdout

        step("3. A function that fails: the worker's traceback comes back")
        try:
            executor.submit(divide, 1, 0).result(timeout=60)
        except Exception as error:
            for line in str(error).strip().splitlines():
                print(f"  | {line}")
            assert "ZeroDivisionError" in str(error)
        else:
            raise AssertionError("dividing by nothing went well")

        step("4. Five megabytes there and back")
        data = bytes(range(256)) * (5_000_000 // 256)
        started = time.monotonic()
        checksum, back = executor.submit(digest, data).result(timeout=120)
        assert checksum == hashlib.sha256(data).hexdigest() and back == data[::-1]
        print(f"  the same bytes came back, in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    main(sys.argv[1])
