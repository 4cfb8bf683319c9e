"""Nets whose sizes vary from call to call: text, speech, images of any size, a detector.

Published widths, fewer layers (a layer's kernels are compiled once however many layers there are),
so that a sequence of many shapes takes seconds. `Net.dynamic` gives each varying axis as a
`torch.export.Dim` or an expression of one.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
import transformers
from torch import Tensor, nn
from torch.export import Dim

from benchmarks.nets.image_transformers import _sizes
from benchmarks.nets.seeding import Net, image, noise, seeded, tokens
from benchmarks.nets.sequence import SMALL, Decoder, DecoderSizes, wav2vec2
from benchmarks.nets.text import bert, bert_sizes

LAYERS = 4


def bert_any(small: bool = False) -> Net:
    """BERT over texts of 1 to 512 tokens."""
    net = bert(bert_sizes(True) if small else {"num_hidden_layers": LAYERS}, small)
    s = Dim("s", min=1, max=512)
    return replace(net, dynamic={name: {1: s} for name in net.inputs})


class AnySize(nn.Module):
    """A vision transformer whose position table is resized to the image."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, pixels: Tensor) -> Tensor:
        return self.model(pixel_values=pixels, interpolate_pos_encoding=True).logits


def vit_any(small: bool = False) -> Net:
    """ViT-B/16 on images of h x w patches."""
    sizes = {} if small else {"num_hidden_layers": LAYERS}
    config = transformers.ViTConfig(**_sizes(small, **sizes), num_labels=10 if small else 1000)
    module = seeded(lambda: AnySize(transformers.ViTForImageClassification(config)))
    h, w = Dim("h", min=2, max=32), Dim("w", min=2, max=32)
    patch = config.patch_size
    # The exporter would take a square of the published size as the only case.
    pixels = image(1, config.image_size)[..., : -2 * patch]
    return Net(
        module,
        {"pixel_values": pixels},
        ("logits",),
        {"pixel_values": {2: patch * h, 3: patch * w}},
    )


def wav2vec2_any(small: bool = False) -> Net:
    """Wav2Vec2-base on 25 ms to 10 s of speech."""
    net = wav2vec2({"num_hidden_layers": LAYERS}, small)
    length = Dim("samples", min=800, max=160_000)
    return replace(net, dynamic={"input_values": {1: length}})


def _decoder(small: bool) -> DecoderSizes:
    return SMALL if small else DecoderSizes(layers=LAYERS)


def llama_prefill_any(small: bool = False) -> Net:
    """A Llama-style stack over prompts of 1 to 512 tokens."""
    sizes, s = _decoder(small), Dim("s", min=1, max=512)
    inputs = {"input_ids": tokens(sizes.vocab, 1, 8 if small else 64)}
    outputs = ("logits", "present_k", "present_v")
    return Net(seeded(lambda: Decoder(sizes)), inputs, outputs, {"input_ids": {1: s}})


def llama_decode_any(small: bool = False) -> Net:
    """The same stack, one token over 1 to 1024 tokens of the past."""
    sizes, past = _decoder(small), Dim("past", min=1, max=1024)
    length = 16 if small else 128
    stacked = noise(2, sizes.layers, 1, sizes.kv_heads, length, sizes.head)
    inputs = {"input_ids": tokens(sizes.vocab, 1, 1), "past_k": stacked[0], "past_v": stacked[1]}
    dynamic = {"input_ids": {}, "past_k": {3: past}, "past_v": {3: past}}
    outputs = ("logits", "present_k", "present_v")
    return Net(seeded(lambda: Decoder(sizes)), inputs, outputs, dynamic)


# ---- a detector -------------------------------------------------------------------------------


@torch.library.custom_op("benchmarks::nms", mutates_args=())
def nms(boxes: Tensor, scores: Tensor, limit: int, overlap: float, threshold: float) -> Tensor:
    """Rows (image, class, box) of the boxes that are kept, as ONNX NonMaxSuppression gives them;
    boxes[n, boxes, 4] by corners, scores[n, classes, boxes]."""
    kept = []
    for i in range(len(boxes)):
        area = (boxes[i, :, 2] - boxes[i, :, 0]) * (boxes[i, :, 3] - boxes[i, :, 1])
        for c in range(scores.shape[1]):
            order = torch.argsort(scores[i, c], descending=True, stable=True)
            order, found = order[scores[i, c, order] > threshold], 0
            while len(order) and found < limit:
                best, order, found = order[0], order[1:], found + 1
                kept.append((i, c, int(best)))
                low = torch.maximum(boxes[i, order, :2], boxes[i, best, :2])
                high = torch.minimum(boxes[i, order, 2:], boxes[i, best, 2:])
                shared = (high - low).clamp(min=0).prod(-1)
                order = order[shared / (area[order] + area[best] - shared) <= overlap]
    return torch.tensor(kept, dtype=torch.int64).reshape(-1, 3)


