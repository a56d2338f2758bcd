"""The worker, called as a manager calls it; functions are packed by the real SDK."""

import os
import signal
import sys
import time
from typing import Any

import pytest
from globus_compute_sdk import ShellFunction
from globus_compute_sdk.serialize import (
    AllCodeStrategies,
    AllDataStrategies,
    CombinedCode,
    ComputeSerializer,
    DillCodeSource,
    JSONData,
    PureSourceDill,
)

HERE = "%d.%d" % sys.version_info[:2]


def packed(function: Any, *args: Any, serializer: Any = None, **kwargs: Any) -> str:
    s = serializer or ComputeSerializer()
    return s.pack_buffers([s.serialize(function), s.serialize(args), s.serialize(kwargs)])


def source(name: str, text: str) -> str:
    """A task that any Python can read: plain source, JSON arguments."""
    s = ComputeSerializer()
    return s.pack_buffers(["st\n%s:%s" % (name, text), "11\n[]", "11\n{}"])


def add(a: int, b: int = 2) -> int:
    return a + b


def in_script(text: str) -> Any:
    """A function as if typed into a script: dill packs it by value, where it would only name one of this module."""
    namespace = {"__name__": "__main__"}
    exec(text, namespace)
    return next(value for name, value in namespace.items() if not name.startswith("__"))


typed = in_script("def typed(a, b=2): return a + b")


def test_source_runs_under_every_interpreter(worker: Any) -> None:
    header, data = worker.run(source("f", "def f():\n    return '\U0001d54f' * 2\n"))
    assert header["ok"]
    assert ComputeSerializer().deserialize(data["data"]) == "\U0001d54f" * 2


def test_bytecode_runs_or_is_refused_naming_versions(worker: Any) -> None:
    started = time.monotonic()
    header, data = worker.run(packed(typed, 1))
    assert time.monotonic() - started < 1
    version = ".".join(worker.facts["python"].split(".")[:2])
    if version == HERE:
        assert ComputeSerializer().deserialize(data["data"]) == 3
    elif not header["ok"]:
        assert version in data["data"] and "AllCodeStrategies" in data["data"]
    # whatever it was, the worker lives on
    assert worker.run(source("f", "def f(): return 1"))[0]["ok"]


@pytest.mark.parametrize(
    "serializer",
    [
        ComputeSerializer(strategy_code=AllCodeStrategies(), strategy_data=AllDataStrategies()),
        ComputeSerializer(strategy_code=CombinedCode(), strategy_data=JSONData()),
        ComputeSerializer(strategy_code=PureSourceDill()),
        ComputeSerializer(strategy_code=DillCodeSource()),
    ],
)
def test_every_serializer_of_the_sdk_is_read(own_worker: Any, serializer: Any) -> None:
    header, data = own_worker.run(packed(add, 1, serializer=serializer))
    assert header["ok"], data
    assert ComputeSerializer().deserialize(data["data"]) == 3


def test_result_serializers_are_tried_in_order(own_worker: Any) -> None:
    paths = ["globus_compute_sdk.serialize.concretes.JSONData"]
    _, data = own_worker.run(packed(typed, 1), result_serializers=paths)
    assert data["data"] == "11\n3"


