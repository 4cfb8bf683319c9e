"""Single operators in unusual sizes: the rows of `python -m benchmarks.unusual`.

Real models have more of these than of well-known layers: convolutions to one channel, windows as
large as an image, sums along every axis, products with one column, bytes put in another order.
None of them may be an order of magnitude away from what the machine can do.
"""

from collections.abc import Callable
from functools import partial

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.nets.seeding import Net, noise
from benchmarks.nets.single import First, Kernels

KERNELS = Kernels("unusual_")
op, layer = KERNELS.op, KERNELS.layer


def build_all() -> None:
    for part in (convolutions, transposed, products, along_axes, windows, movements, choices, maps,
                 recurrent, pieces):  # fmt: skip
        part()


def named(*numbers: object) -> str:
    return "x".join(map(str, numbers))


def convolutions() -> None:
    """Few channels, one channel, odd channels, large windows and dilations, groups, 1-D and 3-D."""
    for before, after, window, step, size in (
        (1, 8, 3, 1, 96), (3, 3, 3, 1, 128), (3, 32, 7, 2, 96), (8, 1, 3, 1, 96), (8, 2, 3, 1, 96),
        (32, 1, 3, 1, 128), (30, 5, 3, 1, 48), (17, 33, 3, 1, 40), (5, 5, 11, 1, 48),
        (64, 3, 9, 1, 64), (64, 255, 1, 1, 26), (64, 64, 1, 2, 40), (512, 32, 3, 1, 7),
        (3, 192, 16, 16, 112), (4, 4, 3, 1, 6), (16, 16, 3, 1, 300), (64, 192, 5, 1, 27),
        (64, 64, 5, 2, 56), (64, 128, 3, 2, 80),
    ):  # fmt: skip
        make = partial(nn.Conv2d, before, after, window, step, window // 2 if step < 4 else 0)
        layer("conv", named(before, after, window, step, size), make, 1, before, size, size)
    for channels, window, step, size, dilation in (
        (3, 3, 1, 64, 1), (96, 7, 1, 14, 1), (24, 5, 2, 40, 1), (60, 3, 1, 28, 2),
        (16, 31, 1, 28, 1), (1000, 3, 1, 4, 1), (120, 3, 1, 20, 3), (72, 5, 2, 28, 1),
    ):  # fmt: skip
        make = partial(nn.Conv2d, channels, channels, window, step, dilation * (window // 2),
                       dilation=dilation, groups=channels)  # fmt: skip
        name = named(channels, window, step, size, dilation)
        layer("depthwise", name, make, 1, channels, size, size)
    for groups, channels, window, size in (
        (2, 32, 3, 28), (3, 240, 1, 28), (4, 16, 1, 28), (16, 64, 5, 14), (64, 128, 3, 14),
        (5, 20, 3, 28), (8, 240, 1, 28), (10, 20, 3, 28),
    ):  # fmt: skip
        make = partial(nn.Conv2d, channels, channels, window, 1, window // 2, groups=groups)
        layer("grouped", named(groups, channels, window, size), make, 1, channels, size, size)
    for before, after, window, step, length, dilation in (
        (1, 16, 15, 1, 4000, 1), (16, 16, 3, 1, 1000, 8), (32, 1, 7, 1, 8192, 1),
        (1, 64, 400, 160, 16000, 1), (512, 512, 10, 5, 200, 1), (80, 384, 3, 1, 3000, 1),
        (384, 384, 3, 2, 3000, 1), (128, 128, 5, 1, 1000, 1), (256, 256, 7, 1, 500, 1),
    ):  # fmt: skip
        padding = window // 2 * dilation if step == 1 else 0
        make = partial(nn.Conv1d, before, after, window, step, padding, dilation=dilation)
        layer("conv1d", named(before, after, window, step, length), make, 1, before, length)
    several = partial(nn.Conv2d, 3, 12, 3, 1, 1, groups=3)
    layer("grouped", "3x3to12x3x64", several, 1, 3, 64, 64)
    along = partial(nn.Conv1d, 256, 256, 31, 1, 15, groups=256)
    layer("depthwise", "1d_256x31x197", along, 1, 256, 197)
    for before, after, window, size in ((3, 16, 3, 16), (16, 16, 3, 12), (16, 1, 3, 24)):
        make = partial(nn.Conv3d, before, after, window, 1, window // 2)
        layer("conv3d", named(before, after, window, size), make, 1, before, size, size, size)


def transposed() -> None:
    for before, after, window, step, padding, size in (
        (32, 16, 2, 2, 0, 28), (32, 16, 4, 2, 1, 28), (64, 3, 4, 2, 1, 64), (64, 1, 4, 2, 1, 64),
        (32, 1, 9, 4, 3, 14), (64, 32, 3, 2, 1, 14), (100, 512, 4, 1, 0, 1),
    ):  # fmt: skip
        make = partial(nn.ConvTranspose2d, before, after, window, step, padding)
        layer("transposed", named(before, after, window, step, size), make, 1, before, size, size)


def products() -> None:
    """Both operands of the run: one row, one column, few of them, many small ones; turned."""
    for batch, m, n, k in (
        (1, 1, 1000, 1000), (1, 1000, 1, 1000), (1, 2, 1000, 1000), (1, 3, 7, 5000),
        (1, 5000, 7, 3), (1, 100, 100, 2), (64, 8, 8, 8), (64, 64, 1, 64), (200, 3, 3, 3),
        (12, 128, 64, 128), (1, 17, 1001, 129), (1, 9, 128, 768), (96, 1, 200, 64),
    ):  # fmt: skip
        name = named(batch, m, n, k)
        op("product", name, torch.matmul, (batch, m, k), (batch, k, n))
        op("product", f"{name}_nt", lambda a, b: a @ b.mT, (batch, m, k), (batch, n, k))
        op("product", f"{name}_tn", lambda a, b: a.mT @ b, (batch, k, m), (batch, k, n))
    for before, after, rows in ((10, 1, 1000), (784, 10, 1), (3, 3, 5000), (2, 1000, 64)):
        make = partial(nn.Linear, before, after)
        layer("linear", named(before, after, rows), make, rows, before)
    op("product", "vector_matrix", torch.matmul, (300,), (300, 400))
    op("product", "distances", lambda a, b: (a[:, None] - b).square().sum(-1), (100, 64), (120, 64))
    op("product", "gram", lambda a: a @ a.mT, (2, 64, 784))


def along_axes() -> None:
    """Reductions, scans and choices along each axis, whatever lies inside it."""
    for shape, axis in (
        ((8, 16, 32, 32), 0), ((8, 16, 32, 32), 1), ((8, 16, 32, 32), 3), ((1000000,), 0),
        ((1000, 1000), 0), ((1000, 1000), 1), ((100, 10, 1000), 1), ((5000, 3), 1), ((3, 5000), 0),
    ):  # fmt: skip
        name, k = f"{named(*shape)}_{axis}", min(5, shape[axis])
        op("sum", name, partial(torch.sum, dim=axis), shape)
        op("max", name, partial(torch.amax, dim=axis), shape)
        op("argmax", name, partial(torch.argmax, dim=axis), shape)
        op("softmax", name, partial(torch.softmax, dim=axis), shape)
        op("cumsum", name, partial(torch.cumsum, dim=axis), shape)
        op("topk", name, lambda x, k=k, axis=axis: x.topk(k, axis)[0], shape)
    for axes in ((2, 3), (0, 2, 3)):
        op("sum", f"8x16x32x32_{named(*axes)}", partial(torch.sum, dim=axes), (8, 16, 32, 32))
    op("sum", "2x3x4x5x6x70_1x3x5", lambda x: x.sum((1, 3, 5)), (2, 3, 4, 5, 6, 70))
    op("norm", "std", lambda x: x.std(-1), (300, 700))
    op("norm", "channels", lambda x: F.normalize(x, dim=1), (4, 64, 28, 28))
    layer("norm", "layer_7", partial(nn.LayerNorm, 7), 5000, 7)
    layer("norm", "group_1", partial(nn.GroupNorm, 1, 64), 2, 64, 28, 28)
    layer("norm", "group_8", partial(nn.GroupNorm, 8, 64), 2, 64, 28, 28)
    layer("norm", "instance", partial(nn.InstanceNorm2d, 64, affine=True), 2, 64, 28, 28)
    layer("norm", "batch", partial(nn.BatchNorm2d, 64), 2, 64, 28, 28)


def windows() -> None:
    for name, make, shape in (
        ("max_5", partial(nn.MaxPool2d, 5, 1, 2), (1, 64, 20, 20)),
        ("max_13", partial(nn.MaxPool2d, 13, 1, 6), (1, 64, 20, 20)),
        ("max_3_one", partial(nn.MaxPool2d, 3, 1, 1), (1, 1, 200, 200)),
        ("average_3", partial(nn.AvgPool2d, 3, 1, 1), (1, 64, 28, 28)),
        ("average_7", partial(nn.AvgPool2d, 7), (1, 512, 7, 7)),
        ("max_1d", partial(nn.MaxPool1d, 2), (1, 64, 1000)),
        ("max_3d", partial(nn.MaxPool3d, 2), (1, 16, 16, 16, 16)),
        ("lp", partial(nn.LPPool2d, 2, 3, 2), (1, 32, 28, 28)),
    ):
        layer("pool", name, make, *shape)
    for name, how in {
        "nearest": {"scale_factor": 2}, "nearest_thrice": {"scale_factor": 3},
        "linear": {"scale_factor": 2, "mode": "bilinear"},
        "cubic": {"scale_factor": 2, "mode": "bicubic"},
        "linear_odd": {"size": (45, 61), "mode": "bilinear"},
    }.items():  # fmt: skip
        op("resize", name, lambda x, how=how: F.interpolate(x, **how), (1, 32, 28, 28))
        op("resize", f"{name}_3", lambda x, how=how: F.interpolate(x, **how), (1, 3, 80, 80))


def movements() -> None:
    """Floats and bytes in another order; parts put together, cut and repeated."""
    for shape, order in (
        ((64, 64, 64), (2, 1, 0)), ((64, 64, 64), (0, 2, 1)), ((3, 224, 224), (1, 2, 0)),
        ((224, 224, 3), (2, 0, 1)), ((8, 12, 64, 32), (0, 2, 1, 3)),
        ((8, 12, 64, 32), (3, 2, 1, 0)), ((2, 512, 7, 7), (0, 2, 3, 1)),
    ):  # fmt: skip
        name = f"{named(*shape)}_{named(*order)}"
        turned = lambda x, order=order: x.permute(order).contiguous()
        op("turn", name, turned, shape)
        op("turn_bytes", name, turned, noise(*shape).mul(50).abs().to(torch.uint8))
    op("join", "rows", lambda a, b: torch.cat((a, b)), (300, 200), (200, 200))
    op("join", "few_columns", lambda a, b: torch.cat((a, b), 1), (3000, 3), (3000, 2))
    op("join", "eight", lambda a: torch.cat([a] * 8, 1), (64, 10, 10))
    op("join", "last", lambda a, b: torch.stack((a, b), -1), (300, 200), (300, 200))
    for mode in ("constant", "reflect", "replicate"):
        op("pad", mode, lambda x, mode=mode: F.pad(x, (3, 2, 1, 4), mode), (1, 32, 40, 40))
    op("cut", "steps", lambda x: x[:, ::2, 1::3].contiguous(), (64, 100, 99))
    op("cut", "roll", lambda x: x.roll((3, 3), (1, 2)), (1, 56, 56, 96))
    op("cut", "flip", lambda x: x.flip(-1), (300, 300))
    op("repeat", "tile", lambda x: x.repeat(3, 4), (100, 100))
    op("repeat", "each", lambda x: x.repeat_interleave(4, 1), (100, 60))
    op("shuffle", "pixels", lambda x: F.pixel_shuffle(x, 3), (1, 27, 56, 56))
    op("shuffle", "pixels_back", lambda x: F.pixel_unshuffle(x, 2), (1, 16, 56, 56))
    op("shuffle", "unfold", lambda x: F.unfold(x, 3, padding=1), (1, 16, 28, 28))


def choices() -> None:
    """Gathers, scatters, sorts."""
    at = lambda high, *shape: noise(*shape).mul(1e4).abs().long() % high
    op("gather", "rows", lambda x, i: x[i], (1000, 3), at(1000, 5000))
    op("gather", "columns", lambda x, i: x[:, i], (64, 1000), at(1000, 300))
    op("gather", "elements", lambda x, i: x.gather(1, i), (64, 1000), at(1000, 64, 300))
    op("scatter", "elements", lambda x, i, v: x.scatter(1, i, v), (64, 1000),
       at(1000, 64, 1), (64, 1))  # fmt: skip
    op("scatter", "add", lambda x, i, v: x.index_add(0, i, v), (1000, 64), at(1000, 300), (300, 64))
    op("sort", "rows", lambda x: x.sort(-1)[0], (100, 500))
    op("argmax", "words", lambda x: x.argmax(-1), (4, 50257))
    op("topk", "words", lambda x: x.topk(40)[0], (1, 50257))
    op("topk", "boxes", lambda x: x.topk(300)[0], (1, 8400))
    op("grid", "sample", lambda x, g: F.grid_sample(x, g.tanh(), align_corners=False),
       (1, 16, 40, 40), (1, 40, 40, 2))  # fmt: skip


def maps() -> None:
    for one, other in (
        ((300, 700), (700,)), ((300, 700), (300, 1)), ((8, 64, 28, 28), (64, 1, 1)),
        ((8, 64, 28, 28), (28,)), ((5000, 3), (3,)), ((5000, 3), (5000, 1)),
        ((50, 1, 60), (1, 70, 1)),
    ):  # fmt: skip
        op("add", f"{named(*one)}_{named(*other)}", torch.add, one, other)
    for f in (torch.exp, torch.sqrt, torch.sin, torch.atan, torch.erf, torch.round, torch.tanh,
              torch.reciprocal, F.mish, F.softplus, F.hardswish, F.elu):  # fmt: skip
        op("map", f.__name__, lambda x, f=f: f(x.abs()), (100000,))
    some = noise(100000).mul(50)
    for dtype in (torch.float64, torch.int32, torch.int64, torch.uint8, torch.float16):
        name, value = str(dtype).removeprefix("torch."), some.abs().to(dtype)
        op("add", name, torch.add, value, value)
        op("cast", f"from_{name}", lambda x: x.float(), value)
        op("cast", f"to_{name}", lambda x, dtype=dtype: x.abs().to(dtype), (100000,))


def recurrent() -> None:
    for name, make, shape in (
        ("lstm_32", partial(nn.LSTM, 32, 32), (50, 1, 32)),
        ("lstm_batch", partial(nn.LSTM, 40, 100), (20, 16, 40)),
        ("gru_20", partial(nn.GRU, 10, 20), (100, 1, 10)),
        ("rnn_64", partial(nn.RNN, 64, 64), (60, 1, 64)),
    ):
        layer("recurrent", name, lambda make=make: First(make()), *shape)


def pieces() -> None:
    """Small pieces of real models: attention in odd sizes, masks, boxes, pictures."""
    attention = F.scaled_dot_product_attention
    for name, shape in {
        "tiny": (1, 4, 16, 16), "windows": (64, 3, 49, 32), "thin": (1, 8, 200, 8),
        "wide": (1, 2, 100, 160),
    }.items():  # fmt: skip
        op("attention", name, lambda q: attention(q, q, q), shape)
    op("attention", "channels", lambda q: F.softmax(q @ q.mT, -1) @ q, (1, 8, 24, 784))
    op("piece", "rotary", rotary, (1, 12, 128, 64), (128, 64), (128, 64))
    op("piece", "boxes", corners, (1, 8400, 4))
    op("piece", "overlaps", overlaps, (200, 4), (100, 4))
    op("piece", "picture", lambda x: (x.clamp(0, 1) * 255).to(torch.uint8).permute(1, 2, 0),
       (3, 224, 224))  # fmt: skip
    op("piece", "pooled", lambda x: torch.cat((x.mean(-1), x.std(-1)), 1), (1, 256, 300))


def rotary(x, cos, sin):
    return x * cos + torch.cat((-x[..., 32:], x[..., :32]), -1) * sin


def corners(b):
    x, y, w, h = b.unbind(-1)
    return torch.stack((x - w / 2, y - h / 2, x + w / 2, y + h / 2), -1)


def overlaps(a, b):
    high, low = torch.minimum(a[:, None, 2:], b[:, 2:]), torch.maximum(a[:, None, :2], b[:, :2])
    return (high - low).clamp(min=0).prod(-1)


build_all()


def __getattr__(name: str) -> Callable[..., Net]:
    return KERNELS.builder(name)
