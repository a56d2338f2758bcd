"""Reads task buffers and writes result values, with every identifier of the public SDK.

`01` dill, `02` pickle (read only), `03` `04` dill of name and source, `st` `sd` plain source, `10` `12` several of these; data: `00` dill,
`11` JSON, `13` both. Lengths in a packed buffer count characters.
"""

import base64
import io
import json
import pickle
import re
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import bytecode
import dill

_PATH = "globus_compute_sdk.serialize.concretes."
CLASSES: Dict[str, Tuple[str, bool]] = {
    "01": ("DillCode", True),
    "02": ("PickleCode", True),
    "03": ("DillCodeTextInspect", True),
    "04": ("DillCodeSource", True),
    "st": ("PureSourceTextInspect", True),
    "sd": ("PureSourceDill", True),
    "10": ("CombinedCode", True),
    "12": ("AllCodeStrategies", True),
    "00": ("DillDataBase64", False),
    "11": ("JSONData", False),
    "13": ("AllDataStrategies", False),
}
_IDS = {name: identifier for identifier, (name, _) in CLASSES.items()}
_WILDCARDS = {"globus_compute_sdk.*Code": True, "globus_compute_sdk.*Data": False}


class SerdeError(Exception):
    """A value or function cannot be read or written."""


class DeserializationError(SerdeError):
    """A buffer cannot be read."""


class SerializationError(SerdeError):
    """A value cannot be written."""


_create_code = dill._dill._create_code


def _checked_code(*fields: Any) -> Any:
    bytecode.check(fields)
    return _create_code(*fields)


class _Unpickler(dill.Unpickler):  # type: ignore[misc]
    def find_class(self, module: str, name: str) -> Any:
        if name == "_create_code":
            return _checked_code
        return super().find_class(module, name)


def _undill(text: str) -> Any:
    return _Unpickler(io.BytesIO(base64.b64decode(text))).load()


def _unpickle(text: str) -> Any:
    return pickle.loads(base64.b64decode(text))


def _run_source(name: str, source: str) -> Any:
    namespace: Dict[str, Any] = {}
    exec(source, namespace)
    return namespace[name]


def _dilled_source(text: str) -> Any:
    name, source = _undill(text)
    return _run_source(name, source)


def _plain_source(text: str) -> Any:
    name, source = text.split(":", 1)
    return _run_source(name, source)


_CHUNK = re.compile(r"(04|01|03|sd|st)\n:")


def _combined(text: str) -> Any:
    """Chunks `id\\n:payload:id\\n:payload`; source may itself hold colons, so the ids are what is looked for."""
    marks = [m for m in _CHUNK.finditer(text) if m.start() == 0 or text[m.start() - 1] == ":"]
    errors: List[str] = []
    for index, mark in enumerate(marks):
        end = marks[index + 1].start() - 1 if index + 1 < len(marks) else len(text)
        identifier = mark.group(1)
        try:
            return _READERS[identifier](text[mark.end() : end])
        except Exception as error:
            errors.append("%s: %s" % (CLASSES[identifier][0], error))
    raise DeserializationError("No form of the function could be loaded: " + "; ".join(errors))


def _several(text: str) -> Any:
    errors: List[str] = []
    for buffer in unpack(text):
        try:
            return _read(buffer)
        except Exception as error:
            errors.append("%s: %s" % (CLASSES.get(buffer[:2], (buffer[:2], True))[0], error))
    raise DeserializationError("No form of the object could be loaded: " + "; ".join(errors))


_READERS: Dict[str, Callable[[str], Any]] = {
    "00": _undill,
    "01": _undill,
    "02": _unpickle,
    "03": _dilled_source,
    "04": _dilled_source,
    "st": _plain_source,
    "sd": _plain_source,
    "10": _combined,
    "12": _several,
    "11": json.loads,
    "13": _several,
}


def unpack(packed: str) -> List[str]:
    """Splits `<length>\\n<string>...`. Raises DeserializationError if it is cut short."""
    parts: List[str] = []
    at = 0
    while at < len(packed):
        newline = packed.find("\n", at, at + 12)
        digits = packed[at:newline] if newline > 0 else ""
        if not digits.isdigit():
            raise DeserializationError("The task buffer has no length at character %d" % at)
        start = newline + 1
        at = start + int(digits)
        if at > len(packed):
            raise DeserializationError(
                "The task buffer is cut short: %d characters are missing" % (at - len(packed))
            )
        parts.append(packed[start:at])
    return parts


