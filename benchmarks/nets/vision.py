"""Convolutional classifiers of the zoo, exact and in plain torch.

ResNet-50 and ResNeXt-50 32x4d (one bottleneck), MobileNetV2, DenseNet-121 and RegNetY-800MF.
Invariant: full-size parameter counts equal the published ones (`PARAMETERS`, checked by a test).
"""

import torch
from torch import Tensor, nn

from benchmarks.nets.seeding import Net, image, seeded

PARAMETERS = {
    "resnet50": 25_557_032,
    "resnext50_32x4d": 25_028_904,
    "mobilenet_v2": 3_504_872,
    "densenet121": 7_978_856,
    "regnet_y_800mf": 6_432_512,
}


def conv_norm(
    cin: int,
    cout: int,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
    act: type[nn.Module] | None = nn.ReLU,
) -> nn.Sequential:
    """Convolution without bias, batch norm, activation."""
    conv = nn.Conv2d(cin, cout, kernel, stride, kernel // 2, groups=groups, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    layers = [conv, nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([act()] if act else []))


class Classifier(nn.Module):
    """Features, global average pool, dropout-free linear head."""

    def __init__(self, features: nn.Module, width: int, classes: int):
        super().__init__()
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.flatten(self.pool(self.features(x)), 1))


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, 1x1 with expansion 4 and a residual."""

    def __init__(self, cin: int, planes: int, stride: int, groups: int, base: int):
        super().__init__()
        width, cout = planes * base // 64 * groups, planes * 4
        self.branch = nn.Sequential(
            conv_norm(cin, width),
            conv_norm(width, width, 3, stride, groups),
            conv_norm(width, cout, act=None),
        )
        straight = stride == 1 and cin == cout
        self.skip = nn.Identity() if straight else conv_norm(cin, cout, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.skip(x))


def bottleneck_net(
    depths: tuple[int, ...], groups: int, base: int, classes: int, stem: int
) -> nn.Module:
    layers: list[nn.Module] = [conv_norm(3, stem, 7, 2), nn.MaxPool2d(3, 2, 1)]
    cin = stem
    for stage, depth in enumerate(depths):
        planes = stem << stage
        for block in range(depth):
            stride = 2 if stage and not block else 1
            layers.append(Bottleneck(cin, planes, stride, groups, base))
            cin = planes * 4
    return Classifier(nn.Sequential(*layers), cin, classes)


def resnet50(small: bool = False) -> Net:
    return _resnet(1, 64, small)


def resnext50_32x4d(small: bool = False) -> Net:
    return _resnet(8 if small else 32, 8 if small else 4, small)


def _resnet(groups: int, base: int, small: bool) -> Net:
    depths, classes, stem = ((1, 1, 2, 1), 10, 16) if small else ((3, 4, 6, 3), 1000, 64)
    build = lambda: bottleneck_net(depths, groups, base, classes, stem)
    return _image_net(build, small)


class InvertedResidual(nn.Module):
    """Expand 1x1, depthwise 3x3, project 1x1 without activation."""

    def __init__(self, cin: int, cout: int, stride: int, expand: int):
        super().__init__()
        hidden = cin * expand
        grow = [conv_norm(cin, hidden, act=nn.ReLU6)] if expand != 1 else []
        self.branch = nn.Sequential(
            *grow,
            conv_norm(hidden, hidden, 3, stride, hidden, nn.ReLU6),
            conv_norm(hidden, cout, act=None),
        )
        self.residual = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x) if self.residual else self.branch(x)


MOBILENET_STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(small: bool = False) -> Net:
    stages = MOBILENET_STAGES[:4] if small else MOBILENET_STAGES
    last, classes = (128, 10) if small else (1280, 1000)

    def build() -> nn.Module:
        layers: list[nn.Module] = [conv_norm(3, 32, 3, 2, act=nn.ReLU6)]
        cin = 32
        for expand, cout, repeat, stride in stages:
            for block in range(min(repeat, 2) if small else repeat):
                layers.append(InvertedResidual(cin, cout, stride if not block else 1, expand))
                cin = cout
        layers.append(conv_norm(cin, last, act=nn.ReLU6))
        return Classifier(nn.Sequential(*layers), last, classes)

    return _image_net(build, small)


class DenseLayer(nn.Module):
    """Pre-activation 1x1 then 3x3; the new features are appended to the input."""

    def __init__(self, cin: int, growth: int):
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm2d(cin), nn.BatchNorm2d(4 * growth)
        self.conv1 = nn.Conv2d(cin, 4 * growth, 1, bias=False)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(torch.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(torch.relu(self.norm2(y)))], 1)


def densenet121(small: bool = False) -> Net:
    depths, growth, classes = ((2, 3, 2), 8, 10) if small else ((6, 12, 24, 16), 32, 1000)

    def build() -> nn.Module:
        cin = 2 * growth
        layers: list[nn.Module] = [conv_norm(3, cin, 7, 2), nn.MaxPool2d(3, 2, 1)]
        for stage, depth in enumerate(depths):
            for _ in range(depth):
                layers.append(DenseLayer(cin, growth))
                cin += growth
            if stage < len(depths) - 1:
                conv = nn.Conv2d(cin, cin // 2, 1, bias=False)
                layers += [nn.BatchNorm2d(cin), nn.ReLU(), conv, nn.AvgPool2d(2)]
                cin //= 2
        layers += [nn.BatchNorm2d(cin), nn.ReLU()]
        return Classifier(nn.Sequential(*layers), cin, classes)

    return _image_net(build, small)


class SqueezeExcite(nn.Module):
    """Channel gates from the global mean."""

    def __init__(self, width: int, squeezed: int):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.down, self.up = nn.Conv2d(width, squeezed, 1), nn.Conv2d(squeezed, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.up(torch.relu(self.down(self.pool(x)))))


class YBlock(nn.Module):
    """RegNetY: 1x1, grouped 3x3, squeeze-excite, 1x1, residual."""

    def __init__(self, cin: int, cout: int, stride: int, group_width: int):
        super().__init__()
        self.branch = nn.Sequential(
            conv_norm(cin, cout),
            conv_norm(cout, cout, 3, stride, cout // group_width),
            SqueezeExcite(cout, round(cin / 4)),
            conv_norm(cout, cout, act=None),
        )
        straight = stride == 1 and cin == cout
        self.skip = nn.Identity() if straight else conv_norm(cin, cout, 1, stride, act=None)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.branch(x) + self.skip(x))


def regnet_y_800mf(small: bool = False) -> Net:
    depths, widths = ((1, 2, 1), (32, 48, 64)) if small else ((1, 3, 8, 2), (64, 144, 320, 784))

    def build() -> nn.Module:
        layers: list[nn.Module] = [conv_norm(3, 32, 3, 2)]
        cin = 32
        for depth, width in zip(depths, widths):
            for block in range(depth):
                layers.append(YBlock(cin, width, 1 if block else 2, 16))
                cin = width
        return Classifier(nn.Sequential(*layers), cin, 10 if small else 1000)

    return _image_net(build, small)


def _image_net(build, small: bool) -> Net:
    size = 64 if small else 224
    module = seeded(build, calibrate=image(4, size))
    return Net(module, {"image": image(1, size)}, ("logits",))
