"""Follow a pickle far enough to learn which tensors it describes, without running anything.

`torch.load(weights_only=True)` runs no foreign code, but still makes whatever a file asks for: a
pickle of 100 bytes takes 1 GiB with it. Here a name of Python's is a word and never looked up, a
tensor is a note of where its numbers lie, and the only objects made are those of the pickle's own
size.
"""

from __future__ import annotations

import math
import pickletools
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from latency.model_file import shown

MOST_STEPS = 300_000
"""Of one pickle; ESRGAN's weights take 25,000, with Adam's state 80,000."""

TYPES = {
    "torch.DoubleStorage": "F64",
    "torch.FloatStorage": "F32",
    "torch.HalfStorage": "F16",
    "torch.BFloat16Storage": "BF16",
    "torch.LongStorage": "I64",
    "torch.IntStorage": "I32",
    "torch.ShortStorage": "I16",
    "torch.CharStorage": "I8",
    "torch.ByteStorage": "U8",
    "torch.BoolStorage": "BOOL",
}
"""A `.safetensors` file's name of a type, by the class that torch's files name."""

_TENSORS = {"torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2"}
_PARAMETER = "torch._utils._rebuild_parameter"
_DICT = "collections.OrderedDict"
_PLAIN = {
    *(_TENSORS | TYPES.keys() | {_PARAMETER, _DICT}),
    *("collections.Counter", "collections.defaultdict", "torch.Size", "torch.device"),
    *("torch.float64", "torch.float32", "torch.float16", "torch.bfloat16", "torch.int64"),
    *("numpy.core.multiarray.scalar", "numpy._core.multiarray.scalar", "numpy.dtype"),
    "_codecs.encode",
}
"""Names that a file of weights and figures has; any other could be code in another reader."""
_MOST_KEY = 2**60
"""Larger whole numbers can all have one hash, and a dictionary of them takes minutes to fill."""
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINSTRING", "SHORT_BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass(frozen=True, kw_only=True, eq=False)
class Storage:
    """A run of numbers in a torch file: its key there, their type and how many there are."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where a tensor's numbers lie: offset and strides in elements of its storage."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def span(self) -> int:
        """Elements from the first to the last, both included."""
        if not self.count:
            return 0
        return 1 + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))


@dataclass(frozen=True, kw_only=True, eq=False)
class Name:
    """A class or function of Python's that a pickle names, e.g. `os.system`."""

    text: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Object:
    """What a pickle would have some class or function make."""

    of: str


@dataclass(frozen=True, kw_only=True)
class Outline:
    """What a pickle describes.

    Attributes:
        value: plain values, dictionaries, lists and tuples, `Place`, `Storage`, `Name`, `Object`.
            It may contain itself: walk it with a bound.
        foreign: the names in it that no file of weights has, in order.
        storages: by key.
    """

    value: Any
    foreign: tuple[str, ...]
    storages: dict[str, Storage]


def outline(file: BinaryIO) -> Outline:
    """Return what the next pickle of a file describes; leave the file behind it.

    Every read is bounded by the file: give one of bounded size.

    Raises:
        ValueError: why it cannot be followed, a clause.
    """
    machine = _Machine()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of odd escapes in texts that are refused next
            for steps, (opcode, argument, _) in enumerate(pickletools.genops(file)):
                if steps >= MOST_STEPS:
                    raise ValueError(f"it has more than {MOST_STEPS:,} steps")
                if opcode.name == "STOP":
                    return machine.outline()
                machine.step(opcode.name, argument)
    except (ValueError, IndexError, KeyError, TypeError) as error:
        raise ValueError(f"its pickle cannot be followed ({shown(error, 100)})") from error
    raise AssertionError("genops ends with STOP or an error")


