"""What a model card refuses, in words."""

import pytest

from mfagan.model_card import ModelCard


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("1000000000", "receptive_radius must have at most 9 digits, got '1000000000'"),
        ("-1", "receptive_radius must be a whole number, got '-1'"),
        ("999999999", "receptive_radius of .* is 4, got 999999999"),
    ],
)
def test_a_number_that_is_too_long_is_told_its_limit(text, sentence):
    card = ModelCard.of("mfa_x2_w8_c2_s0", precision="fp32", size=None, checkpoint_sha256="0" * 64)
    sentence = sentence.replace("is 4,", f"is {card.receptive_radius},")
    with pytest.raises(ValueError, match=sentence):
        ModelCard.from_metadata(card.to_metadata() | {"receptive_radius": text})
