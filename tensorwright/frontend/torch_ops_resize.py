"""aten operators that resample: upsampling in 1 to 3 dimensions, grid_sample.

torch's nearest takes the element at floor(position * scale); its other modes put samples at pixel
centres unless align_corners. Where the call states scale factors, they and not the ratio of the
sizes place the samples.
"""

from __future__ import annotations

from tensorwright.frontend.torch_ops import Call, Rows
from tensorwright.ir.graph import Node
from tensorwright.ops import resample as rs

RESIZE = Rows()

# torch's name -> (our mode, whether the call has align_corners, attributes)
MODES = {
    "nearest": ("nearest", False, dict(coordinates="asymmetric", rounding="floor")),
    "_nearest_exact": ("nearest", False, dict(coordinates="half_pixel",
                                              rounding="round_prefer_ceil")),
    "linear": ("linear", True, {}), "bilinear": ("linear", True, {}),
    "trilinear": ("linear", True, {}), "bicubic": ("cubic", True, dict(cubic=-0.75)),
}  # fmt: skip
GRID_MODES, GRID_PADDINGS = ("linear", "nearest", "cubic"), ("zeros", "border", "reflection")


def resized(c: Call, x: Node, mode: str, align: bool, scales) -> Node:
    ours, _, attrs = MODES[mode]
    attrs = dict(attrs)
    attrs.setdefault("coordinates", "align_corners" if align else "half_pixel")
    if align:
        scales = None  # the corners fix the positions
    if scales is not None and all(s is not None for s in scales):
        attrs["scales"] = (1.0,) * (x.rank - len(scales)) + tuple(float(s) for s in scales)
    return rs.resize(x, sizes=c.shape, mode=ours, **attrs)


def _smoothed(mode: str):
    """Downsampling by a filter as wide as a pixel of the result; nothing outside has weight."""
    attrs = {"mode": "linear"} if mode == "bilinear" else {"mode": "cubic", "cubic": -0.5}

    def convert(c: Call, x, size, align_corners, s1=None, s2=None):
        scales = tuple(s1) if isinstance(s1, (list, tuple)) else (s1, s2)
        if align_corners:
            raise c.fail("align_corners together with antialias is not supported")
        given = {} if None in scales else {"scales": (1.0, 1.0, *map(float, scales))}
        return rs.resize(x, sizes=c.shape, coordinates="half_pixel", antialias=True,
                         exclude_outside=True, **attrs, **given)  # fmt: skip

    return convert


def _vector_form(mode: str, aligned: bool):
    if aligned:
        return lambda c, x, size, align_corners, scales=None: resized(
            c, x, mode, align_corners, scales)  # fmt: skip
    return lambda c, x, size, scales=None: resized(c, x, mode, False, scales)


def _number_form(mode: str, aligned: bool):
    if aligned:
        return lambda c, x, size, align_corners, s1=None, s2=None, s3=None: resized(
            c, x, mode, align_corners, _given(x, s1, s2, s3))  # fmt: skip
    return lambda c, x, size, s1=None, s2=None, s3=None: resized(
        c, x, mode, False, _given(x, s1, s2, s3))  # fmt: skip


def _given(x: Node, *scales):
    found = scales[: x.rank - 2]
    return None if None in found else found


def _fill() -> None:
    for mode, (_, aligned, _) in MODES.items():
        for n in (1, 2, 3):
            name = f"_upsample{mode}{n}d" if mode.startswith("_") else f"upsample_{mode}{n}d"
            RESIZE.add(_vector_form(mode, aligned), f"{name}.vec")
            RESIZE.add(_number_form(mode, aligned), f"{name}.default")


for _mode in ("bilinear", "bicubic"):
    RESIZE.add(_smoothed(_mode), f"_upsample_{_mode}2d_aa.default", f"_upsample_{_mode}2d_aa.vec")


@RESIZE.row("grid_sampler_2d.default", "grid_sampler_3d.default", "grid_sampler.default")
def _grid_sampler(c, x, grid, mode, padding, align_corners):
    return rs.grid_sample(x, grid, mode=GRID_MODES[mode], padding=GRID_PADDINGS[padding],
                          align_corners=bool(align_corners))  # fmt: skip


_fill()
