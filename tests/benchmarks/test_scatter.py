"""The picture of estimated against measured costs."""

from __future__ import annotations

import math
from xml.etree import ElementTree

from benchmarks.scatter import COLUMNS, HEIGHT, WIDTH, points, scatter, span
from benchmarks.schedules import Kernel, Sample

SVG = "{http://www.w3.org/2000/svg}"


def kernel(family: str) -> Kernel:
    return Kernel(family, "k", [Sample({}, c, t) for c, t in ((2, 3.0), (4, 6.0), (1, 1.5))])


def test_points_are_relative_and_logarithmic():
    found = points(kernel("rows"))
    expected = [(0, math.log(2)), (math.log(2), math.log(4)), (-math.log(2), 0)]
    assert all(math.isclose(a, b) for f, e in zip(found, expected) for a, b in zip(f, e))


def test_a_span_holds_its_values():
    low, high = span([1.0, 3.0])
    assert low < 1 and high > 3
    low, high = span([2.0])
    assert low < 2 < high


def test_a_panel_a_family():
    families = [f"family{n}" for n in range(COLUMNS + 1)]
    root = ElementTree.fromstring(scatter([kernel(f) for f in families]))
    panels = root.findall(f"{SVG}g")
    titles = [p.find(f"{SVG}text").text for p in panels]
    assert titles == families
    assert panels[-1].get("transform") != panels[0].get("transform")
    for panel in panels:
        marks = panel.findall(f"{SVG}circle")
        assert len(marks) == 3
        assert sum(m.get("fill") == "none" for m in marks) == 1  # the default
        assert all(0 <= float(m.get("cx")) <= WIDTH for m in marks)
        assert all(0 <= float(m.get("cy")) <= HEIGHT for m in marks)
