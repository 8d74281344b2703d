"""Look at every photograph of a folder, and for its like among the others and in test sets."""

from __future__ import annotations

import hashlib
import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from latency.commandline import FailureError
from latency.progress import Progress
from mfagan.listing import list_images
from mfagan.picture_hash import BITS, Nearest, from_text, hash_picture

if TYPE_CHECKING:
    from mfagan.picture_hash import Hash, Match

KINDS = {
    "unreadable": "cannot be read",
    "small": "too small",
    "flat": "flat",
    "duplicate": "the same picture as another",
    "similar": "nearly the same picture as another",
    "test picture": "in a test set",
}
"""What is found, and what the summary calls it."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing about one photograph.

    Attributes:
        kind: one of `KINDS`.
        file: the photograph.
        sentence: what about it.
        other: the file, or the test set's picture, that it is like.
        distance: of the two hashes, in bits; None where none were compared.
        mirrored: whether one is the other's mirror image.
    """

    kind: str
    file: Path
    sentence: str
    other: str | None = None
    distance: int | None = None
    mirrored: bool = False


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What `check_folder` saw.

    Attributes:
        images: photographs that it looked at.
        megapixels: of those that can be read, together.
        compared_with: the test sets, with how many pictures they have.
        findings: in the order of the files.
    """

    images: int
    megapixels: float
    compared_with: dict[str, int]
    findings: list[Finding]


def check_folder(
    folder: Path, *, against: Sequence[Path] = (), side: int, silent: bool = False
) -> Checked:
    """Look at every photograph of a folder; one is held at a time.

    Of two that are alike the one that comes later by name is found, so that without what was found
    every scene is there once. Set5 and Set14 are always compared with.

    Args:
        folder: is searched with its subfolders.
        against: folders of test pictures; those of them that lie in `folder` are not checked.
        side: pixels that the shorter side needs.
        silent: show no progress.

    Raises:
        FileNotFoundError: a folder is none, or holds no image.
        ValueError: all photographs are in `against`, or a test picture cannot be read.
    """
    tests = {str(place): list_images(place) for place in against}
    kept_back = {path.resolve() for files in tests.values() for path in files}
    files = [path for path in list_images(folder) if path.resolve() not in kept_back]
    if not files:
        raise ValueError(f"all images of '{folder}' are in --against; give other folders")
    benchmarks = benchmark_hashes()
    known = sum(map(len, tests.values()))
    search = _Search(side=side, seen=Nearest(len(files)), tests=Nearest(known + len(benchmarks)))
    for name, bits in benchmarks.items():
        search.tests.add(bits, name)
    findings: list[Finding] = []
    with Progress("images", known + len(files), silent=silent) as progress:
        for path in chain.from_iterable(tests.values()):
            search.add_test(path)
            progress.update()
        for path in files:
            findings += search.look_at(path)
            progress.update()
    sets = Counter(name.partition("/")[0] for name in benchmarks)
    return Checked(
        images=len(files),
        megapixels=search.pixels / 1e6,
        compared_with={**{place: len(paths) for place, paths in tests.items()}, **sets},
        findings=findings,
    )


def benchmark_hashes() -> dict[str, Hash]:
    """Return the hashes of well-known test pictures by set and name, e.g. `Set5/head`."""
    text = resources.files("mfagan").joinpath("benchmark_hashes.toml").read_text(encoding="utf-8")
    return {
        f"{name}/{picture}": from_text(digits)
        for name, pictures in tomllib.loads(text).items()
        for picture, digits in pictures.items()
    }


@dataclass(kw_only=True)
class _Search:
    """What was seen so far.

    Attributes:
        side: pixels that the shorter side needs.
        seen: photographs without their like.
        tests: test pictures.
        pixels: of all photographs that were read.
        digests: of the photographs' pixels, with their files.
        test_digests: of the test pictures' pixels, with their files.
    """

    side: int
    seen: Nearest
    tests: Nearest
    pixels: int = 0
    digests: dict[bytes, str] = field(default_factory=dict)
    test_digests: dict[bytes, str] = field(default_factory=dict)

    def add_test(self, path: Path) -> None:
        digest, bits, _ = _describe(path)
        self.test_digests.setdefault(digest, str(path))
        if bits is not None:
            self.tests.add(bits, str(path))

    def look_at(self, path: Path) -> Iterator[Finding]:
        try:
            digest, bits, (height, width) = _describe(path)
        except (ValueError, OSError, FailureError) as error:
            reason = " ".join(str(error).split())
            named = reason if str(path) in reason else f"'{path}' cannot be read: {reason}"
            yield Finding(kind="unreadable", file=path, sentence=named)
            return
        self.pixels += height * width
        if min(height, width) < self.side:
            yield Finding(
                kind="small",
                file=path,
                sentence=f"'{path}' is {height}x{width}, smaller than a crop of {self.side} "
                f"pixels a side",
            )
        if bits is None:
            sentence = f"'{path}' is flat: there is nothing in it to learn from"
            yield Finding(kind="flat", file=path, sentence=sentence)
        if digest in self.test_digests:
            yield _equal("test picture", path, self.test_digests[digest])
        elif bits is not None and (match := self.tests.find(bits)):
            yield _alike("test picture", path, match)
        if digest in self.digests:
            yield _equal("duplicate", path, self.digests[digest])
            return
        self.digests[digest] = str(path)
        if bits is not None:
            if match := self.seen.find(bits):
                yield _alike("similar", path, match)
            else:
                self.seen.add(bits, str(path))


def _describe(path: Path) -> tuple[bytes, Hash | None, tuple[int, int]]:
    """Return the SHA-256 of a picture's pixels, the hash of what it shows, and its size."""
    from mfagan.picture import read_picture, reduce_to_8_bits

    pixels = read_picture(path).pixels
    height, width = pixels.shape[:2]
    digest = hashlib.sha256(f"{pixels.dtype} {height}x{width}".encode())
    digest.update(pixels.data)
    return digest.digest(), hash_picture(reduce_to_8_bits(pixels)), (height, width)


def _equal(kind: str, path: Path, other: str) -> Finding:
    what = "the test picture " if kind == "test picture" else ""
    sentence = f"'{path}' has the same pixels as {what}'{other}'"
    return Finding(kind=kind, file=path, sentence=sentence, other=other, distance=0)


def _alike(kind: str, path: Path, match: Match) -> Finding:
    what = "the test picture " if kind == "test picture" else ""
    turned = ", mirrored" if match.mirrored else ""
    return Finding(
        kind=kind,
        file=path,
        sentence=f"'{path}' shows the same as {what}'{match.label}'{turned} "
        f"({match.distance} of {BITS} bits differ)",
        other=match.label,
        distance=match.distance,
        mirrored=match.mirrored,
    )
