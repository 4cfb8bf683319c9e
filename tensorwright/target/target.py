"""`Target`: the description of a machine that code generation, schedules and checks read.

Everything that depends on the machine is a field here; nothing asks the host directly.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

TASKS_EACH = 4  # for a thread, so that one task more or less is a small part of its work


@dataclass(frozen=True)
class Target:
    """triple/cpu/features: as LLVM names them (features without the sign). vector_bits: the widest
    vectors worth using; vector_registers: how many of them. fma: whether `llvm.fma` is an
    instruction. caches: bytes of L1d, L2 a core and L3. l2_rate, l3_rate, memory_rate: bytes a
    cycle that one core reads from there. cores: the threads that loops are split for; a program may
    run with more or fewer. required: CPU flags as the operating system names them, checked when an
    artifact is loaded. signs: more of them, by which a host is known to be such a machine.
    store_fence: LLVM's name of what orders stores that went past the caches; empty if none do."""

    name: str
    triple: str
    cpu: str = ""
    features: tuple[str, ...] = ()
    vector_bits: int = 128
    vector_registers: int = 16
    fma: bool = True
    cycle_bits: int = 512  # of vectors that are multiplied and added in a cycle, two at least
    caches: tuple[int, ...] = (32 << 10, 1 << 20, 16 << 20)
    l2_rate: int = 32
    l3_rate: int = 24
    memory_rate: int = 8
    cores: int = field(default=2, repr=False)  # for schedules: code for the same loops is the same
    required: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    by_element: bool = False  # vectors are multiplied by one element of another, and added, at once
    store_fence: str = ""
    masked: bool = False  # masked loads and stores are single instructions
    dots: tuple[str, ...] = ()  # products of narrow pairs or quads summed in 32 bits: u8i8, bf16
    fast_math: int = 1  # rounding errors accepted for speed: 0 (none), 1 or 2
    precision: str = "model"  # what f32 models are to be computed in: "model" (f32) or "bf16"
    conversions: tuple[str, ...] = ("f16",)  # narrow floats with instructions from and to f32
    # kernel -> choices recorded for it
    schedules: tuple[tuple[str, tuple], ...] = field(default=(), repr=False)

    @property
    def llvm_features(self) -> str:
        return ",".join("+" + f for f in self.features)

    def lanes(self, dtype) -> int:
        """Elements of `dtype` in one vector."""
        return max(1, self.vector_bits // max(dtype.bits, 8))

    def rate(self, size: int) -> int:
        """Bytes a cycle that a core reads again of `size` bytes, from the nearest that holds them
        beyond the L1 cache."""
        held = zip(self.caches[1:], (self.l2_rate, self.l3_rate))
        return next((rate for most, rate in held if size <= most), self.memory_rate)

    @property
    def even_tasks(self) -> int:
        """Tasks of the same size that its threads share about equally."""
        return TASKS_EACH * self.cores

    def with_cores(self, cores: int) -> Target:
        return replace(self, cores=cores)
