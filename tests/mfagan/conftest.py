import numpy as np
import pytest
from file_server import serving

from mfagan.images import write_image


@pytest.fixture
def server(monkeypatch):
    """A server of files on this machine, which no proxy of the environment comes before."""
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    with serving() as running:
        yield running


@pytest.fixture
def photos(tmp_path):
    """A folder of four small pictures with smooth areas and edges."""
    rng = np.random.default_rng(0)
    for k in range(4):
        coarse = rng.integers(0, 256, (12, 15, 3)).astype(np.uint8)
        picture = coarse.repeat(8, 0).repeat(8, 1)
        write_image(tmp_path / "photos" / f"{k}.png", picture)
    return tmp_path / "photos"
