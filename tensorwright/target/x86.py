"""x86-64 machines, from the newest to the oldest instruction set that we generate."""

from __future__ import annotations

from dataclasses import replace

from tensorwright.target.target import Target

TRIPLE = "x86_64-unknown-linux-gnu"
SSE42 = ("sse4_1", "sse4_2", "ssse3", "popcnt")
AVX2 = (*SSE42, "avx", "avx2", "fma", "f16c", "bmi1", "bmi2", "movbe")
AVX512 = (*AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
VNNI = (*AVX512, "avx512_vnni")
BF16 = (*VNNI, "avx512_bf16")
FENCE = "llvm.x86.sse.sfence"

X86_SSE = Target("x86-64-sse4.2", TRIPLE, "x86-64-v2", (), 128, 16, fma=False,
                 required=SSE42, conversions=(), store_fence=FENCE)  # fmt: skip
X86_AVX2 = Target("x86-64-avx2", TRIPLE, "x86-64-v3", (), 256, 16, required=AVX2,
                  store_fence=FENCE)  # fmt: skip
X86_AVX512 = Target("x86-64-avx512", TRIPLE, "x86-64-v4", (), 512, 32,
                    required=AVX512, masked=True, store_fence=FENCE)  # fmt: skip
X86_VNNI = Target("x86-64-avx512-vnni", TRIPLE, "x86-64-v4", ("avx512vnni",), 512, 32,
                  required=VNNI, masked=True, store_fence=FENCE, dots=("u8i8",))  # fmt: skip
X86_BF16 = Target("x86-64-avx512-bf16", TRIPLE, "x86-64-v4", ("avx512vnni", "avx512bf16"), 512,
                  32, required=BF16, masked=True, store_fence=FENCE,
                  dots=("u8i8", "bf16"))  # fmt: skip

# Two multiply-adds of whole vectors start at once: Zen 5, Sapphire Rapids and what followed. No
# flag says so, but an extension came with it that is not used. The code runs where that of X86_BF16
# does.
X86_WIDE = replace(X86_BF16, name="x86-64-avx512-wide", cycle_bits=1024, l2_rate=48, l3_rate=28,
                   caches=(48 << 10, 1 << 20, 16 << 20), signs=("avx_vnni",))  # fmt: skip

X86_TARGETS = (X86_WIDE, X86_BF16, X86_VNNI, X86_AVX512, X86_AVX2, X86_SSE)
