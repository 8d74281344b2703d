"""Read the tensors of a weights file that others publish, known by their names and shapes.

Nothing of a pickle is run (see `torch_file`), and what is not the published file is refused with
the reason: a loss or a measure by other weights would carry a wrong name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from latency.files import sha256
from latency.model_file import shown
from mfagan.torch_file import is_torch_file, read_tensors, read_torch_file
from mfagan.weights_header import Header, read_header

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = ("F64", "F32", "F16", "BF16")


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A published file of named tensors.

    Attributes:
        name: the file's; torch.hub writes the beginning of the SHA-256 into it.
        url: where it is published.
        title: what it is, e.g. `the weights file of VGG19 that torchvision publishes`.
        shapes: of the tensors that are read, by name.
        prefix: of the names that belong to these; what is named otherwise is left unread.
        size: its bytes, where known.
        sha256: of a file whose name does not tell it, else empty; whatever its name, a file to read
            must have it.
    """

    name: str
    url: str
    title: str
    shapes: Mapping[str, tuple[int, ...]]
    prefix: str
    size: int | None = None
    sha256: str = ""

    def read(self, path: Path) -> dict[str, Tensor]:
        """Return the tensors by name, as they are stored; a `.safetensors` file may hold the same.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is something else, is not whole, or is not what its name says.
        """
        try:
            is_torch = is_torch_file(path)
            self._check_content(path)
            tensors = self._read_torch(path) if is_torch else self._read_safetensors(path)
            for name, tensor in tensors.items():
                if not tensor.isfinite().all():
                    raise ValueError(f"its {name} is not of finite numbers")
        except ValueError as error:
            raise ValueError(f"'{path}' is not {self.title}: {error}; {self.url} is") from error
        return tensors

    def _check_content(self, path: Path) -> None:
        """Refuse a web page, and what is not of the checksum in its name or of the known one."""
        with path.open("rb") as file:
            start = file.read(512)
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<"):
            raise ValueError("it is a web page")
        in_name = re.search(r"-([0-9a-f]{8,64})\.pth$", path.name)
        promised = self.sha256 or (in_name[1] if in_name else "")
        if promised and not (found := sha256(path)).startswith(promised):
            size = path.stat().st_size
            is_cut = path.name == self.name and self.size is not None and size < self.size
            cut = f" (it has {size} of {self.size} bytes)" if is_cut else ""
            source = f"that of {self.name} with" if self.sha256 else "its name says"
            raise ValueError(f"its SHA-256 begins with {found[:8]}, {source} {promised[:8]}{cut}")

    def _read_torch(self, path: Path) -> dict[str, Tensor]:
        found = read_torch_file(path)
        self._check(found.header)
        return read_tensors(found, self.shapes)

    def _read_safetensors(self, path: Path) -> dict[str, Tensor]:
        from safetensors import safe_open

        self._check(read_header(path))
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in self.shapes}

    def _check(self, header: Header) -> None:
        """Refuse a file of other tensors."""
        for name, shape in self.shapes.items():
            stored = header.tensors.get(name)
            if stored is None:
                raise ValueError(f"it lacks {name}")
            if stored.shape != shape:
                there, right = ("x".join(map(str, each)) for each in (stored.shape, shape))
                raise ValueError(f"its {name} is {there}, not {right}")
            if stored.dtype not in _FLOATS:
                raise ValueError(f"its {name} is of the type {stored.dtype}")
        named = {name for name in header.tensors if name.startswith(self.prefix)}
        if others := sorted(named - self.shapes.keys()):
            raise ValueError(f"it holds {shown(others[0])} besides")
