import argparse
from pathlib import Path

import pytest

from mfagan.about import About
from mfagan.config_file import to_toml
from mfagan.config_layers import resolve, to_values
from mfagan.earlier_settings import changed_settings
from mfagan.existing_run import stored_config
from nas.chosen import finetune_config

NEW = {
    "data": {"lr_data", "degradation", "workers"},
    "network": {"teacher_discriminator", "start", "reparameterize"},
    "schedule": {"teacher_gan_steps", "lr_schedule", "lr_milestones", "lr_decay"},
    "loss": {
        "gan_loss", "logit_weight", "critic_feature_weight", "critic_weight", "perceptual",
        "perceptual_weight", "perceptual_file",
    },
    "optimizer": {"clip"},
    "run": {"compile"},
}  # fmt: skip
"""Keys that the configurations of earlier versions do not have."""


@pytest.fixture
def as_before():
    """What an earlier version did, in today's words."""
    return resolve(
        {
            "data": {"data": "photos"},
            "network": {"teacher_discriminator": "none", "reparameterize": 0.0},
            "schedule": {"teacher_gan_steps": 0},
            "loss": {"perceptual": "none"},
        }
    )


def without_new_keys(config):
    return {
        table: {k: v for k, v in values.items() if k not in NEW[table]}
        for table, values in to_values(config).items()
    }


def test_a_run_of_an_earlier_version_is_what_it_was(as_before, tmp_path):
    names = {name for names in NEW.values() for name in names}
    lines = to_toml(as_before).splitlines()
    kept = [line for line in lines if line.partition(" = ")[0] not in names]
    assert len(lines) - len(kept) == len(names)
    (tmp_path / "config.toml").write_text("\n".join(kept))
    assert stored_config(tmp_path) == as_before
    assert changed_settings(as_before, without_new_keys(as_before)) == []
    changed = changed_settings(resolve(), without_new_keys(as_before))
    assert "network.reparameterize: 0.0 -> 3.0" in changed


def test_what_a_run_of_this_version_says_counts(tmp_path):
    config = resolve({"data": {"data": "photos"}})
    (tmp_path / "config.toml").write_text(to_toml(config))
    assert stored_config(tmp_path) == config


def test_a_supernet_of_an_earlier_version_is_fine_tuned_as_it_was_trained(as_before):
    about = About(kind="supernet", architecture="any", configuration=without_new_keys(as_before))
    arguments = argparse.Namespace(data=Path("photos"), validation=None, seed=0)
    config = finetune_config(arguments, about)
    assert (config.network, config.loss) == (as_before.network, as_before.loss)
