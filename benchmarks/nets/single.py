"""Single operators as nets: what a table of kernels has for rows."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from benchmarks.nets.seeding import Net, noise, seeded

Operand = tuple[int, ...] | Tensor  # a shape of noise, or the values themselves


class Op(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]):
        super().__init__()
        self.function = function

    def forward(self, *xs: Tensor) -> Tensor:
        return self.function(*xs)


class First(nn.Module):
    """The first result of a module."""

    def __init__(self, inner: nn.Module):
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]


class Kernels(dict[str, tuple[str, Callable[[], Net]]]):
    """name -> (family, how to build it). prefix: of all names."""

    def __init__(self, prefix: str = ""):
        super().__init__()
        self.prefix = prefix

    def row(self, family: str, name: str, build: Callable[[], Net]) -> None:
        self[f"{self.prefix}{family}_{name}"] = (family, build)

    def op(self, family: str, name: str, function: Callable[..., Tensor], *xs: Operand) -> None:
        value = lambda x: x if isinstance(x, Tensor) else noise(*x)
        inputs = lambda: {f"x{k}": value(x) for k, x in enumerate(xs)}
        self.row(family, name, lambda: Net(Op(function).eval(), inputs(), ("y",)))

    def layer(self, family: str, name: str, make: Callable[[], nn.Module], *shape: int) -> None:
        self.row(family, name, lambda: Net(seeded(make), {"x": noise(*shape)}, ("y",)))

    def conv(
        self, name: str, size: int, before: int, after: int, kernel: int, stride: int, **more
    ) -> None:
        family = "depthwise" if more.get("groups", 1) == before else "conv"
        padding = more.pop("padding", (kernel - 1) // 2)
        make = lambda: nn.Conv2d(before, after, kernel, stride, padding, **more)
        self.layer(family, name, make, 1, before, size, size)

    def builder(self, name: str) -> Callable[..., Net]:
        """As the function of a module that builds the row. Raises AttributeError."""
        if name not in self:
            raise AttributeError(name)
        return lambda small=False: self[name][1]()
