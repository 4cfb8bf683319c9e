"""64-bit Arm machines."""

from __future__ import annotations

from tensorwright.target.target import Target

AARCH64 = Target("aarch64", "aarch64-unknown-linux-gnu", "generic", ("neon",), 128, 32,
                 required=("asimd",), by_element=True)  # fmt: skip
ARM_TARGETS = (AARCH64,)
