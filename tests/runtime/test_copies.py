import numpy as np
import pytest

from tensorwright.runtime import copies
from tensorwright.runtime.copies import copy_all


@pytest.mark.parametrize("threads", [1, 3])
def test_everything_arrives(threads, monkeypatch):
    monkeypatch.setattr(copies.cpu, "default_threads", lambda: threads)
    monkeypatch.setattr(copies, "PIECE", 1000)
    monkeypatch.setattr(copies, "ALONE", 2000)
    random = np.random.default_rng(0)
    sources = [
        random.normal(size=(57, 31)).T,
        random.normal(size=(3, 1000)),
        random.normal(size=(4, 7, 11)).transpose(1, 0, 2),
        np.float64(7.0).reshape(()),
        np.empty((0, 5)),
        np.arange(10_000, dtype=np.uint8),
    ]
    targets = [np.full(s.shape, 99, s.dtype) for s in sources]
    copy_all(zip(targets, sources))
    assert all((t == s).all() for t, s in zip(targets, sources))


def test_an_error_in_a_thread_is_raised(monkeypatch):
    monkeypatch.setattr(copies.cpu, "default_threads", lambda: 2)
    monkeypatch.setattr(copies, "ALONE", 0)
    with pytest.raises(ValueError, match="broadcast"):
        copy_all([(np.zeros((3, 4)), np.zeros((3, 5)))])
