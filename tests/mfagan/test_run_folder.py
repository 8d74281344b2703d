import numpy as np
import pytest

from mfagan.config_file import FORMAT, to_toml
from mfagan.config_layers import resolve
from mfagan.existing_run import stored_config
from mfagan.run_folder import KEPT_SAMPLES, RunFolder


def test_a_full_disk_names_the_metrics_too(tmp_path):
    folder = RunFolder(tmp_path / "out", resolve())
    folder.metrics.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"metrics\.jsonl' cannot be written: No space left"):
        folder.append_metrics({"stage": "pixel", "step": 1})


def test_the_stored_configuration_is_the_one_of_the_run(tmp_path):
    config = resolve({"data": {"data": "näh e", "patch": 24}, "schedule": {"gan_steps": 0}})
    RunFolder(tmp_path / "out", config)
    assert stored_config(tmp_path / "out") == config
    with pytest.raises(FileNotFoundError, match="holds no run"):
        stored_config(tmp_path)


def test_a_folder_without_a_format_is_an_older_one(tmp_path):
    config = resolve({"data": {"patch": 24}})
    (tmp_path / "config.toml").write_text(to_toml(config), encoding="utf-8")
    assert stored_config(tmp_path) == config
    RunFolder(tmp_path, config)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe\x00binary", "cannot be read: .*config.toml' is not TOML"),
        (b"[data\n", "cannot be read: .*is not TOML"),
        (b"[data]\npatch = 'x'\n", "cannot be read: .*patch must be of type int"),
        (b"[data]\npatches = 3\n", "cannot be read: unknown key 'patches' in .data.; did"),
        (f"format = {FORMAT + 1}\n[future]\n".encode(), r"newer mfagan \(format 2; this version"),
        (b"format = 'x'\n", "its format is 'x'"),
        (b"format = true\n", "its format is True"),
        (None, "is a folder, not a run's configuration"),
    ],
)  # fmt: skip
def test_a_configuration_that_cannot_be_read_is_one_sentence(tmp_path, content, sentence):
    if content is None:
        (tmp_path / "config.toml").mkdir()
    else:
        (tmp_path / "config.toml").write_bytes(content)
    with pytest.raises(ValueError, match=sentence):
        stored_config(tmp_path)


def test_samples_on_the_way_stay_few_and_evenly_spread(tmp_path):
    folder = RunFolder(tmp_path / "out", resolve())
    picture = np.zeros((2, 6, 3), np.uint8)
    folder.write_sample("teacher-gan", 9000, picture)
    for step in range(100, 4001, 100):
        folder.write_sample("gan", step, picture)
        assert len(folder.stage_samples("gan")) <= KEPT_SAMPLES
    steps = [step for step, _ in folder.stage_samples("gan")]
    assert len(steps) == KEPT_SAMPLES
    assert (steps[0], steps[-1]) == (100, 4000)
    gaps = np.diff(steps)
    assert gaps.max() <= 2 * 3900 / (KEPT_SAMPLES - 1)
    folder.forget_after("gan", steps[3])
    assert [step for step, _ in folder.stage_samples("gan")] == steps[:4]
    assert [step for step, _ in folder.stage_samples("teacher-gan")] == [9000]


def test_a_process_that_leaves_writing_to_the_first_writes_nothing(tmp_path):
    folder = RunFolder(tmp_path / "out", resolve(), writes=False)
    with folder.only_process():
        folder.append_metrics({"stage": "pixel", "step": 1})
        folder.write_sample("pixel", 1, np.zeros((2, 6, 3), np.uint8))
        folder.write_weights(folder.weights("pixel"), None, None)
        folder.save_state({})
        folder.forget_after("pixel", 0)
        folder.prune_checkpoints("pixel", None)
        folder.clear_state()
        folder.open_tensorboard()
        folder.check_there()
    assert not (tmp_path / "out").exists()
