"""Read named tensors out of a file of `torch.save`, which may come from a stranger.

Two formats: a zip file with the pickle and one record per storage (torch 1.6 and later), and five
pickles followed by the storages (before, e.g. ESRGAN's own files of 2018). Nothing of the pickle is
run (see `pickle_outline`), and no memory is spent before the file is known to hold what it says.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from latency.model_file import kind_of, shown
from mfagan.pickle_outline import MOST_STEPS, Outline, Place, outline
from mfagan.weights_header import SIZES, Header, Stored

if TYPE_CHECKING:
    from torch import Tensor

MOST_BYTES = 2**30
"""Of a file; the largest teacher's has 67 MB."""
MOST_PICKLE = 2**21
"""Bytes of the pickles, or of a zip file's directory; the largest teacher's have 0.3 MB."""
MOST_TENSORS = 10_000
_MOST_LETTERS = 1000
"""Of a key; the tensors' names repeat those of the dictionaries that they are in."""

_MAGIC = 0x1950A86A20F9469CFC6C
_LEVELS = 3  # params_ema of conv_first.weight are two; trainers' states have three
_DAMAGE = (
    zipfile.BadZipFile, RuntimeError, EOFError, OSError, struct.error, UnicodeDecodeError
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class TorchFile:
    """What a file of `torch.save` holds.

    Attributes:
        path: the file.
        header: its tensors by name, the names of nested dictionaries joined by dots; no metadata.
        keys: of the outermost dictionary.
        foreign: Python's classes and functions that it names besides tensors and plain values.
    """

    path: Path
    header: Header
    keys: tuple[str, ...]
    foreign: tuple[str, ...]
    _places: Mapping[str, Place] = field(repr=False)
    _records: Mapping[str, _Record] = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """A storage's bytes: how many, and the zip file's entry or the offset where they begin."""

    size: int
    entry: str = ""
    begin: int = 0


def is_torch_file(path: Path) -> bool:
    """Tell whether a file begins as those of `torch.save` do, whatever its name.

    Raises:
        FileNotFoundError: it is no regular file.
    """
    if not path.is_file():
        raise FileNotFoundError(f"'{path}' is not a file")
    with path.open("rb") as file:
        start = file.read(16)
    return start.startswith((b"PK\3\4", b"\x80")) and kind_of(start) != "a .safetensors file"


def read_torch_file(path: Path) -> TorchFile:
    """Return which tensors a file of `torch.save` holds, once that agrees with its size.

    Raises:
        OSError: it cannot be read.
        ValueError: why it is not a whole file of named tensors, a clause to follow its name.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        if size > MOST_BYTES:
            raise ValueError(f"it has {size / 2**30:.1f} GiB, at most 1 GiB is read")
        file.seek(0)
        head = file.read(MOST_PICKLE)
        if not head.startswith(b"PK"):
            found, records = _read_legacy(file, head, size)
        else:
            with _Bounded(io.FileIO(path)) as bounded:
                found, records = _read_zip(bounded, size)
    if not isinstance(found.value, dict):
        what = next(iter(found.foreign), type(found.value).__name__)
        raise ValueError(
            f"it holds one Python object ({shown(what)}) instead of named tensors; save the "
            "network's state_dict()"
        )
    places = dict(_named_places(found.value))
    for name, place in places.items():
        _check(shown(name), place, records.get(place.storage.key))
    tensors = {n: Stored(dtype=p.storage.dtype, shape=p.shape) for n, p in places.items()}
    return TorchFile(
        path=path,
        header=Header(metadata={}, tensors=tensors),
        keys=tuple(key for key in found.value if isinstance(key, str)),
        foreign=found.foreign,
        _places=places,
        _records=records,
    )


def read_tensors(found: TorchFile, names: Iterable[str]) -> dict[str, Tensor]:
    """Return tensors of a file by name, as they are stored: their types and strides.

    Raises:
        KeyError: there is no tensor of this name.
        ValueError: why they cannot be read, a clause to follow the file's name.
    """
    import torch

    wanted = {name: found._places[name] for name in names}
    held: Counter[str] = Counter()
    for name, place in wanted.items():
        held[place.storage.key] += place.count
        if held[place.storage.key] > place.storage.count:
            raise ValueError(f"its tensor '{shown(name)}' shares its numbers with another")
    dtypes = {
        **{"F64": torch.float64, "F32": torch.float32, "F16": torch.float16},
        **{"BF16": torch.bfloat16, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16},
        **{"I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool},
    }
    read: dict[str, Tensor] = {}
    storages: dict[str, Tensor] = {}
    for key, data in _storage_bytes(found, {place.storage.key for place in wanted.values()}):
        if data:
            dtype = dtypes[next(p for p in wanted.values() if p.storage.key == key).storage.dtype]
            storages[key] = torch.frombuffer(data, dtype=dtype)
    for name, place in wanted.items():
        if place.count:
            flat = storages[place.storage.key]
            read[name] = flat.as_strided(place.shape, place.stride, place.offset)
        else:
            read[name] = torch.empty(place.shape, dtype=dtypes[place.storage.dtype])
    return read


def _storage_bytes(found: TorchFile, keys: set[str]) -> Iterator[tuple[str, bytearray]]:
    with found.path.open("rb") as file:
        archive = zipfile.ZipFile(file) if file.read(2) == b"PK" else None
        for key in sorted(keys):
            record = found._records[key]
            if archive is None:
                file.seek(record.begin)
                data = file.read(record.size)
            else:
                try:
                    data = archive.read(record.entry)  # compares a checksum
                except _DAMAGE as error:
                    raise ValueError(f"it is damaged: {shown(error, 100)}") from error
            if len(data) != record.size:
                raise ValueError("it is cut short")
            yield key, bytearray(data)


class _Bounded(io.BufferedReader):
    """A file of which no directory is read that is larger than a model's."""

    def read(self, size: int | None = -1, /) -> bytes:
        """Return so many bytes, or all that are left."""
        most = MOST_PICKLE + 1
        data = super().read(most if size is None or size < 0 else min(size, most))
        if len(data) == most:
            raise ValueError("its list of tensors is too long")
        return data


def _read_zip(file: _Bounded, size: int) -> tuple[Outline, dict[str, _Record]]:
    try:
        if not zipfile.is_zipfile(file):
            raise ValueError("it is cut short: the directory at its end is missing")
        with zipfile.ZipFile(file) as archive:
            entries = {entry.filename: entry for entry in archive.infolist()}
            pickles = [name for name in entries if name.partition("/")[2] == "data.pkl"]
            if len(pickles) != 1:
                raise ValueError("it is a zip file that torch.save has not written")
            prefix = pickles[0].removesuffix("data.pkl")
            if f"{prefix}constants.pkl" in entries:
                raise ValueError("it is a TorchScript program, whose code would have to be run")
            packed = any(entry.compress_type for entry in entries.values())
            if packed or sum(entry.file_size for entry in archive.infolist()) > size:
                raise ValueError("it is compressed, as torch.save never does")
            order = f"{prefix}byteorder"
            if order in entries and archive.read(order) != b"little":
                raise ValueError("its numbers are big-endian")
            found = outline(io.BytesIO(archive.read(pickles[0])))
    except _DAMAGE as error:
        raise ValueError(f"it is cut short or damaged ({shown(error, 100)})") from error
    names = {key: f"{prefix}data/{key}" for key in found.storages}
    return found, {
        key: _Record(size=entries[name].file_size, entry=name)
        for key, name in names.items()
        if name in entries
    }


def _read_legacy(file: BinaryIO, head: bytes, size: int) -> tuple[Outline, dict[str, _Record]]:
    pickles = io.BytesIO(head)
    if outline(pickles).value != _MAGIC:
        raise ValueError("it is a pickle that torch.save has not written")
    try:
        version, system = outline(pickles).value, outline(pickles).value
        found, keys = outline(pickles), outline(pickles).value
    except ValueError as error:
        cut = "it is cut short" if size < MOST_PICKLE else "its list of tensors is too long"
        raise ValueError(f"{cut}: {error}") from error
    if version != 1001 or not isinstance(system, dict) or not isinstance(keys, list):
        raise ValueError("it is no file of torch.save that is known")
    if not system.get("little_endian"):
        raise ValueError("its numbers are big-endian")
    records = {}
    at = pickles.tell()
    for key in keys:
        storage = found.storages.get(key) if isinstance(key, str) else None
        if storage is None or key in records:
            raise ValueError("it lists a storage that no tensor has")
        file.seek(at)
        count = int.from_bytes(file.read(8), "little")
        records[key] = _Record(size=count * SIZES[storage.dtype], begin=at + 8)
        at += 8 + records[key].size
        if at > size:
            raise ValueError(f"it is cut short: its tensors need {at} bytes or more, it has {size}")
    return found, records


def _named_places(outermost: dict[Any, Any]) -> Iterator[tuple[str, Place]]:
    """Yield the tensors of nested dictionaries, names joined by dots."""
    layers = [("", outermost)]
    steps = tensors = 0
    for _ in range(_LEVELS):
        deeper = []
        for prefix, layer in layers:
            for key, value in layer.items():
                steps += 1
                if steps > MOST_STEPS:  # one dictionary may be in many places
                    raise ValueError("its dictionaries repeat themselves")
                if isinstance(key, str) and len(key) > _MOST_LETTERS:
                    raise ValueError(f"one of its names has {len(key):,} letters")
                if isinstance(value, Place):
                    tensors += 1
                    if tensors > MOST_TENSORS:
                        raise ValueError(f"it has more than {MOST_TENSORS:,} tensors")
                    yield f"{prefix}{key}", value
                elif isinstance(value, dict):
                    deeper.append((f"{prefix}{key}.", value))
        layers = deeper


def _check(name: str, place: Place, record: _Record | None) -> None:
    """Refuse a tensor whose numbers are not, or not all, in the file."""
    storage = place.storage
    if record is None:
        raise ValueError(f"the numbers of its tensor '{name}' are missing")
    if record.size != storage.count * SIZES[storage.dtype]:
        raise ValueError(
            f"its tensor '{name}' should have {storage.count} numbers, {storage.dtype}, and has "
            f"{record.size} bytes"
        )
    if place.offset + place.span > storage.count:
        raise ValueError(f"its tensor '{name}' reaches beyond its numbers")
    if place.count > place.span:
        raise ValueError(f"its tensor '{name}' is expanded: it says more numbers than it has")