@pytest.mark.parametrize(
    "text, part",
    [
        ("def f():\n    import sys; sys.exit(3)", "SystemExit: 3"),
        ("def f():\n    raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("def f():\n    return f()", "RecursionError"),
        ("def f():\n    import not_there", "not_there"),
        ("def f():\n    import os; os.chdir('/'); os.environ.clear(); raise ValueError('x')", "ValueError: x"),
    ],
)
def test_every_exception_is_an_answer_and_the_worker_lives(worker: Any, text: str, part: str) -> None:
    header, data = worker.run(source("f", text))
    assert not header["ok"]
    assert part in data["data"]
    assert data["error_details"]["code"] == "RemoteExecutionError"
    assert worker.run(source("f", "def f(): return 1"))[0]["ok"]


@pytest.mark.parametrize(
    "body, part",
    [
        (b"\x02{}", "version byte"),
        (b"\x01{", "cannot be read"),
        (b"\x01" + b'{"a":' * 5000, "cannot be read"),
        (b'\x01{"message_type":"task","data":{"task_id":"other","task_buffer":""}}', "its AMQP header"),
    ],
)
def test_bad_messages_are_answered(own_worker: Any, body: bytes, part: str) -> None:
    own_worker.send(body)
    header, data = own_worker.answer()
    assert not header["ok"]
    assert part in data["data"] or "nested too deep" in data["data"]


def test_a_buffer_cut_short_is_answered(own_worker: Any) -> None:
    header, data = own_worker.run(packed(typed, 1)[:-3])
    assert not header["ok"] and "cut short" in data["data"]


def living_in_group(group: int) -> list:
    """Processes of a group that are no zombies."""
    found = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open("/proc/%s/stat" % name) as file:
                fields = file.read().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(name))
    return found


def test_death_is_reported_with_its_signal_and_leaves_no_children(own_worker: Any) -> None:
    own_worker.run(source("f", "def f():\n    import subprocess; return subprocess.Popen(['sleep', '60']).pid"))
    pid = own_worker.forked["pid"]
    os.kill(pid, signal.SIGSEGV)
    ended = own_worker.heard()
    assert (ended["t"], ended["pid"], ended["signal"]) == ("reaped", pid, signal.SIGSEGV)
    time.sleep(0.2)
    assert not living_in_group(pid)


def test_what_a_function_prints_goes_to_a_file_of_its_task(own_worker: Any) -> None:
    header, _ = own_worker.run(source("f", "def f(): print('spoken')"))
    assert open(header["stdout"]).read() == "spoken\n"
    assert "stdout" not in own_worker.run(source("f", "def f(): pass"))[0]


def test_a_result_too_large_is_kept_and_named(tmp_path: Any) -> None:
    from conftest import Worker

    made = Worker(sys.executable, tmp_path, result_limit=1000)
    try:
        header, data = made.run(source("f", "def f(): return 'x' * 2000"))
        assert data["error_details"]["code"] == "MaxResultSizeExceeded"
        path = data["data"].split(" as ")[1].split(" ")[0]
        assert ComputeSerializer().deserialize(open(path).read()) == "x" * 2000
        assert os.stat(path).st_mode & 0o777 == 0o600
    finally:
        made.close()


def test_allowed_serializers_refuse_before_anything_is_loaded(tmp_path: Any) -> None:
    from conftest import Worker

    base = "globus_compute_sdk.serialize.concretes."
    made = Worker(sys.executable, tmp_path, allowed_serializers=[base + "PureSourceTextInspect", base + "JSONData"])
    try:
        assert made.run(source("f", "def f(): return 1"))[0]["ok"]
        header, data = made.run(packed(typed, 1))
        assert not header["ok"] and "allowed_serializers" in data["data"]
    finally:
        made.close()


def test_shell_functions_work(own_worker: Any) -> None:
    header, data = own_worker.run(packed(ShellFunction("echo {x}; exit 3"), x="hi"))
    result = ComputeSerializer().deserialize(data["data"])
    assert (result.returncode, result.stdout) == (3, "hi\n")


SHELL = """
def f():
    from globus_compute_sdk.sdk.shell_function import ShellFunction
    r = ShellFunction("echo {x}; exit 3", return_dict=True)(x="hi")
    return [r["returncode"], r["stdout"], r["exception_name"]]
"""


def test_shell_functions_work_without_the_sdk(worker: Any) -> None:
    header, data = worker.run(source("f", SHELL))
    assert header["ok"], data
    assert ComputeSerializer().deserialize(data["data"]) == [3, "hi\n", "subprocess.CalledProcessError"]


def test_a_time_limit_ends_the_call(own_worker: Any) -> None:
    header, data = own_worker.run(
        source("f", "def f():\n    import time; time.sleep(20)"), env={"GC_TASK_TIMEOUT": "0.3"}
    )
    assert not header["ok"] and "GC_TASK_TIMEOUT" in data["data"]
