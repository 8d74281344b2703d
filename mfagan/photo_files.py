"""The photographs of a training: their sizes, known from headers, and their pixels, kept in memory.

Only as many pixels as the cache's limit allows are there at any moment.
"""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from latency.progress import Progress
from mfagan.bad_photos import collecting, first_few, refuse_bad
from mfagan.paired import check_lr_size
from mfagan.photo_headers import Header, read_header
from mfagan.picture import read_picture, reduce_to_8_bits
from mfagan.resize import crop_to_multiple

if TYPE_CHECKING:
    from mfagan.images import Image

_SHOWN_FROM = 500
"""So many headers take long enough to be told about."""


class Photo(NamedTuple):
    """A decoded photograph.

    Attributes:
        hr: (H, W, 3) uint8 RGB; H and W are multiples of the scale.
        lr: (H / scale, W / scale, 3), where it was given as a file.
    """

    hr: Image
    lr: Image | None


class PhotoFiles:
    """Photographs, with or without the files of their LR images.

    Args:
        files: photographs.
        lr_files: their LR images in the same order; None when LR is made from the photographs.
        scale: HR pixels per LR pixel.
        least: LR pixels a side that every photograph must have.
        limit: bytes of decoded photographs that are kept.
    """

    def __init__(
        self,
        files: Sequence[Path],
        lr_files: Sequence[Path] | None,
        *,
        scale: int,
        least: int,
        limit: int,
    ) -> None:
        self.files = list(files)
        self.lr_files = None if lr_files is None else list(lr_files)
        self.scale = scale
        self.least = least
        self.limit = limit
        self._headers: list[Header] = []
        self._kept: OrderedDict[int, Photo] = OrderedDict()
        self._notes: dict[Path, str] = {}

    @property
    def total_bytes(self) -> int:
        """Memory that all photographs would take, decoded."""
        return sum(map(self.bytes_of, range(len(self.files))))

    @property
    def kept_bytes(self) -> int:
        """Memory that the decoded photographs take now."""
        return sum(map(self.bytes_of, self._kept))

    def bytes_of(self, index: int) -> int:
        """Return the memory that a photograph takes, decoded."""
        header = self.headers()[index]
        rows, columns = self.lr_size(index)
        given = rows * columns * 3 if self.lr_files is not None else 0
        return header.height * header.width * 3 + given

    def lr_size(self, index: int) -> tuple[int, int]:
        """Return the rows and columns of a photograph's LR image."""
        header = self.headers()[index]
        return header.height // self.scale, header.width // self.scale

    def with_limit(self, limit: int) -> PhotoFiles:
        """Return the same photographs, none of them kept, with another limit."""
        twin = copy.copy(self)
        twin.limit, twin._kept, twin._notes = limit, OrderedDict(), {}
        return twin

    def know_headers(self, headers: Sequence[Header]) -> None:
        """Take the headers that another process has read, in the order of the photographs."""
        self._headers = list(headers)

    def headers(self, *, silent: bool = True) -> list[Header]:
        """Return the headers of all photographs, which are read once.

        Raises:
            ValueError: some cannot be read, are smaller than a crop, or do not fit their LR image.
        """
        if self._headers:
            return self._headers
        count, bad = len(self.files), dict[Path, str]()
        headers = []
        with Progress("headers", count, silent=silent or count < _SHOWN_FROM) as progress:
            for index, file in enumerate(self.files):
                with collecting(file, bad):
                    headers.append(self._read_header(index))
                progress.update()
        if bad and sum(each.height * each.width * 3 for each in headers) <= self.limit:
            # They would be decoded next: who mends a folder wants to hear of all at once.
            for file in [file for file in self.files if file not in bad]:
                with collecting(file, bad):
                    _read(file)
        refuse_bad(bad, count, "photographs")
        self._headers = headers
        return headers

    def decode_all(self, *, keep: bool, silent: bool = False) -> None:
        """Decode every photograph, so that all damaged ones are found.

        Raises:
            ValueError: some are damaged.
        """
        bad: dict[Path, str] = {}
        with Progress("photographs", len(self.files), silent=silent) as progress:
            for index, file in enumerate(self.files):
                with collecting(file, bad):
                    photo = self._decode(index)
                    if keep:
                        self._keep(index, photo)
                progress.update()
        refuse_bad(bad, len(self.files), "photographs")

    def warn_of_notes(self) -> None:
        """Say in one UserWarning what photographs were not read as."""
        for index, header in enumerate(self.headers()):
            if header.notes:
                self._notes.setdefault(self.files[index], "; ".join(header.notes))
        if self._notes:
            count = f"{len(self._notes)} of {len(self.files)} photographs: "
            text = count + first_few([f"'{file}': {note}" for file, note in self._notes.items()])
            warnings.warn(text, UserWarning, stacklevel=3)

    def photo(self, index: int) -> Photo:
        """Return a photograph, decoded unless it is kept.

        Raises:
            ValueError: it is damaged, or not of the size that it was.
        """
        if index in self._kept:
            self._kept.move_to_end(index)
            return self._kept[index]
        self.headers()
        # Before the new one is decoded, so that the limit is never exceeded.
        room = self.limit - self.bytes_of(index)
        while self._kept and self.kept_bytes > room:
            self._kept.popitem(last=False)
        try:
            photo = self._decode(index)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{error}; 'mfagan-data check' finds every such file of a folder before training"
            ) from error
        self._keep(index, photo)
        return photo

    def forget_others(self, needed: Collection[int]) -> None:
        """Forget the photographs that are not needed any more."""
        for index in [index for index in self._kept if index not in needed]:
            del self._kept[index]

    def _keep(self, index: int, photo: Photo) -> None:
        self._kept[index] = photo

    def _read_header(self, index: int) -> Header:
        file = self.files[index]
        header = read_header(file)
        rows, columns = header.height // self.scale, header.width // self.scale
        if min(rows, columns) < self.least:
            raise ValueError(
                f"'{file}' is {header.width}x{header.height}, smaller than a crop "
                f"of {self.least * self.scale} pixels; remove it or lower --patch"
            )
        if self.lr_files is not None:
            check_lr_size(file, header, self.lr_files[index], self.scale)
        return header

    def _decode(self, index: int) -> Photo:
        file, header = self.files[index], self.headers()[index]
        rows, columns = self.lr_size(index)
        hr, notes = _read(file)
        if hr.shape[:2] != (header.height, header.width):
            raise ValueError(
                f"'{file}' is {hr.shape[1]}x{hr.shape[0]} and was {header.width}x{header.height} "
                "when the run began"
            )
        if notes:
            self._notes[file] = notes
        lr = None
        if self.lr_files is not None:
            small, _ = _read(self.lr_files[index])
            if small.shape[0] < rows or small.shape[1] < columns:
                raise ValueError(f"'{self.lr_files[index]}' is smaller than when the run began")
            lr = small[:rows, :columns]
        return Photo(crop_to_multiple(hr, self.scale), lr)


def _read(file: Path) -> tuple[Image, str]:
    picture = read_picture(file)
    return reduce_to_8_bits(picture.pixels), "; ".join(picture.notes)
