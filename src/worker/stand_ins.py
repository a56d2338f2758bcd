"""Stand-ins for the few modules that functions name when they are pickled by reference.

Where the SDK or Parsl is importable, theirs are used; where not, these behave alike: `ShellFunction`, `ShellResult`, `MPIFunction`,
and the exception that a task's time limit raises.
"""

import importlib.util
import keyword
import os
import subprocess
import sys
import tempfile
import types
import uuid
from typing import Any, Dict, IO, Optional, Union


class ShellResult:
    """What a shell command did."""

    def __init__(
        self,
        cmd: str,
        stdout: str,
        stderr: str,
        returncode: int,
        exception_name: Optional[str] = None,
    ) -> None:
        self.cmd = cmd
        self.stdout = stdout
        self.stderr = stderr
        self.returncode = returncode
        self.exception_name = exception_name

    def __repr__(self) -> str:
        return "ShellResult(returncode=%r, cmd=%r, exception_name=%r, stdout=%r, stderr=%r)" % (
            self.returncode,
            self.cmd,
            self.exception_name,
            self.stdout,
            self.stderr,
        )

    __str__ = __repr__


class ShellFunction:
    """A command line that is formatted with the call's keyword arguments and run by bash."""

    def __init__(
        self,
        cmd: str,
        stdout: Optional[str] = None,
        stderr: Optional[str] = None,
        walltime: Optional[float] = None,
        snippet_lines: int = 1000,
        name: Optional[str] = None,
        return_dict: bool = False,
    ) -> None:
        self.cmd = cmd
        self.stdout = stdout
        self.stderr = stderr
        self.walltime = walltime
        self.snippet_lines = snippet_lines
        name = name or type(self).__name__
        if not name.isidentifier() or keyword.iskeyword(name):
            raise ValueError("Function name must be valid python name")
        self.__name__ = name
        self.return_dict = return_dict

    def _open(self, path: Optional[str], suffix: str) -> IO[str]:
        if path is None:
            prefix = os.environ.get("GC_TASK_UUID", str(uuid.uuid4())[-10:]) + "."
            handle, path = tempfile.mkstemp(dir=os.getcwd(), prefix=prefix, suffix=suffix)
            os.close(handle)
        elif os.path.dirname(path):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        return open(path, "a+")

    def _last_lines(self, file: IO[str]) -> str:
        file.seek(0)
        with file:
            return "".join(file.readlines()[-self.snippet_lines :])

    def execute_cmd_line(self, cmd: str) -> Union[ShellResult, Dict[str, Any]]:
        sandbox = os.environ.get("GC_TASK_SANDBOX_DIR")
        if sandbox:
            os.makedirs(sandbox, exist_ok=True)
            os.chdir(sandbox)
        out = self._open(self.stdout, ".stdout")
        err = self._open(self.stderr, ".stderr")
        if not sandbox:
            err.write(
                "WARNING: this task does not run in a sandbox; set run_in_sandbox in the endpoint's engine to give each "
                "task a directory of its own\n"
            )
            err.flush()
        failure: Optional[str] = None
        try:
            child = subprocess.Popen(
                cmd, stdout=out, stderr=err, shell=True, executable="/bin/bash", close_fds=False
            )
            code = child.wait(timeout=self.walltime)
            if code != 0:
                failure = "subprocess.CalledProcessError"
        except subprocess.TimeoutExpired:
            code = 124  # as timeout(1) has it
            failure = "subprocess.TimeoutExpired"
        result: Dict[str, Any] = {
            "cmd": cmd,
            "stdout": self._last_lines(out),
            "stderr": self._last_lines(err),
            "returncode": code,
            "exception_name": failure,
        }
        return result if getattr(self, "return_dict", False) else ShellResult(**result)

    def __call__(self, **kwargs: Any) -> Union[ShellResult, Dict[str, Any]]:
        return self.execute_cmd_line(self.cmd.format(**kwargs))


class MPIFunction(ShellFunction):
    """A ShellFunction that runs under the block's MPI launcher."""

    def __call__(self, **kwargs: Any) -> Union[ShellResult, Dict[str, Any]]:
        return self.execute_cmd_line("$PARSL_MPI_PREFIX " + self.cmd.format(**kwargs))


class AppTimeout(Exception):
    """A task ran longer than GC_TASK_TIMEOUT allows."""


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _module(path: str, **names: Any) -> None:
    """Makes a module and the packages above it."""
    parts = path.split(".")
    for end in range(1, len(parts) + 1):
        full = ".".join(parts[:end])
        if full not in sys.modules:
            module = types.ModuleType(full)
            module.__path__ = []
            sys.modules[full] = module
            if end > 1:
                setattr(sys.modules[".".join(parts[: end - 1])], parts[end - 1], module)
    for name, value in names.items():
        value.__module__ = path
        setattr(sys.modules[path], name, value)


def install() -> None:
    """Puts stand-ins where the real modules are missing."""
    if not _importable("globus_compute_sdk"):
        _module(
            "globus_compute_sdk.sdk.shell_function",
            ShellFunction=ShellFunction,
            ShellResult=ShellResult,
        )
        _module("globus_compute_sdk.sdk.mpi_function", MPIFunction=MPIFunction)
        top = sys.modules["globus_compute_sdk"]
        for value in (ShellFunction, ShellResult, MPIFunction):
            setattr(top, value.__name__, value)
    if not _importable("parsl"):
        _module("parsl.app.errors", AppTimeout=AppTimeout)
