"""Ground truth and its small images, photograph by photograph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mfagan.bad_photos import collecting, refuse_bad
from mfagan.listing import list_images
from mfagan.paired import check_lr_size, match_files
from mfagan.photo_headers import read_header
from mfagan.picture import read_picture, reduce_to_8_bits
from mfagan.resize import crop_to_multiple, downscale

if TYPE_CHECKING:
    from mfagan.images import Image


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A photograph to compare with.

    Attributes:
        index: its place in the list.
        name: its path within its folder.
        image: (H, W, 3) uint8 RGB, H and W multiples of the scale.
        lr: the small image, (H / scale, W / scale, 3) uint8 RGB.
        grey: the file holds no colour.
        picture: a path for a PNG file of it, unlike those of the others.
    """

    index: int
    name: str
    picture: str
    image: Image
    lr: Image
    grey: bool


class Truths:
    """A folder of photographs, with a folder of their LR images or without.

    Args:
        folder: of ground truth; rows and columns beyond a multiple of the scale are cut off.
        scale: HR pixels per LR pixel.
        lr_folder: of the LR images; None makes them by MATLAB's bicubic rule.
        least: sides that a photograph must have, pixels.

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: a photograph has no LR image, more than one or one of another size; it is too
            small, or its header damaged.
    """

    def __init__(
        self, folder: Path, scale: int, lr_folder: Path | None = None, *, least: int = 1
    ) -> None:
        self.folder = folder
        self.scale = scale
        self.lr_folder = lr_folder
        self.files: Sequence[Path] = list_images(folder)
        self._lr_files = (
            None
            if lr_folder is None
            else match_files(self.files, folder, lr_folder, scale, what="LR image")
        )
        bad: dict[Path, str] = {}
        for index, file in enumerate(self.files):
            with collecting(file, bad):
                self._check(index, file, least)
        refuse_bad(bad, len(self.files), "photographs")
        names = [file.relative_to(folder) for file in self.files]
        self._alike = len({name.with_suffix("") for name in names}) < len(names)

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Truth]:
        """Read one after the other.

        Raises:
            ValueError: a file is damaged.
        """
        for index, file in enumerate(self.files):
            name = file.relative_to(self.folder)
            picture = read_picture(file)
            image = np.ascontiguousarray(
                crop_to_multiple(reduce_to_8_bits(picture.pixels), self.scale)
            )
            yield Truth(
                index=index,
                name=str(name),
                picture=f"{name}.png" if self._alike else str(name.with_suffix(".png")),
                image=image,
                lr=self._lr(index, image),
                grey=picture.grey,
            )

    def size(self, index: int) -> tuple[int, int]:
        """Return a photograph's height and width, cut to multiples of the scale."""
        header = read_header(self.files[index])
        return header.height - header.height % self.scale, header.width - header.width % self.scale

    def _check(self, index: int, file: Path, least: int) -> None:
        if not str(file).isascii() and any("\ud800" <= c <= "\udfff" for c in str(file)):
            raise ValueError(f"the name of {str(file)!r} is not UTF-8 and cannot be reported")
        height, width = self.size(index)
        least = max(least, self.scale)
        if min(height, width) < least:
            raise ValueError(
                f"'{file}' has {width}x{height} pixels in whole LR pixels, {least}x{least} are "
                "needed for what is measured"
            )
        if self._lr_files is not None:
            check_lr_size(file, read_header(file), self._lr_files[index], self.scale)

    def _lr(self, index: int, image: Image) -> Image:
        if self._lr_files is None:
            return downscale(image, self.scale)
        small = reduce_to_8_bits(read_picture(self._lr_files[index]).pixels)
        rows, columns = (n // self.scale for n in image.shape[:2])
        return np.ascontiguousarray(small[:rows, :columns])
