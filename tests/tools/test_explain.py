import tensorwright as tw
from tensorwright.tools.memory import evaluate, frame_of, placed
from tests.tools.modules import DIGITS, mlp


def test_kernels_and_their_sources():
    found = tw.compile(mlp()).explain()
    assert [k.calls for k in found.kernels] == [1] * len(found.kernels)
    assert {"mlp.py:6 matmul"} <= {s for k in found.kernels for s in k.sources}
    assert all(k.schedule for k in found.kernels)
    text = str(found)
    assert "kernels, in order of their first call" in text and "memory:" in text


def test_flops_are_texts_of_the_symbols():
    found = tw.compile(mlp()).explain()
    assert any("n" in k.flops for k in found.kernels)


def test_memory_plan_as_data():
    program = tw.compile(str(DIGITS))
    host = program.built.host[0]
    buffers, frame = placed(host), frame_of(host)
    sizes = {"batch": 3}
    assert buffers
    for b in buffers:
        assert b.first <= b.last
        assert evaluate(b.offset, sizes) + evaluate(b.size, sizes) <= evaluate(frame, sizes)