def _read(buffer: str) -> Any:
    reader = _READERS.get(buffer[:2]) if buffer[2:3] == "\n" else None
    if reader is None:
        raise DeserializationError("The serialization %r is not known" % buffer[:3])
    return reader(buffer[3:])


class Serializer:
    """Reads tasks under an allow list, writes results."""

    def __init__(self, allowed: Optional[Sequence[str]] = None) -> None:
        self._allowed_ids: Optional[List[str]] = None
        self._allowed_names: List[str] = list(allowed or [])
        if allowed:
            self._allowed_ids = []
            for entry in allowed:
                if entry in _WILDCARDS:
                    kind = _WILDCARDS[entry]
                    ids = [i for i, (_, code) in CLASSES.items() if code == kind and i != "02"]
                    self._allowed_ids.extend(ids)
                else:
                    identifier = _IDS.get(entry.rsplit(".", 1)[-1])
                    if identifier:
                        self._allowed_ids.append(identifier)

    def _check(self, buffer: str) -> None:
        identifier = buffer[:2]
        if self._allowed_ids is None or identifier in self._allowed_ids:
            return
        name, code = CLASSES.get(identifier, (repr(identifier), True))
        kind = "Code" if code else "Data"
        names = [n for n in self._allowed_names if n.endswith(kind) or kind in _kind_of(n)]
        raise DeserializationError(
            "%s serialized with %s is refused by this endpoint's allowed_serializers; allowed: %s"
            % (kind, name, ", ".join(names) or ", ".join(self._allowed_names))
        )

    def read_task(self, task_buffer: str) -> Tuple[Any, Any, Any]:
        """Function, arguments, keyword arguments."""
        buffers = unpack(task_buffer)
        if len(buffers) != 3:
            raise DeserializationError(
                "The task buffer holds %d parts, not 3 (function, arguments, keyword arguments)" % len(buffers)
            )
        for buffer in buffers:
            self._check(buffer)
        return _read(buffers[0]), _read(buffers[1]), _read(buffers[2])

    def write(self, value: Any, strategies: Optional[Sequence[str]]) -> str:
        """Serializes a result with the first strategy that works."""
        is_code = callable(value) and hasattr(value, "__name__")
        if not strategies:
            return _dill_text("01" if is_code else "00", value)
        errors: List[str] = []
        for path in strategies:
            name = path.rsplit(".", 1)[-1]
            identifier = _IDS.get(name)
            try:
                if identifier is None:
                    raise SerializationError("is not known")
                if CLASSES[identifier][1] != is_code:
                    raise SerializationError("is not for " + ("code" if is_code else "data"))
                return _write(identifier, value)
            except Exception as error:
                errors.append("%s: %s" % (name, error))
        raise SerializationError("All strategies failed. " + "; ".join(errors))


def _kind_of(entry: str) -> str:
    found = _IDS.get(entry.rsplit(".", 1)[-1])
    if found is None:
        return ""
    return "Code" if CLASSES[found][1] else "Data"


def _dill_text(identifier: str, value: Any) -> str:
    return identifier + "\n" + base64.encodebytes(dill.dumps(value)).decode("ascii")


def _packed(parts: Sequence[str]) -> str:
    return "".join("%d\n%s" % (len(part), part) for part in parts)


def _source_of(value: Any, identifier: str) -> Tuple[str, str]:
    if identifier in ("sd", "04"):
        return value.__name__, dill.source.getsource(value, lstrip=True)
    import inspect

    return value.__name__, inspect.getsource(value)


def _write(identifier: str, value: Any) -> str:
    if identifier in ("00", "01"):
        return _dill_text(identifier, value)
    if identifier == "11":
        return "11\n" + json.dumps(value)
    if identifier in ("st", "sd"):
        return identifier + "\n" + ":".join(_source_of(value, identifier))
    if identifier in ("03", "04"):
        return _dill_text(identifier, _source_of(value, identifier))
    if identifier in ("12", "13"):
        parts: List[str] = []
        for inner in ("st", "sd", "01") if identifier == "12" else ("11", "00"):
            try:
                parts.append(_write(inner, value))
            except Exception:
                continue
        if parts:
            return identifier + "\n" + _packed(parts)
    raise SerializationError("cannot write this value")
