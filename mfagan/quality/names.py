"""The measures that there are, and what needs no model."""

from __future__ import annotations

BICUBIC = "bicubic"
"""MATLAB's enlargement, among what is evaluated."""
MEASURES = {
    "psnr": "dB, on Y and on RGB",
    "ssim": "structural similarity, on Y and on RGB",
    "niqe": "naturalness by no ground truth, of images of at least 9 blocks; lower is better",
    "spectrum": "energy of fine detail relative to ground truth, and its correlation with it",
    "flat": "standard deviation in flat places, relative to ground truth",
    "lpips_alex": "perceptual distance by AlexNet; lower is better; needs --lpips-weights",
    "lpips_vgg": "the same by VGG16",
}
USUAL = ("psnr", "ssim", "niqe", "spectrum", "flat")
"""Those that need no file from elsewhere."""
