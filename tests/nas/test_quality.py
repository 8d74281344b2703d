"""What candidates are measured by, against mfagan-evaluate's own figures."""

from __future__ import annotations

import re

import numpy as np
import pytest

from mfagan.quality.measures import Measures
from nas.objective import load_pairs
from nas.quality import MEASURES, Quality, Term

SMALLEST_TEXT = "mfa_x4_w8_c2_s0"


def test_measures_and_weights_are_read():
    assert Quality.parse("psnr_y") == Quality()
    assert Quality().is_psnr_y
    assert Quality.parse("niqe").terms == (Term("niqe", -1.0),)
    weighted = Quality.parse("psnr_y=1, niqe=-0.2")
    assert weighted.terms == (Term("psnr_y", 1.0), Term("niqe", -0.2))
    assert weighted.metric(4) == "psnr_y_crop4 - 0.2 niqe_y_crop4"
    assert Quality.parse(str(weighted)) == weighted
    assert Quality.parse("niqe").metric(2) == "-niqe_y_crop2"
    assert Quality.parse("niqe_y") == Quality.parse("niqe")
    assert [Quality.parse(text).in_decibels for text in ("psnr_rgb", "ssim_y", "psnr_y,niqe")] == [
        True, False, False,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("psnr", "did you mean 'psnr_y'"),
        ("psnr_y,psnr_y=2", "names psnr_y twice"),
        ("flat", "needs a weight, e.g. flat=1"),
        ("psnr_y=0", "other than 0"),
        ("psnr_y=x", "other than 0"),
        ("psnr_y=nan", "other than 0"),
        ("lpips_vgg", "needs --lpips-weights"),
        ("", "is not one of"),
    ],
)
def test_what_is_no_measure_is_refused(text, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Quality.parse(text)


def test_a_sum_is_that_of_the_means_of_mfagan_evaluate(photos):
    rng = np.random.default_rng(0)
    truths = [hr for _, hr in load_pairs(photos, None, 4)]
    truths.append(rng.integers(0, 256, truths[0].shape, dtype=np.uint8))
    images = [(t.astype(int) + rng.integers(-9, 9, t.shape)).clip(0, 255) for t in truths]
    images = [image.astype(np.uint8) for image in images]
    names = [name for name in MEASURES if name not in ("niqe", "lpips_alex", "lpips_vgg", "flat")]
    weights = dict(zip(names, rng.normal(size=len(names)), strict=True))
    quality = Quality(terms=tuple(Term(name, w) for name, w in weights.items()))
    measured = quality.measure(images, truths, 4)
    assert set(measured) == set(quality.names(4))
    measurer = Measures(chosen=("psnr", "ssim", "spectrum"), crop=4).prepare()
    rows = [measurer.compare(a, b) for a, b in zip(images, truths, strict=True)]
    expected = sum(
        w * np.mean([row[full] for row in rows])
        for (name, w), full in zip(weights.items(), quality.names(4), strict=True)
    )
    assert quality.value(measured, 4) == pytest.approx(expected)


def test_another_quality_ranks_and_rejected_ones_get_bicubics(make_objective):
    from mfagan.architecture import parse

    quality = Quality.parse("psnr_y=0.1,ssim_y=10")
    objective = make_objective(budget_ms=3.5, quality=quality)
    plain, ssim = (make_objective(quality=Quality.parse(name)) for name in ("psnr_y", "ssim_y"))
    smallest = parse(SMALLEST_TEXT)
    expected = 0.1 * plain.score(smallest).quality + 10 * ssim.score(smallest).quality
    assert objective.score(smallest).quality == pytest.approx(expected)
    assert objective.metric == "0.1 psnr_y_crop4 + 10 ssim_y_crop4"
    assert objective.bicubic == pytest.approx(0.1 * plain.bicubic + 10 * ssim.bicubic)
    huge = objective.score(parse("mfa_x4_w12_c3-3_s1-1"))
    assert (huge.quality, bool(huge.reason)) == (objective.bicubic, True)


def test_photographs_that_a_measure_does_not_see_are_refused(make_objective):
    # 96x112 pixels are one block of NIQE's 96, and nine are needed.
    with pytest.raises(ValueError, match="niqe_y_crop4 cannot be measured on these validation"):
        make_objective(quality=Quality.parse("niqe"))


def test_other_weights_of_lpips_are_another_search(make_objective, tmp_path, monkeypatch):
    from test_study import CUT_FROM, RANKED_BY

    from nas.opening import identity_of

    for name in ("alexnet-owt-7be5be79.pth", "alex.pth"):
        (tmp_path / name).write_bytes(name.encode())
    quality = Quality.parse("psnr_y=1,lpips_alex=-3", tmp_path)
    monkeypatch.setattr(Quality, "measure", lambda self, *_: dict.fromkeys(self.names(4), 1.0))

    def identity(quality):
        return identity_of(make_objective(quality=quality), RANKED_BY, CUT_FROM, 0)

    before = identity(quality)
    assert before == identity(Quality.parse("psnr_y=1,lpips_alex=-3", tmp_path))
    (tmp_path / "alexnet-owt-7be5be79.pth").write_bytes(b"others")
    after = identity(quality)
    assert {name for name in after if after[name] != before[name]} == {"lpips_weights"}
    assert "lpips_weights" not in identity(Quality())