class _Machine:
    """A pickle's stack, marks and memory."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memory: dict[int, Any] = {}
        self.foreign: dict[str, None] = {}
        self.storages: dict[str, Storage] = {}
        self.pairs = 0

    def outline(self) -> Outline:
        return Outline(value=self.pop(), foreign=tuple(self.foreign), storages=self.storages)

    def pop(self) -> Any:
        return self.stack.pop()

    def pop_mark(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def step(self, opcode: str, argument: Any) -> None:
        """Do what an opcode says, to notes instead of objects."""
        push = self.stack.append
        if opcode in _VALUES:
            push(argument)
        elif opcode in _CONSTANTS:
            push(_CONSTANTS[opcode])
        elif opcode in _TUPLES:
            items = [self.pop() for _ in range(_TUPLES[opcode])]
            push(tuple(reversed(items)))
        else:
            self._structure(opcode, argument)

    def _structure(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "PROTO" | "FRAME":
                pass
            case "BINPUT" | "LONG_BINPUT":
                self.memory[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memory[len(self.memory)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET":
                self.stack.append(self.memory[argument])
            case "MARK":
                self.marks.append(self.stack)
                self.stack = []
            case "EMPTY_DICT":
                self.stack.append({})
            case "EMPTY_LIST" | "EMPTY_SET":
                self.stack.append([])
            case "TUPLE" | "FROZENSET":
                joined = tuple(self.pop_mark())
                self.stack.append(joined)
            case "LIST" | "DICT":
                items = self.pop_mark()
                self.stack.append(items if opcode == "LIST" else {})
                if opcode == "DICT":
                    self._set(items)
            case "APPEND":
                self._extend([self.pop()])
            case "APPENDS" | "ADDITEMS":
                self._extend(self.pop_mark())
            case "SETITEM":
                value, key = self.pop(), self.pop()
                self._set([key, value])
            case "SETITEMS":
                self._set(self.pop_mark())
            case "POP":
                self.pop()
            case _:
                self._object(opcode, argument)

    def _object(self, opcode: str, argument: Any) -> None:
        match opcode:
            case "GLOBAL":
                self.stack.append(self._named(argument.replace(" ", ".")))
            case "STACK_GLOBAL":
                name, module = self.pop(), self.pop()
                if not (isinstance(name, str) and isinstance(module, str)):
                    raise ValueError("a name that is no text")
                self.stack.append(self._named(f"{module}.{name}"))
            case "REDUCE" | "NEWOBJ":
                arguments, of = self.pop(), self.pop()
                self.stack.append(self._made(of, arguments))
            case "NEWOBJ_EX":
                _, arguments, of = self.pop(), self.pop(), self.pop()
                self.stack.append(self._made(of, arguments))
            case "BUILD":
                self.pop()  # an object's attributes; of a state dict, its modules' versions
                self.stack[-1]
            case "BINPERSID":
                self.stack.append(self._storage(self.pop()))
            case _:
                raise ValueError(f"{opcode} is nothing that torch.save writes")

    def _extend(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Object):
            raise ValueError("items of what is no list")

    def _set(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2 or not isinstance(target, dict | Object):
            raise ValueError("entries of what is no dictionary")
        if isinstance(target, dict):
            target.update(_plain_keys(zip(items[::2], items[1::2], strict=True)))

    def _named(self, text: str) -> Name:
        if text not in _PLAIN:
            self.foreign[text] = None
        return Name(text=text)

    def _made(self, of: Any, arguments: Any) -> Any:
        if not isinstance(of, Name) or not isinstance(arguments, tuple):
            raise ValueError("a call of what is no name")
        if of.text in _TENSORS:
            return _place(*arguments[:4])
        if of.text == _PARAMETER:
            return arguments[0]
        if of.text == _DICT:
            pairs = arguments[0] if arguments else []
            self.pairs += len(pairs)  # one list can be in many calls, a step each
            if self.pairs > MOST_STEPS:
                raise ValueError(f"it has more than {MOST_STEPS:,} entries")
            return dict(_plain_keys(pairs))
        return Object(of=of.text)

    def _storage(self, identity: Any) -> Storage | Name:
        if not isinstance(identity, tuple) or len(identity) < 2:
            raise ValueError("an unknown reference")
        kind, of = identity[:2]
        if kind == "module" and isinstance(of, Name):
            return of
        if kind != "storage" or not isinstance(of, Name) or len(identity) not in (5, 6):
            raise ValueError("an unknown reference")
        key, _, count = identity[2:5]
        if of.text not in TYPES:
            raise ValueError(f"numbers of the type {of.text}")
        if not isinstance(key, str) or not _is_size(count) or identity[5:] not in ((), (None,)):
            raise ValueError("an impossible storage")
        made = Storage(key=key, dtype=TYPES[of.text], count=count)
        known = self.storages.setdefault(key, made)
        if (known.dtype, known.count) != (made.dtype, made.count):
            raise ValueError("a storage of two kinds")
        return known


def _plain_keys(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[str | int, Any]]:
    """Yield the entries that can be a tensor's, or a dictionary's of some.

    Others are left out: a tuple of tuples can take for ever to be hashed.
    """
    for key, value in pairs:
        if isinstance(key, str) or (isinstance(key, int) and abs(key) < _MOST_KEY):
            yield key, value


def _place(storage: Any, offset: Any, shape: Any, stride: Any) -> Place:
    for sizes in (shape, stride):
        if not isinstance(sizes, tuple) or len(sizes) > 8 or not all(map(_is_size, sizes)):
            raise ValueError("a tensor of impossible shape")
    if not isinstance(storage, Storage) or not _is_size(offset) or len(shape) != len(stride):
        raise ValueError("an impossible tensor")
    return Place(storage=storage, offset=offset, shape=shape, stride=stride)


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48
