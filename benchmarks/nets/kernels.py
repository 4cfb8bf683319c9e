"""Single operators at the shapes of real models: the rows of `python -m benchmarks.kernels`.

C1-C12 and D1-D9 are the convolutions of ResNet-18 and the depthwise convolutions of MobileNet that
the TVM papers report; the others are layers of the models in the zoo. Activations enter and leave
in PyTorch's order (channels first), for every peer.
"""

from collections.abc import Callable

import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.nets.seeding import Net, seeded
from benchmarks.nets.single import First, Kernels

KERNELS = Kernels()
row, op, layer, conv = KERNELS.row, KERNELS.op, KERNELS.layer, KERNELS.conv


PAPER = (
    (224, 3, 64, 7, 2), (56, 64, 64, 3, 1), (56, 64, 64, 1, 1), (56, 64, 128, 3, 2),
    (56, 64, 128, 1, 2), (28, 128, 128, 3, 1), (28, 128, 256, 3, 2), (28, 128, 256, 1, 2),
    (14, 256, 256, 3, 1), (14, 256, 512, 3, 2), (14, 256, 512, 1, 2), (7, 512, 512, 3, 1),
)  # fmt: skip
DEPTHWISE = (
    (112, 32, 1), (112, 64, 2), (56, 128, 1), (56, 128, 2), (28, 256, 1), (28, 256, 2),
    (14, 512, 1), (14, 512, 2), (7, 1024, 1),
)  # fmt: skip
MATMUL = (
    (128, 768, 768), (128, 768, 3072), (128, 3072, 768), (197, 768, 3072), (64, 1024, 2816),
    (512, 768, 3072), (1024, 1024, 1024), (16, 4096, 4096), (4, 4096, 4096), (1, 4096, 4096),
    (1, 1024, 2816), (1, 768, 50257), (128, 768, 50257),
)  # fmt: skip


def build_all() -> None:
    for k, shape in enumerate(PAPER, 1):
        conv(f"c{k}", *shape)
    for k, (size, channels, stride) in enumerate(DEPTHWISE, 1):
        conv(f"d{k}", size, channels, channels, 3, stride, groups=channels)
    for name, shape in {  # ResNet-50, MobileNetV2, DenseNet-121, beside those above
        "r_1x1_up": (56, 64, 256, 1, 1), "r_1x1_down": (56, 256, 64, 1, 1),
        "r_1x1_14": (14, 1024, 256, 1, 1), "r_1x1_7": (7, 512, 2048, 1, 1),
        "m_expand": (112, 16, 96, 1, 1), "m_project": (14, 576, 96, 1, 1),
        "d_bottleneck": (28, 384, 128, 1, 1), "d_growth": (28, 128, 32, 3, 1),
    }.items():  # fmt: skip
        conv(name, *shape)
    conv("dilated", 28, 128, 128, 3, 1, dilation=2, padding=2)
    conv("grouped32", 28, 256, 256, 3, 1, groups=32)
    layer("conv", "transposed", lambda: nn.ConvTranspose2d(128, 64, 4, 2, 1), 1, 128, 28, 28)
    for m, k, n in MATMUL:
        layer("matmul", f"{m}x{k}x{n}", lambda k=k, n=n: nn.Linear(k, n), m, k)
    for tokens in (128, 512, 1024, 4096):
        heads = 12 if tokens < 4096 else 2
        shape = (1, heads, tokens, 64)
        op("attention", f"{tokens}", scaled_dot_product_attention, shape, shape, shape)
    causal = lambda q, k, v: scaled_dot_product_attention(q, k, v, is_causal=True)
    for tokens in (128, 512, 1024):
        op("attention", f"causal{tokens}", causal, *((1, 12, tokens, 64),) * 3)
    step, past = (1, 12, 1, 64), (1, 12, 1024, 64)
    op("attention", "decode1024", scaled_dot_product_attention, step, past, past)
    rows()
    movements()


def rows() -> None:
    """Normalizations, activations, reductions."""
    for m, n in ((512, 768), (6144, 512), (128, 4096)):
        op("rows", f"softmax_{m}x{n}", lambda x: torch.softmax(x, -1), (m, n))
        layer("rows", f"layernorm_{m}x{n}", lambda n=n: nn.LayerNorm(n), m, n)
    layer("rows", "rmsnorm_512x768", lambda: nn.RMSNorm(768), 512, 768)
    for name, function in {
        "gelu": nn.functional.gelu, "gelu_tanh": nn.GELU(approximate="tanh"),
        "silu": nn.functional.silu, "erf": torch.erf, "exp": torch.exp, "tanh": torch.tanh,
    }.items():  # fmt: skip
        op("map", f"{name}_512x3072", function, (512, 3072))
    op("map", "add_8192x2048", torch.add, (8192, 2048), (8192, 2048))
    for axis in range(3):
        op("reduce", f"sum_axis{axis}", lambda x, a=axis: x.sum(a), (64, 256, 512))
        op("reduce", f"max_axis{axis}", lambda x, a=axis: x.amax(a), (64, 256, 512))
    op("reduce", "argmax_50257", lambda x: x.argmax(-1), (16, 50257))
    op("reduce", "mean_hw", lambda x: x.mean((2, 3)), (1, 1280, 7, 7))


def movements() -> None:
    """Transposes, concatenations, gathers, pools, resizes; recurrent steps."""
    copy = lambda f: lambda *x: f(*x).contiguous()
    op("move", "transpose_2d", copy(lambda x: x.mT), (2048, 2048))
    op("move", "heads", copy(lambda x: x.reshape(512, 12, 64).transpose(0, 1)), (512, 768))
    op("move", "nchw_nhwc", copy(lambda x: x.permute(0, 2, 3, 1)), (1, 256, 56, 56))
    op("move", "concat_channels", lambda a, b: torch.cat((a, b), 1), *((1, 256, 28, 28),) * 2)
    op("move", "concat_rows", lambda a, b: torch.cat((a, b), -1), *((4096, 96),) * 2)
    table, index = lambda: nn.Embedding(30522, 768), torch.arange(0, 30522, 60)[:512]
    row("move", "embedding_512", lambda: Net(seeded(table), {"x": index}, ("y",)))
    layer("pool", "max_3x3s2", lambda: nn.MaxPool2d(3, 2, 1), 1, 64, 112, 112)
    layer("pool", "avg_2x2", lambda: nn.AvgPool2d(2), 1, 256, 56, 56)
    layer("pool", "global", lambda: nn.AdaptiveAvgPool2d(1), 1, 2048, 7, 7)
    for mode in ("nearest", "bilinear"):
        scale = lambda x, m=mode: nn.functional.interpolate(x, scale_factor=2, mode=m)
        op("resize", mode, scale, (1, 64, 56, 56))
    for name, kind in (("lstm", nn.LSTM), ("gru", nn.GRU)):
        for steps in (1, 64):
            make = lambda kind=kind: First(kind(256, 512, batch_first=True))
            layer("recurrent", f"{name}_{steps}", make, 1, steps, 256)


build_all()


def __getattr__(name: str) -> Callable[..., Net]:
    return KERNELS.builder(name)
