"""A worker: runs one task after another in a process (or several at once in threads) and answers each with a result.

Nothing that a task does, short of ending the process, ends the worker: every exception is an answer. The result goes back as
a message that lacks only its closing part, which the manager adds.
"""

import hashlib
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any, Callable, Dict, List, Optional, Tuple

import bytecode
import dill
import serialization
import stand_ins
from frames import Frames

_dumps = json.dumps
_loads = json.loads
_now = time.time_ns
_REMOTE = "RemoteExecutionError"
_REMOTE_TEXT = "An error occurred during the execution of this task"
# What a task wrote to stdout or stderr beyond this is left out of its own log.
_LOG_LIMIT = 10 * 1024 * 1024


class TaskRefused(Exception):
    """The task cannot be run as it came; the text is for its submitter."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(text)
        self.code = code


class Settings:
    """What the nursery was told for all its workers."""

    def __init__(self, values: Dict[str, Any]) -> None:
        self.socket: str = values["socket"]
        self.working_dir: str = values["working_dir"]
        self.sandbox: bool = values.get("run_in_sandbox", False)
        self.allowed: Optional[List[str]] = values.get("allowed_serializers")
        self.result_limit: int = values.get("result_limit", 10 * 1024 * 1024)
        self.log_dir: str = values["log_dir"]
        self.thread_prefix: str = values.get("thread_name_prefix", "worker")


def describe_python() -> Dict[str, str]:
    """Facts of this interpreter for the details of results."""
    uname = os.uname()
    return {
        "python": "%d.%d.%d" % sys.version_info[:3],
        "dill": dill.__version__,
        "os": "%s-%s-%s" % (uname.sysname, uname.release, uname.machine),
    }


def _unpack_message(body: bytearray, task_id: str) -> str:
    """The task buffer of an AMQP body."""
    if body[:1] != b"\x01":
        raise TaskRefused(
            "CouldNotExecuteUserTaskError",
            "The task's message has version byte %r; 1 is supported" % (bytes(body[:1]),),
        )
    try:
        message = _loads(bytes(memoryview(body)[1:]))
        data = message["data"]
        found, buffer = str(data["task_id"]), data["task_buffer"]
    except RecursionError:
        raise TaskRefused("CouldNotExecuteUserTaskError", "The task's message is nested too deep")
    except (ValueError, KeyError, TypeError) as error:
        raise TaskRefused(
            "CouldNotExecuteUserTaskError",
            "The task's message cannot be read: %s: %s" % (type(error).__name__, error),
        )
    if found.lower() != task_id or not isinstance(buffer, str):
        raise TaskRefused(
            "CouldNotExecuteUserTaskError",
            "The task's message holds task_id %s, its AMQP header %s" % (found[:64], task_id),
        )
    return buffer


def _load(serializer: serialization.Serializer, buffer: str) -> Tuple[Any, Any, Any]:
    try:
        return serializer.read_task(buffer)
    except bytecode.ForeignBytecode as error:
        raise TaskRefused("DeserializationError", str(error))
    except ImportError as error:
        raise TaskRefused(
            "DeserializationError",
            "The function or its arguments need the module %r, which Python %s on the worker cannot import (%s). Install it in "
            "the worker's environment (worker_init), or import it inside the function"
            % (error.name, "%d.%d.%d" % sys.version_info[:3], error),
        )
    except serialization.DeserializationError as error:
        raise TaskRefused("DeserializationError", str(error))
    except Exception as error:
        raise TaskRefused(
            "DeserializationError",
            "The function or its arguments could not be deserialized by Python %s, dill %s on the worker: %s: %s"
            % ("%d.%d.%d" % sys.version_info[:3], dill.__version__, type(error).__name__, error),
        )


def _with_time_limit(function: Callable[..., Any], seconds: float) -> Callable[..., Any]:
    """Raises AppTimeout inside the call when it takes too long; in threads there is no way to do so."""
    if threading.current_thread() is not threading.main_thread():
        return function

    def limited(*args: Any, **kwargs: Any) -> Any:
        timeout = getattr(sys.modules.get("parsl.app.errors"), "AppTimeout", stand_ins.AppTimeout)

        def on_alarm(_number: int, _frame: Any) -> None:
            raise timeout("The task ran longer than GC_TASK_TIMEOUT=%g s" % seconds)

        before = signal.signal(signal.SIGALRM, on_alarm)
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            return function(*args, **kwargs)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    return limited


def _error_text(error: BaseException) -> str:
    """The traceback without our own frame and the user's outermost (if more follow)."""
    kind = type(error)
    frames = traceback.extract_tb(error.__traceback__)
    own = os.path.dirname(os.path.abspath(__file__))
    while frames and os.path.dirname(os.path.abspath(frames[0].filename)) == own:
        frames.pop(0)
    if len(frames) > 1:
        frames.pop(0)
    chain = ""
    if error.__cause__ is not None:
        chain = _error_text(error.__cause__)
        chain += "\nThe above exception was the direct cause of the following exception:\n\n"
    lines = traceback.format_exception_only(kind, error)
    listed = "".join(traceback.format_list(frames))
    head = "Traceback (most recent call last):\n" if listed else ""
    return chain + head + listed + "".join(lines)


