"""Tells whether a code object that came by wire can run here.

Bytecode of another Python version does not raise an error: called, it mostly ends the process with SIGSEGV. So every code
object is looked at before it is made, by the number of fields that dill wrote and by walking its instructions with
this interpreter's own table.
"""

import dis
import opcode
import sys
from typing import Any, Optional, Sequence, Tuple

HERE = sys.version_info[:2]

_RESUME = {(3, 11): 0x97, (3, 12): 0x97, (3, 13): 0x95}


class ForeignBytecode(Exception):
    """A function was serialized as bytecode of another Python version."""


def _caches() -> Sequence[int]:
    entries: Any = getattr(opcode, "_inline_cache_entries", None)
    if entries is None:
        return [0] * 256
    if isinstance(entries, dict):
        table = [0] * 256
        for name, count in entries.items():
            number = opcode.opmap.get(name)
            if number is not None:
                table[number] = count
        return table
    return list(entries) + [0] * (256 - len(entries))


_CACHES = _caches()
_VALID = [not name.startswith("<") for name in dis.opname[:256]]
_FIRST = {
    opcode.opmap[name]
    for name in ("RESUME", "COPY_FREE_VARS", "RETURN_GENERATOR", "MAKE_CELL")
    if name in opcode.opmap
}


def fields_here() -> int:
    """How many fields dill writes for a code object of this version."""
    if HERE >= (3, 11):
        return 19
    return 17 if HERE == (3, 10) else 16


def _origin(count: int, code: bytes) -> str:
    """The submitter's Python version, as far as the bytecode tells."""
    if count == 16:
        return "3.8 or 3.9"
    if count == 17:
        return "3.10"
    first, argument = code[0], code[1] if len(code) > 1 else 0
    if (first == 0x95 and argument == 0) or first in (0x3E, 0x23, 0x5E):
        return "3.13"
    if first in (0x97, 0x95, 0x4B, 0x87):
        return "3.12" if HERE == (3, 11) else "3.11" if HERE == (3, 12) else "3.11 or 3.12"
    return "3.14" if first in (0x80, 0x3F) else "another version"


def _walks(code: bytes) -> bool:
    """Whether the instructions make sense to this interpreter."""
    at = 0
    size = len(code)
    modern = HERE >= (3, 11)
    while at < size:
        number = code[at]
        if not _VALID[number] or (modern and number == 0):
            return False
        at += 2
        for _ in range(_CACHES[number]):
            if at >= size or code[at] != 0:
                return False
            at += 2
    return True


def check(fields: Tuple[Any, ...]) -> None:
    """Raises ForeignBytecode if these fields of a code object are another version's."""
    code: Optional[bytes] = None
    for index, field in enumerate(fields[:-1]):
        if isinstance(field, bytes) and isinstance(fields[index + 1], tuple):
            code = field
            break
    if not code:
        return
    count = len(fields)
    foreign = count in (16, 17, 19) and count != fields_here()
    if not foreign and HERE >= (3, 11):
        first = code[0]
        foreign = first not in _FIRST
        if not foreign and HERE in ((3, 11), (3, 12)) and first == 0x95:
            foreign = len(code) > 1 and code[1] == 0
    if foreign or not _walks(code):
        here = "%d.%d" % HERE
        raise ForeignBytecode(
            "The function was serialized as bytecode of Python %s, and this worker runs Python %s, which cannot run it. "
            "Submit from Python %s, or send the source instead: "
            "Executor(serializer=ComputeSerializer(strategy_code=AllCodeStrategies())), or give the endpoint's worker "
            "the submitter's Python version" % (_origin(count, code), here, here)
        )
