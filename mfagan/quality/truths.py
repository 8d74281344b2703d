"""Ground truth and its small images, photograph by photograph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

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

    Raises:
        FileNotFoundError: a folder is missing or holds no image.
        ValueError: a photograph has no LR image, or more than one.
    """

    def __init__(self, folder: Path, scale: int, lr_folder: Path | None = None) -> None:
        self.folder = folder
        self.scale = scale
        self.lr_folder = lr_folder
        self.files: Sequence[Path] = list_images(folder)
        self._lr_files = (
            None
            if lr_folder is None
            else match_files(self.files, folder, lr_folder, scale, what="LR image")
        )

    def __len__(self) -> int:
        return len(self.files)

    def __iter__(self) -> Iterator[Truth]:
        """Read one after the other.

        Raises:
            ValueError: a file is damaged, or an LR image has another size than its photograph has.
        """
        names = Counter(file.relative_to(self.folder).with_suffix(".png") for file in self.files)
        for index, file in enumerate(self.files):
            name = file.relative_to(self.folder)
            plain = name.with_suffix(".png")
            picture = read_picture(file)
            image = np.ascontiguousarray(
                crop_to_multiple(reduce_to_8_bits(picture.pixels), self.scale)
            )
            if not image.size:
                raise ValueError(f"'{file}' is smaller than one LR pixel")
            yield Truth(
                index=index,
                name=str(name),
                picture=str(plain if names[plain] == 1 else name.with_name(f"{name.name}.png")),
                image=image,
                lr=self._lr(index, file, image),
                grey=picture.grey,
            )

    def _lr(self, index: int, file: Path, image: Image) -> Image:
        if self._lr_files is None:
            return downscale(image, self.scale)
        lr_file = self._lr_files[index]
        check_lr_size(file, read_header(file), lr_file, self.scale)
        small = reduce_to_8_bits(read_picture(lr_file).pixels)
        rows, columns = (n // self.scale for n in image.shape[:2])
        return np.ascontiguousarray(small[:rows, :columns])
