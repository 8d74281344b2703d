import numpy as np
import pytest

from mfagan.images import write_image


@pytest.fixture
def photos(tmp_path):
    """A folder of four small pictures with smooth areas and edges."""
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (12, 15, 3)).astype(np.uint8)
        picture = coarse.repeat(8, 0).repeat(8, 1)
        write_image(tmp_path / "photos" / f"{k}.png", picture)
    return tmp_path / "photos"
