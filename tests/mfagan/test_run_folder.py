import pytest

from mfagan.config import resolve
from mfagan.run_folder import RunFolder


def test_a_full_disk_names_the_metrics_too(tmp_path):
    folder = RunFolder(tmp_path / "out", resolve())
    folder.metrics.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"metrics\.jsonl' cannot be written: No space left"):
        folder.append_metrics({"stage": "pixel", "step": 1})
