"""What `tw explain` says of sizes."""

import numpy as np

import tensorwright as tw


@tw.function
def attend(x: tw.f32["b", "s", 8], past: tw.f32["b", "p", 8],
           mask: tw.f32["b", "p+s"]):  # fmt: skip
    xp = tw.numpy
    keys = xp.concat([past, x], axis=1)
    weights = xp.sum(keys, axis=2) * mask
    return weights, keys[:, -1, :]


@tw.function
def positives(x: tw.f32["n"]):
    return x[x > 0] * 2


def test_sizes_of_inputs():
    found = tw.compile(attend, shapes="x: b, s[1..64], 8; past: b, p[..128], 8; mask: b, p+s")
    sizes = found.explain().dimensions
    names = {d.name: d for d in sizes.found}
    assert names["s"].facts == "1..64" and names["s"].source == "dimension 1 of input 'x'"
    assert "dimension 1 of input 'mask' = s + p" in [c.replace("p + s", "s + p")
                                                     for c in sizes.checked]  # fmt: skip
    assert any(p.startswith("output") and "s" in p for p in sizes.proved)
    assert "grows with b" in sizes.memory or "nothing" in sizes.memory
    assert "\nsizes\n" in str(found.explain())


def test_sizes_from_data_and_bounds():
    program = tw.compile(positives, shapes="x: n[1..100]")
    sizes = program.explain().dimensions
    assert any("while it runs" in d.source for d in sizes.found)
    assert program(np.array([1, -1, 2], np.float32)).tolist() == [2, 4]
    assert "at most" in sizes.memory
