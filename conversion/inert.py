"""A pickle read as data: a stack machine that can build plain values, and can do nothing else.

A PyTorch checkpoint is a pickle, and a pickle is a program for Python's unpickler. Here that program meets a
machine without imports and without calls: a class or function that it names becomes a `Foreign`, a tensor
becomes a `TensorRef` (where its numbers lie), and containers become Python's own.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import IO, Any

from conversion.values import Foreign, PickleError, Storage, is_known, is_size, made

KEYS = (str, int, float, bool, bytes, type(None))
# The published checkpoint needs some 10,000, optimiser included; each may cost a hundred bytes.
MAX_INSTRUCTIONS = 1_000_000
MAX_NAME = 500


class Machine:
    """Reads one pickle.

    Attributes:
        foreign: names of other programs' classes and functions, in the order of the file.
        storages: all stretches of numbers that it points to, by key.
    """

    def __init__(self) -> None:
        self.foreign: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}
        self._stack: list[Any] = []
        self._marks: list[list[Any]] = []
        self._memo: dict[int, Any] = {}

    def load(self, source: bytes | IO[bytes]) -> Any:
        """The value that a pickle describes; a file is left at the byte behind it.

        Raises:
            PickleError: see there; also where it asks for more than plain values.
        """
        self._stack, self._marks, self._memo = [], [], {}
        try:
            for number, (opcode, argument, _) in enumerate(pickletools.genops(source)):
                if opcode.name == "STOP":
                    return self._stack.pop()
                if number == MAX_INSTRUCTIONS:
                    raise PickleError(
                        f"it has more than {MAX_INSTRUCTIONS} instructions, and no model needs so many"
                    )
                self._step(opcode.name, argument)
        # What a damaged pickle can raise in `pickletools` and on a stack that does not hold what it should.
        except (ValueError, TypeError, LookupError, struct.error, OverflowError, MemoryError) as error:
            raise PickleError(str(error) or type(error).__name__) from error
        raise PickleError("it has no end")

    def _step(self, name: str, argument: Any) -> None:
        if name in CONSTANTS:
            self._stack.append(CONSTANTS[name])
        elif name in LITERALS:
            self._stack.append(argument)
        elif name in EMPTY:
            self._stack.append(EMPTY[name]())
        elif name in ACTIONS:
            ACTIONS[name](self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise PickleError(f"the instruction {name} has no place in a checkpoint")

    def _items(self) -> list[Any]:
        """What was put on the stack since the last mark."""
        items, self._stack = self._stack, self._marks.pop()
        return items

    def _top(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise PickleError("it takes more from its stack than is there")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _mark(self, _: Any) -> None:
        self._marks.append(self._stack)
        self._stack = []

    def _pop(self, _: Any) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._items()

    def _pop_mark(self, _: Any) -> None:
        self._items()

    def _append(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set(self, items: list[Any]) -> None:
        """Items of a dictionary; those of another program's object go nowhere."""
        target = self._stack[-1]
        if not isinstance(target, dict):
            return
        for key, value in zip(items[::2], items[1::2], strict=True):
            plain = key if _is_key(key) else Foreign("", type(key).__name__)
            if plain in target:
                raise PickleError(f"the key {str(plain)[:80]!r} is there twice")
            target[plain] = value

    def _dictionary(self, _: Any) -> None:
        items = self._items()
        self._stack.append({})
        self._set(items)

    def _memoise(self, index: int | None) -> None:
        if index is not None and not 0 <= index < MAX_INSTRUCTIONS:
            raise PickleError("a place in its memory that no pickle of this size has")
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def _recall(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _name(self, argument: str | None) -> None:
        # GLOBAL has both names in one text; STACK_GLOBAL takes them from the stack.
        module, name = argument.split(" ", 1) if argument is not None else self._top(2)
        if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_NAME:
            raise PickleError("a class or function without a name, or with one that is too long")
        named = Foreign("builtins" if module == "__builtin__" else module, name)
        if not is_known(named):
            self.foreign[str(named)] = None
        self._stack.append(named)

    def _made(self, _: Any) -> None:
        """What a function would have made of its arguments; only the few known ones make anything."""
        function, arguments = self._top(2)
        if not isinstance(function, Foreign) or not isinstance(arguments, tuple):
            raise PickleError("it calls what is no function")
        self._stack.append(made(function, arguments))

    def _made_with_names(self, _: Any) -> None:
        self._top(1)
        self._made(None)

    def _instance(self, argument: Any) -> None:
        """The oldest way to make an object (INST, OBJ)."""
        items = self._items()
        if argument is None:
            self._stack.append(items.pop(0))
        else:
            self._name(argument)
        self._stack.append(tuple(items))
        self._made(None)

    def _state(self, _: Any) -> None:
        """Attributes of an object, which is not there to take them."""
        self._top(1)

    def _storage(self, argument: Any) -> None:
        words = self._top(1)[0] if argument is None else argument
        if not isinstance(words, tuple) or len(words) < 5 or words[0] != "storage":
            raise PickleError("it points outside itself, and not to a tensor's numbers")
        _, kind, key, _, size = words[:5]
        if len(words) > 5 and words[5] is not None:
            raise PickleError("a tensor is a view of another storage, as only very old files have")
        if not isinstance(kind, Foreign) or not is_size(size) or not isinstance(key, str):
            raise PickleError("a storage without type, name or size")
        storage = Storage(key, kind.name, size)
        if self.storages.setdefault(storage.key, storage) != storage:
            raise PickleError(f"the storage {storage.key[:40]!r} has two types or sizes")
        self._stack.append(storage)


def _is_key(value: Any) -> bool:
    return isinstance(value, KEYS) and not (isinstance(value, int) and abs(value) >= 2**63)


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "STRING", "BINSTRING", "SHORT_BINSTRING"),
    *("SHORT_BINBYTES", "BINBYTES", "BINBYTES8"),
}
EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_SET": list,
    "EMPTY_TUPLE": tuple,
}
ACTIONS: dict[str, Callable[[Machine, Any], None]] = {
    "MARK": Machine._mark,
    "POP": Machine._pop,
    "POP_MARK": Machine._pop_mark,
    "DUP": lambda machine, _: machine._push(machine._stack[-1]),
    "TUPLE": lambda machine, _: machine._push(tuple(machine._items())),
    "TUPLE1": lambda machine, _: machine._push(tuple(machine._top(1))),
    "TUPLE2": lambda machine, _: machine._push(tuple(machine._top(2))),
    "TUPLE3": lambda machine, _: machine._push(tuple(machine._top(3))),
    "LIST": lambda machine, _: machine._push(machine._items()),
    "FROZENSET": lambda machine, _: machine._push(machine._items()),
    "APPEND": lambda machine, _: machine._append(machine._top(1)),
    "APPENDS": lambda machine, _: machine._append(machine._items()),
    "ADDITEMS": lambda machine, _: machine._append(machine._items()),
    "DICT": Machine._dictionary,
    "SETITEM": lambda machine, _: machine._set(machine._top(2)),
    "SETITEMS": lambda machine, _: machine._set(machine._items()),
    **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"), Machine._memoise),
    **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), Machine._recall),
    **dict.fromkeys(("GLOBAL", "STACK_GLOBAL"), Machine._name),
    **dict.fromkeys(("REDUCE", "NEWOBJ"), Machine._made),
    "NEWOBJ_EX": Machine._made_with_names,
    **dict.fromkeys(("INST", "OBJ"), Machine._instance),
    "BUILD": Machine._state,
    **dict.fromkeys(("PERSID", "BINPERSID"), Machine._storage),
}