class Runner:
    """Runs tasks under given settings."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._serializer = serialization.Serializer(settings.allowed)

    def run(self, header: Dict[str, Any], body: bytearray) -> Tuple[bool, bytes]:
        """Whether it went well, and the result message without its end."""
        task_id: str = header["id"]
        error: Optional[Dict[str, str]] = None
        try:
            data = self._call(task_id, header, body)
        except TaskRefused as refused:
            data = "remote error: %s" % refused
            error = {"code": refused.code, "user_message": "remote error: %s" % refused}
        except BaseException as thrown:  # SystemExit and KeyboardInterrupt are answers, too
            try:
                data = _error_text(thrown)
            except BaseException:
                data = "%s (its text could not be made)" % type(thrown).__name__
            error = {"code": _REMOTE, "user_message": _REMOTE_TEXT}
        try:
            text = _dumps(data)
        except BaseException as thrown:
            text = _dumps("The result could not be written: %s" % type(thrown).__name__)
            error = {"code": _REMOTE, "user_message": _REMOTE_TEXT}
        message = '{"message_type":"result","data":{"task_id":"%s","data":%s' % (task_id, text)
        if error is not None:
            message += ',"error_details":' + _dumps(error)
        return error is None, b"\x01" + message.encode("utf-8", "replace")

    def _call(self, task_id: str, header: Dict[str, Any], body: bytearray) -> str:
        buffer = _unpack_message(body, task_id)
        directory = self._settings.working_dir
        environ = os.environ
        environ.pop("GC_TASK_SANDBOX_DIR", None)
        environ["GC_TASK_UUID"] = task_id
        if self._settings.sandbox:
            directory = os.path.join(directory, task_id)
            environ["GC_TASK_SANDBOX_DIR"] = directory
            os.makedirs(directory, exist_ok=True)
        try:
            os.chdir(directory)
        except FileNotFoundError:
            os.makedirs(directory, exist_ok=True)
            os.chdir(directory)
        extra: Dict[str, str] = header.get("env") or {}
        before = {name: environ.get(name) for name in extra}
        environ.update(extra)
        try:
            function, args, kwargs = _load(self._serializer, buffer)
            seconds = float(environ.get("GC_TASK_TIMEOUT") or 0)
            if seconds > 0:
                function = _with_time_limit(function, seconds)
            value = function(*args, **kwargs)
            try:
                text = self._serializer.write(value, header.get("result_serializers"))
            except Exception as error:
                raise TaskRefused(
                    "SerializationError",
                    "The function ran, but its result (%s) could not be serialized: %s: %s"
                    % (type(value).__name__, type(error).__name__, error),
                )
        finally:
            for name, old in before.items():
                if old is None:
                    environ.pop(name, None)
                else:
                    environ[name] = old
        limit = self._settings.result_limit
        if len(text) > limit:
            raise TaskRefused("MaxResultSizeExceeded", self._keep(task_id, text, limit))
        return text

    def _keep(self, task_id: str, text: str, limit: int) -> str:
        """Keeps a result that is too large for the service, and says where."""
        said = "The result takes %d bytes serialized, the service takes at most %d." % (
            len(text),
            limit,
        )
        folder = os.path.join(self._settings.working_dir, "large_results")
        path = os.path.join(folder, task_id)
        try:
            os.makedirs(folder, mode=0o700, exist_ok=True)
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            content = text.encode("utf-8", "surrogatepass")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
        except OSError as error:
            return "%s It could not be kept on site either: %s" % (said, error)
        digest = hashlib.sha256(content).hexdigest()
        return "%s It is kept on %s as %s (sha256 %s); read it with ComputeSerializer().deserialize" % (
            said,
            os.uname().nodename,
            path,
            digest,
        )


class Outputs:
    """Descriptors 1 and 2 of a worker, cut into a file for each task that wrote anything."""

    def __init__(self, log_dir: str, slot: int) -> None:
        self._folder = os.path.join(log_dir, "tasks")
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        self._ends = [0, 0]
        self._paths: List[str] = []
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
        for number, name in ((1, "stdout"), (2, "stderr")):
            path = os.path.join(log_dir, "worker-%d.%s" % (slot, name))
            handle = os.open(path, flags, 0o600)
            os.dup2(handle, number)
            os.close(handle)
            self._paths.append(path)
            self._ends[number - 1] = os.fstat(number).st_size
        sys.stdout = open(1, "w", buffering=8192, errors="backslashreplace", closefd=False)
        sys.stderr = open(2, "w", buffering=1, errors="backslashreplace", closefd=False)

    def collect(self, task_id: str) -> Dict[str, str]:
        """Paths of what the task wrote, by stream; empty if it wrote nothing."""
        found: Dict[str, str] = {}
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                pass
        for index, name in enumerate(("stdout", "stderr")):
            try:
                size = os.stat(self._paths[index]).st_size
                start = self._ends[index]
                if size > start:
                    found[name] = self._move(index, task_id + "." + name, start, size)
                    os.truncate(self._paths[index], 0)
                    size = 0
                self._ends[index] = size
            except OSError:
                continue
        return found

    def _move(self, index: int, name: str, start: int, size: int) -> str:
        path = os.path.join(self._folder, name)
        with open(self._paths[index], "rb") as source, open(path, "ab") as target:
            source.seek(start)
            target.write(source.read(min(size - start, _LOG_LIMIT)))
            if size - start > _LOG_LIMIT:
                target.write(b"\n[... %d bytes left out ...]\n" % (size - start - _LOG_LIMIT))
        return path


def _connect(settings: Settings) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(settings.socket)
    # a high number: a task that closes "all" low descriptors does not cut us off
    import fcntl

    try:
        handle = fcntl.fcntl(sock.fileno(), fcntl.F_DUPFD_CLOEXEC, 700)
    except OSError:
        return sock
    sock.close()
    return socket.socket(fileno=handle)


def _answer(runner: Runner, outputs: Optional[Outputs], header: Dict[str, Any], body: bytearray) -> Tuple[Dict[str, Any], bytes]:
    start = _now()
    cpu = time.process_time_ns()
    ok, result = runner.run(header, body)
    reply: Dict[str, Any] = {
        "t": "result",
        "id": header["id"],
        "ok": ok,
        "start_ns": start,
        "end_ns": _now(),
        "cpu_ns": time.process_time_ns() - cpu,
    }
    if outputs is not None:
        reply.update(outputs.collect(header["id"]))
    return reply, result


def _serve_threads(frames: Frames, runner: Runner, settings: Settings, count: int) -> None:
    """Many tasks at once with shared globals; what they print is not told apart."""
    from concurrent.futures import ThreadPoolExecutor

    lock = threading.Lock()

    def work(header: Dict[str, Any], body: bytearray) -> None:
        reply, result = _answer(runner, None, header, body)
        with lock:
            frames.write(reply, result)

    with ThreadPoolExecutor(count, thread_name_prefix=settings.thread_prefix) as pool:
        while True:
            header, body = frames.read()
            if header["t"] == "exit":
                return
            pool.submit(work, header, body)


def serve(settings: Settings, slot: int, threads: int) -> None:
    """Connects to the manager and works until it says exit or goes away."""
    frames = Frames(_connect(settings))
    outputs = Outputs(settings.log_dir, slot)
    runner = Runner(settings)
    frames.write(dict(describe_python(), t="ready", slot=slot, pid=os.getpid()))
    if threads > 1:
        return _serve_threads(frames, runner, settings, threads)
    while True:
        header, body = frames.read()
        if header["t"] == "exit":
            return
        reply, result = _answer(runner, outputs, header, body)
        # a task may have changed how signals are taken
        signal.signal(signal.SIGINT, signal.default_int_handler)
        frames.write(reply, result)