@nms.register_fake
def _(boxes, scores, limit, overlap, threshold):
    return boxes.new_empty((torch.library.get_ctx().new_dynamic_size(), 3), dtype=torch.int64)


def onnx_functions() -> dict[Callable, Callable]:
    """How the ONNX exporter writes the operators of this file."""
    from onnxscript import opset20 as op

    def written(boxes, scores, limit: int, overlap: float, threshold: float):
        numbers = (op.Constant(value_int=limit), op.Constant(value_float=overlap),
                   op.Constant(value_float=threshold))  # fmt: skip
        return op.NonMaxSuppression(boxes, scores, *numbers)

    return {torch.ops.benchmarks.nms.default: written}


class Separable(nn.Sequential):
    """A depthwise convolution and a pointwise one, as in MobileNet."""

    def __init__(self, width: int, out: int, stride: int):
        super().__init__(
            nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU6(),
            nn.Conv2d(width, out, 1, bias=False),
            nn.BatchNorm2d(out),
            nn.ReLU6(),
        )


class Detector(nn.Module):
    """A MobileNet-like backbone, boxes and class scores at two scales (SSD), kept by NMS."""

    def __init__(self, width: int, depth: int, classes: int, anchors: int):
        super().__init__()
        w = width
        first = [nn.Conv2d(3, w, 3, 2, 1, bias=False), nn.BatchNorm2d(w), nn.ReLU6()]
        steps = [(w, 2 * w, 1), (2 * w, 4 * w, 2), (4 * w, 4 * w, 1), (4 * w, 8 * w, 2)]
        steps += [(8 * w, 8 * w, 1), (8 * w, 16 * w, 2), *[(16 * w, 16 * w, 1)] * depth]
        self.fine = nn.Sequential(*first, *(Separable(*s) for s in steps))
        self.coarse = nn.Sequential(Separable(16 * w, 32 * w, 2), Separable(32 * w, 32 * w, 1))
        self.classes, self.anchors = classes, anchors
        heads = [(n, k) for n in (16 * w, 32 * w) for k in (4, classes)]
        self.heads = nn.ModuleList(nn.Conv2d(n, anchors * k, 3, 1, 1) for n, k in heads)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        fine = self.fine(pixels)
        coarse = self.coarse(fine)
        parts = [self.scale(f, stride, self.heads[k], self.heads[k + 1])
                 for f, stride, k in ((fine, 16, 0), (coarse, 32, 2))]  # fmt: skip
        boxes, scores = (torch.cat(p, 1) for p in zip(*parts))
        kept = torch.ops.benchmarks.nms(boxes, scores.transpose(1, 2), 20, 0.5, 0.2)
        n, c, k = kept.unbind(1)
        return boxes[n, k], scores[n, k, c], c

    def scale(self, x: Tensor, stride: int, at: nn.Module, of: nn.Module) -> tuple[Tensor, Tensor]:
        """Boxes [1, cells * anchors, 4] by corners in pixels, and scores of the classes."""
        n, _, h, w = x.shape
        moved = at(x).permute(0, 2, 3, 1).reshape(n, h, w, self.anchors, 4)
        rows = (torch.arange(h) + 0.5)[:, None, None] * stride
        columns = (torch.arange(w) + 0.5)[None, :, None] * stride
        size = stride * 2.0 ** torch.arange(self.anchors)
        y, x_ = rows + moved[..., 0] * size, columns + moved[..., 1] * size
        tall, wide = size * torch.exp(0.3 * moved[..., 2]), size * torch.exp(0.3 * moved[..., 3])
        boxes = torch.stack((y - tall / 2, x_ - wide / 2, y + tall / 2, x_ + wide / 2), -1)
        logits = of(x).permute(0, 2, 3, 1).reshape(n, h * w * self.anchors, self.classes)
        return boxes.reshape(n, -1, 4), torch.softmax(logits, -1)


def detector_any(small: bool = False) -> Net:
    """An SSD-like detector on images of any multiple of 32; as many boxes as there are."""
    width, size = (8, 64) if small else (32, 320)
    build = lambda: Detector(width, 1 if small else 5, 6 if small else 21, 3)
    module = seeded(build, calibrate=image(2, size))
    h, w = Dim("h", min=2, max=20), Dim("w", min=2, max=20)
    dynamic = {"image": {2: 32 * h, 3: 32 * w}}
    outputs = ("boxes", "scores", "classes")
    return Net(module, {"image": image(1, size)}, outputs, dynamic, onnx_functions())
