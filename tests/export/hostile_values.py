"""Values that readers of model files must stand."""

from __future__ import annotations

HUGE = (0, 1, -1, 2**15, 2**31 - 1, 2**31, 2**40, 2**63 - 1, -(2**63))
TEXTS = (
    "",
    "\0",
    "lr",
    "sr",
    "/etc/passwd",
    "../outside/secret.bin",
    "\x1b[31mred\n\r",
    "‮left",
    "a" * 300_000,
    "%s%n{0}${x}",
    "9" * 5000,
    "NaN",
    "mfa_x4_w99999_c9-9_s0-0",
    "mfa_x4_w8_c1-2_s1-2\n",
    "mfa_x0_w0_c0_s0",
    "rrdb_x4_w64_b23_g32",
    "patchgan_n3_f16",
)
OPS = (
    *("If", "Loop", "Scan", "Evil", "", "ConstantOfShape", "Expand", "Tile", "RandomNormal"),
    *("Resize", "Pad", "Conv", "DepthToSpace", "Gather", "QuantizeLinear", "Range", "Einsum"),
    *("Concat", "Mod", "Div", "Reshape", "SequenceAt", "StringConcat", "DequantizeLinear"),
)
LOCATIONS = (
    "/etc/passwd",
    "../outside/secret.bin",
    "./../outside/secret.bin",
    "inside/../../outside/secret.bin",
    "link.bin",
    "secret.bin",
    "/dev/zero",
    "*/_ORT_MEM_ADDR_/*",
)
