"""The fork server of a manager: warmed once, it forks workers in milliseconds, reaps them and tells how each ended.

Control is JSON lines on standard input and output (README.md). When standard input ends, the manager is gone: all workers are
killed with their process groups.
"""

import glob
import json
import os
import selectors
import signal
import sys
from typing import Any, Dict, List, Optional, Tuple

HERE = os.path.dirname(os.path.abspath(__file__))


def _find_dill() -> None:
    """The environment's own dill if it has one, else the wheel that came along."""
    try:
        import dill  # noqa: F401
    except ImportError:
        sys.path.extend(sorted(glob.glob(os.path.join(HERE, "*.whl"))))


def _say(message: Dict[str, Any]) -> None:
    os.write(_CONTROL_OUT, (json.dumps(message) + "\n").encode())


_CONTROL_OUT = 1
_PR_SET_PDEATHSIG = 1


def _die_with_parent(parent: int) -> None:
    """The kernel kills this process when the nursery dies, however that happens."""
    try:
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    except (OSError, AttributeError):
        pass
    if os.getppid() != parent:
        os._exit(1)


class Nursery:
    """Forks and reaps workers."""

    def __init__(self, settings: Dict[str, Any]) -> None:
        import worker

        self._worker = worker
        self._settings = worker.Settings(settings)
        self._slots: Dict[int, int] = {}
        self._wakeup, write_end = os.pipe()
        for end in (self._wakeup, write_end):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(write_end)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        self._write_end = write_end

    def run(self) -> None:
        """Serves until standard input ends."""
        selector = selectors.DefaultSelector()
        selector.register(0, selectors.EVENT_READ)
        selector.register(self._wakeup, selectors.EVENT_READ)
        pending = b""
        while True:
            for key, _ in selector.select():
                if key.fd == self._wakeup:
                    try:
                        os.read(self._wakeup, 4096)
                    except BlockingIOError:
                        pass
                    self._reap()
                    continue
                chunk = os.read(0, 65536)
                if not chunk:
                    self._end_all()
                    return
                pending += chunk
                while b"\n" in pending:
                    line, pending = pending.split(b"\n", 1)
                    self._obey(json.loads(line))

    def _obey(self, command: Dict[str, Any]) -> None:
        if command["t"] == "fork":
            try:
                self._fork(command)
            except OSError as error:
                _say({"t": "error", "slot": command["slot"], "message": "Cannot fork a worker: %s" % error})

    def _fork(self, command: Dict[str, Any]) -> None:
        slot: int = command["slot"]
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            self._become_worker(command, parent)
        self._slots[pid] = slot
        _say({"t": "forked", "slot": slot, "pid": pid})

    def _become_worker(self, command: Dict[str, Any], parent: int) -> None:
        """Never returns."""
        code = 1
        try:
            os.setsid()
            _die_with_parent(parent)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, signal.SIGTERM):
                signal.signal(number, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            os.close(self._wakeup)
            os.close(self._write_end)
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, 0)
            os.dup2(null, 1)
            os.close(null)
            if _CONTROL_OUT != 1:
                os.close(_CONTROL_OUT)
            os.environ.update(command.get("env") or {})
            affinity: Optional[List[int]] = command.get("affinity")
            if affinity and hasattr(os, "sched_setaffinity"):
                os.sched_setaffinity(0, affinity)
            self._worker.serve(self._settings, command["slot"], command.get("threads", 1))
            code = 0
        except EOFError:
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            try:
                sys.stdout.flush()
                sys.stderr.flush()
            except BaseException:
                pass
            os._exit(code)

    def _reap(self) -> None:
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            slot = self._slots.pop(pid, None)
            if slot is None:
                continue
            # what the worker's task started and left behind
            _kill_group(pid)
            killed = os.WIFSIGNALED(status)
            _say(
                {
                    "t": "reaped",
                    "slot": slot,
                    "pid": pid,
                    "code": None if killed else os.WEXITSTATUS(status),
                    "signal": os.WTERMSIG(status) if killed else None,
                    "maxrss_kb": usage.ru_maxrss,
                }
            )

    def _end_all(self) -> None:
        for pid in list(self._slots):
            _kill_group(pid)


def _kill_group(pid: int) -> None:
    try:
        os.killpg(pid, signal.SIGKILL)
    except OSError:
        pass


def _warm() -> Tuple[Any, ...]:
    """Imports what every task needs, so that forked workers share it."""
    import base64
    import codecs
    import inspect
    import subprocess
    import tempfile
    import threading
    import uuid

    import dill
    import stand_ins

    stand_ins.install()
    dill.loads(dill.dumps(lambda value: value))
    return base64, codecs, inspect, subprocess, tempfile, threading, uuid


def main() -> int:
    """Reads its settings as JSON from the file named first."""
    global _CONTROL_OUT
    if sys.version_info < (3, 8):
        print("Python %s is too old for a worker: 3.8 or newer is needed" % sys.version.split()[0], file=sys.stderr)
        return 78
    if HERE not in sys.path:
        sys.path.insert(0, HERE)
    _find_dill()
    with open(sys.argv[1]) as file:
        settings = json.load(file)
    # what anything prints here must not get among the control lines
    _CONTROL_OUT = os.dup(1)
    os.dup2(2, 1)
    os.set_inheritable(_CONTROL_OUT, False)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.makedirs(settings["working_dir"], exist_ok=True)
    try:
        _warm()
    except ImportError as error:
        print("Python %s at %s cannot serve as a worker: %s" % (sys.version.split()[0], sys.executable, error), file=sys.stderr)
        return 78
    import gc

    import worker

    nursery = Nursery(settings)
    _say(dict(worker.describe_python(), t="up", pid=os.getpid()))
    gc.collect()
    gc.freeze()
    nursery.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
