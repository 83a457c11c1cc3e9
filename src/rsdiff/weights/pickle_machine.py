"""A pickle interpreter that executes nothing: a pickle becomes plain containers, scalars and inert records.

Python's own unpickler calls whatever a file names; even with a filtered `find_class` it calls, subclasses and sets attributes on what the
filter lets through. Here no callable ever reaches the stack. A name in the file is a `Reference`, calling one makes a `Record`, and only
the functions of the `rebuild` table, which are ours and see data only, turn a call into a value.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NoReturn

from rsdiff.config import UserError

MAX_OPERATIONS = 200_000_000
"""Far above any checkpoint; bounds the time a crafted file can take."""
MAX_KEY_PARTS = 1000
"""Parts of a dictionary key; Python hashes nested tuples recursively, which a crafted key could drive into a crash."""

Rebuild = Callable[..., Any]


class UnsafeFileError(UserError):
    """A file that is damaged, is of no accepted format, or holds what a checkpoint never holds. The message is one sentence."""


@dataclass(frozen=True)
class Reference:
    """A name in a pickle, 'module.qualname', that was not looked up."""

    name: str


@dataclass(eq=False)
class Record:
    """An object of a class or function that was neither imported nor called.

    name      'module.qualname' of what would have made it
    args      positional arguments it would have been called with; `kwargs` keyword arguments
    state     what its __setstate__ or __dict__ would have received
    items     key-value pairs of a dict subclass; `elements` members of a list or set subclass
    """

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[Any, Any] = field(default_factory=dict)
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def attributes(self) -> dict[str, Any]:
        """Return the instance attributes its state would have set: a __dict__, or the (__dict__, slots) pair of classes with slots."""
        if isinstance(self.state, tuple) and len(self.state) == 2:
            parts = [part for part in self.state if isinstance(part, dict)]
        else:
            parts = [self.state] if isinstance(self.state, dict) else []
        return {str(key): value for part in parts for key, value in part.items()}


class Unfinished(Record):
    """A value that a BUILD operation completes; see `finish`."""

    def finish(self, state: Any) -> Any:
        """Return the completed value."""
        raise NotImplementedError


_MARK = object()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_PUSH_ARGUMENT = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
_IGNORED = frozenset({"PROTO", "FRAME", "READONLY_BUFFER"})
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set, "EMPTY_TUPLE": tuple}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read_one_pickle(stream: BinaryIO, rebuild: Mapping[str, Rebuild], persistent: Callable[[Any], Any] | None = None) -> Any:
    """Return the object of the next pickle in `stream`, leaving the stream behind it.

    rebuild     'module.qualname' -> function that makes a value of the call's arguments
    persistent  makes a value of a persistent id; without it a persistent id becomes a record
    Raises UnsafeFileError for anything that is not a well-formed pickle of data.
    """
    machine = _Machine(rebuild, persistent)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MAX_OPERATIONS:
                raise UnsafeFileError(f"the pickle has more than {MAX_OPERATIONS} operations, which no checkpoint needs.")
            if opcode.name == "STOP":
                return machine.pop()
            machine.step(opcode.name, argument)
    except UnsafeFileError:
        raise
    except (ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError, MemoryError, AttributeError) as error:
        raise UnsafeFileError(f"the file is not a well-formed pickle of data ({type(error).__name__}: {error}).") from error
    raise UnsafeFileError("the pickle ends before its STOP operation.")


class _Machine:
    def __init__(self, rebuild: Mapping[str, Rebuild], persistent: Callable[[Any], Any] | None) -> None:
        self._rebuild = rebuild
        self._persistent = persistent
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._unfinished: dict[int, list[int]] = {}  # id of an unfinished value -> memo slots that hold it

    def pop(self) -> Any:
        if not self._stack or self._stack[-1] is _MARK:
            raise UnsafeFileError("the pickle takes a value from an empty stack.")
        return self._stack.pop()

    def _pop_to_mark(self) -> list[Any]:
        for position in range(len(self._stack) - 1, -1, -1):
            if self._stack[position] is _MARK:
                taken = self._stack[position + 1 :]
                del self._stack[position:]
                return taken
        raise UnsafeFileError("the pickle refers to a mark that was not set.")

    def _top(self) -> Any:
        value = self.pop()
        self._stack.append(value)
        return value

    def _remember(self, slot: int) -> None:
        value = self._top()
        self._memo[slot] = value
        if isinstance(value, Unfinished):
            self._unfinished.setdefault(id(value), []).append(slot)

    def step(self, name: str, argument: Any) -> None:
        """Carry out one operation; the names are those of `pickletools`."""
        push = self._stack.append
        if name in _PUSH_ARGUMENT:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in _EMPTY:
            push(_EMPTY[name]())
        elif name in _TUPLES:
            push(tuple(reversed([self.pop() for _ in range(_TUPLES[name])])))
        elif name in _IGNORED:
            pass
        elif name == "MARK":
            push(_MARK)
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self._memo[int(argument)])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._remember(int(argument))
        elif name == "MEMOIZE":
            self._remember(len(self._memo))
        else:
            method = getattr(self, f"_do_{name.lower()}", None)
            if method is None:
                raise UnsafeFileError(f"the pickle uses the operation {name}, which checkpoints do not contain.")
            method(argument)

    # Containers

    def _do_pop(self, _: Any) -> None:
        if not self._stack:
            raise UnsafeFileError("the pickle takes a value from an empty stack.")
        self._stack.pop()

    def _do_pop_mark(self, _: Any) -> None:
        self._pop_to_mark()

    def _do_dup(self, _: Any) -> None:
        self._stack.append(self._top())

    def _do_tuple(self, _: Any) -> None:
        self._stack.append(tuple(self._pop_to_mark()))

    def _do_list(self, _: Any) -> None:
        self._stack.append(self._pop_to_mark())

    def _do_dict(self, _: Any) -> None:
        values = self._pop_to_mark()
        made: dict[Any, Any] = {}
        set_items(made, values)
        self._stack.append(made)

    def _do_frozenset(self, _: Any) -> None:
        self._stack.append(frozenset(checked_key(value) for value in self._pop_to_mark()))

    def _do_append(self, _: Any) -> None:
        value = self.pop()
        _extend(self._top(), [value])

    def _do_appends(self, _: Any) -> None:
        values = self._pop_to_mark()
        _extend(self._top(), values)

    def _do_additems(self, _: Any) -> None:
        values = self._pop_to_mark()
        target = self._top()
        if isinstance(target, Record):
            target.elements.extend(values)
        elif isinstance(target, set):
            target.update(checked_key(value) for value in values)
        else:
            raise UnsafeFileError(f"the pickle adds members to a {type(target).__name__}.")

    def _do_setitem(self, _: Any) -> None:
        value, key = self.pop(), self.pop()
        self._set(self._top(), [key, value])

    def _do_setitems(self, _: Any) -> None:
        values = self._pop_to_mark()
        self._set(self._top(), values)

    @staticmethod
    def _set(target: Any, values: list[Any]) -> None:
        if isinstance(target, Record):
            target = target.items
        if not isinstance(target, dict):
            raise UnsafeFileError(f"the pickle sets items of a {type(target).__name__}.")
        set_items(target, values)

    # Names and objects

    def _do_global(self, argument: str) -> None:
        self._stack.append(Reference(argument.replace(" ", ".", 1)))

    def _do_stack_global(self, _: Any) -> None:
        name, module = self.pop(), self.pop()
        if not (isinstance(name, str) and isinstance(module, str)):
            raise UnsafeFileError("the pickle names an object by something that is not text.")
        self._stack.append(Reference(f"{module}.{name}"))

    def _do_reduce(self, _: Any) -> None:
        args, target = self.pop(), self.pop()
        self._stack.append(self._call(target, args, {}))

    def _do_newobj(self, _: Any) -> None:
        self._do_reduce(_)

    def _do_newobj_ex(self, _: Any) -> None:
        kwargs, args, target = self.pop(), self.pop(), self.pop()
        self._stack.append(self._call(target, args, kwargs))

    def _do_inst(self, argument: str) -> None:
        args = tuple(self._pop_to_mark())
        self._stack.append(self._call(Reference(argument.replace(" ", ".", 1)), args, {}))

    def _do_obj(self, _: Any) -> None:
        target, *args = self._pop_to_mark()
        self._stack.append(self._call(target, tuple(args), {}))

    def _call(self, target: Any, args: Any, kwargs: Any) -> Any:
        if not isinstance(args, tuple) or not isinstance(kwargs, dict):
            raise UnsafeFileError("the pickle makes an object with arguments that are not a tuple.")
        if not isinstance(target, Reference):
            return Record("the result of calling", (target, *args), kwargs)
        rebuild = self._rebuild.get(target.name)
        if rebuild is None or kwargs:
            return Record(target.name, args, kwargs)
        return rebuild(*args)

    def _do_build(self, _: Any) -> None:
        state, target = self.pop(), self.pop()
        if isinstance(target, Unfinished):
            finished = target.finish(state)
            for slot in self._unfinished.pop(id(target), ()):
                self._memo[slot] = finished
            target = finished
        elif isinstance(target, Record):
            target.state = state
        elif isinstance(target, Reference):
            raise UnsafeFileError(f"the pickle changes the class or function {target.name} itself.")
        # Attributes of plain containers and tensors (an OrderedDict's _metadata) are no data: dropped.
        self._stack.append(target)

    def _do_persid(self, argument: str) -> None:
        self._stack.append(self._persistent(argument) if self._persistent else Record("a persistent id", (argument,)))

    def _do_binpersid(self, _: Any) -> None:
        self._do_persid(self.pop())


def _extend(target: Any, values: list[Any]) -> None:
    if isinstance(target, Record):
        target.elements.extend(values)
    elif isinstance(target, list):
        target.extend(values)
    else:
        raise UnsafeFileError(f"the pickle appends to a {type(target).__name__}.")


def set_items(target: dict[Any, Any], values: list[Any]) -> None:
    """Add [key, value, key, value, ...] to `target`; raises UnsafeFileError for keys that no checkpoint uses."""
    if len(values) % 2:
        raise UnsafeFileError("the pickle gives a dictionary a key without a value.")
    for key, value in zip(values[::2], values[1::2], strict=True):
        target[checked_key(key)] = value


def checked_key(key: Any) -> Any:
    """Return `key` if it is a scalar, a name, a record or a small tuple of those; raises UnsafeFileError otherwise."""
    pending, parts = [key], 0
    while pending:
        part = pending.pop()
        parts += 1
        if parts > MAX_KEY_PARTS:
            _refuse_key(key)
        if isinstance(part, tuple | frozenset):
            pending.extend(part)
        elif not (part is None or isinstance(part, str | bytes | int | float | complex | Reference | Record)):
            _refuse_key(part)
    return key


def _refuse_key(key: Any) -> NoReturn:
    raise UnsafeFileError(f"the pickle uses a {type(key).__name__} as a dictionary key or set member in a way no checkpoint does.")
