"""An unpickler that executes nothing: a pickle becomes plain containers, scalars and inert records.

Python's unpickler parses; what would look up a name, call it or change an object is replaced here. A name in the file is a `Reference`,
calling one makes a `Record`, and only the functions of the `rebuild` table, which are ours and see data only, turn a call into a value.
The one written in Python is used: that in C allocates what a crafted file announces.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, ClassVar, NoReturn, TypeVar

from rsdiff.config import UserError

MAX_KEY_PARTS = 1000
"""Parts of a dictionary key; Python hashes nested tuples recursively, which a crafted key could drive into a crash."""
MALFORMED = (
    *(pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, OverflowError, RuntimeError, MemoryError),
    *(AttributeError, AssertionError, struct.error),
)

Rebuild = Callable[..., Any]


class UnsafeFileError(UserError):
    """A file that is damaged, is of no accepted format, or holds what a checkpoint never holds. The message is one sentence."""


Container = TypeVar("Container", dict[Any, Any], list[Any])


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
        parts = self.state if isinstance(self.state, tuple) and len(self.state) == 2 else (self.state,)
        return {str(key): value for part in parts if isinstance(part, dict) for key, value in part.items()}


@dataclass(eq=False)
class Unfinished(Record):
    """A value that a BUILD operation completes. slots: where the pickle refers back to it."""

    slots: list[int] = field(default_factory=list)

    def finish(self, state: Any) -> Any:
        """Return the completed value."""
        raise NotImplementedError


def read_one_pickle(stream: BinaryIO, rebuild: Mapping[str, Rebuild], persistent: Callable[[Any], Any] | None = None) -> Any:
    """Return the object of the next pickle in `stream`, leaving the stream behind it.

    rebuild     'module.qualname' -> function that makes a value of the call's arguments
    persistent  makes a value of a persistent id; without it a persistent id becomes a record
    Raises UnsafeFileError for anything that is not a well-formed pickle of data.
    """
    try:
        return _Inert(stream, rebuild, persistent).load()
    except UnsafeFileError:
        raise
    except MALFORMED as error:
        said = " ".join(str(error).split())[:120]
        raise UnsafeFileError(
            f"the file is not a well-formed pickle of data ({type(error).__name__}: {said}); give a file of weights."
        ) from error


class _Memo(dict[int, Any]):
    """What a pickle refers back to; an unfinished value knows its places."""

    def __setitem__(self, slot: int, value: Any) -> None:
        super().__setitem__(slot, value)
        if isinstance(value, Unfinished):
            value.slots.append(slot)


_Unpickler: Any = pickle._Unpickler


class _Inert(_Unpickler):  # type: ignore[misc]
    """See the module. Each `load_*` does what the operation of that name does; `dispatch` maps operations to them."""

    def __init__(self, stream: BinaryIO, rebuild: Mapping[str, Rebuild], persistent: Callable[[Any], Any] | None) -> None:
        super().__init__(stream, encoding="latin1")
        self._rebuild, self._persistent, self.memo = rebuild, persistent, _Memo()

    def find_class(self, module: str, name: str) -> Reference:
        return Reference(f"{module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        return self._persistent(pid) if self._persistent else Record("a persistent id", (pid,))

    def get_extension(self, code: int) -> NoReturn:
        raise UnsafeFileError("the pickle uses Python's extension registry, which checkpoints do not.")

    # Objects

    def _call(self, target: Any, args: Any, kwargs: Any) -> None:
        if not isinstance(args, tuple) or not isinstance(kwargs, dict):
            raise UnsafeFileError("the pickle makes an object with arguments that are not a tuple.")
        if not isinstance(target, Reference):
            self.append(Record("the result of calling", (target, *args), kwargs))
        elif (rebuild := self._rebuild.get(target.name)) is None or kwargs:
            self.append(Record(target.name, args, kwargs))
        else:
            self.append(rebuild(*args))

    def _instantiate(self, target: Any, args: Any) -> None:
        self._call(target, tuple(args), {})

    def load_reduce(self) -> None:
        args, target = self.stack.pop(), self.stack.pop()
        self._call(target, args, {})

    def load_newobj_ex(self) -> None:
        kwargs, args, target = self.stack.pop(), self.stack.pop(), self.stack.pop()
        self._call(target, args, kwargs)

    def load_build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Unfinished):
            finished = target.finish(state)
            self.stack[-1] = finished
            self.memo.update({slot: finished for slot in target.slots if self.memo[slot] is target})
        elif isinstance(target, Record):
            target.state = state
        elif isinstance(target, Reference):
            raise UnsafeFileError(f"the pickle changes the class or function {target.name} itself.")
        # Attributes of plain containers and tensors (an OrderedDict's _metadata) are no data: dropped.

    # Containers

    def load_dict(self) -> None:
        made: dict[Any, Any] = {}
        set_items(made, self.pop_mark())
        self.append(made)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def _set(self, values: list[Any]) -> None:
        set_items(self._top("items", dict, "sets items of"), values)

    def load_append(self) -> None:
        value = self.stack.pop()
        self._extend([value])

    def load_appends(self) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        self._top("elements", list, "appends to").extend(values)

    def _top(self, part: str, kind: type[Container], does: str) -> Container:
        """Return the container on top of the stack, of a record its `part`; raises UnsafeFileError for anything else."""
        target = self.stack[-1]
        target = getattr(target, part) if isinstance(target, Record) else target
        if not isinstance(target, kind):
            raise UnsafeFileError(f"the pickle {does} a {type(target).__name__}.")
        return target

    def load_additems(self) -> None:
        values, target = self.pop_mark(), self.stack[-1]
        if isinstance(target, Record):
            target.elements.extend(values)
        elif isinstance(target, set):
            target.update(map(checked_key, values))
        else:
            raise UnsafeFileError(f"the pickle adds members to a {type(target).__name__}.")

    def load_frozenset(self) -> None:
        members = self.pop_mark()  # first: it changes where `append` appends to
        self.append(frozenset(map(checked_key, members)))

    def load_bytearray8(self) -> None:
        (length,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(length)))

    dispatch: ClassVar[dict[int, Any]] = {
        **_Unpickler.dispatch,
        pickle.REDUCE[0]: load_reduce,
        pickle.NEWOBJ[0]: load_reduce,
        pickle.NEWOBJ_EX[0]: load_newobj_ex,
        pickle.BUILD[0]: load_build,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
        pickle.APPEND[0]: load_append,
        pickle.APPENDS[0]: load_appends,
        pickle.ADDITEMS[0]: load_additems,
        pickle.FROZENSET[0]: load_frozenset,
        pickle.BYTEARRAY8[0]: load_bytearray8,
    }


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
        if isinstance(part, tuple | frozenset) and parts <= MAX_KEY_PARTS:
            pending.extend(part)
        elif parts > MAX_KEY_PARTS or not (part is None or isinstance(part, str | bytes | int | float | complex | Reference | Record)):
            name = type(part).__name__
            raise UnsafeFileError(f"the pickle uses a {name} as a dictionary key or set member in a way no checkpoint does.")
    return key
