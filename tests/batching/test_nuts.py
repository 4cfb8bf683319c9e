"""The recursive No-U-Turn sampler on many chains: moments of its draws against known ones."""

import numpy as np
import pytest

from benchmarks.nuts import compiled, gaussian, logistic, numpy_chain

LANES, DRAWS = 48, 120


def moments(target, d: int, step: float):
    """(mean, variance, steps of each chain) of the draws of all chains."""
    program = compiled(target, d, step, LANES, DRAWS)
    starts = np.zeros((LANES, d), np.float32)
    total, squares, steps = program(starts, np.arange(LANES), np.array(DRAWS))
    count = LANES * (DRAWS - DRAWS // 5)
    mean = np.sum(total, 0) / count
    return mean, np.sum(squares, 0) / count - mean**2, np.asarray(steps)


def test_gaussian():
    d = 5
    target, (mean, variance) = gaussian(d)
    found, spread, steps = moments(target, d, 0.4)
    np.testing.assert_allclose(found, mean, atol=0.12)
    np.testing.assert_allclose(spread, variance, rtol=0.12)
    assert len(set(steps.tolist())) > 1  # chains take trees of different depth
    _, _, alone = numpy_chain(target, np.zeros(d, np.float32), 0.4, 400)
    assert np.mean(steps) / DRAWS == pytest.approx(alone / 400, rel=0.15)


def test_logistic_regression():
    """Against importance sampling from the Gaussian at the posterior's mode."""
    d = 3
    target, signed = logistic(60, d)
    found, spread, _ = moments(target, d, 0.25)
    mean, variance = by_importance(signed.astype(np.float64))
    np.testing.assert_allclose(found, mean, atol=0.06)
    np.testing.assert_allclose(spread, variance, rtol=0.15)


def by_importance(signed: np.ndarray, samples: int = 40_000):
    d = signed.shape[1]
    mode = np.zeros(d)
    for _ in range(30):
        p = 1 / (1 + np.exp(signed @ mode))
        hessian = signed.T @ (signed * (p * (1 - p))[:, None]) + np.eye(d)
        mode = mode + np.linalg.solve(hessian, signed.T @ p - mode)
    random = np.random.default_rng(0)
    root = np.linalg.cholesky(np.linalg.inv(hessian) * 1.5)
    z = random.standard_normal((samples, d))
    x = mode + z @ root.T
    log = -np.logaddexp(0, -x @ signed.T).sum(1) - 0.5 * (x * x).sum(1) + 0.5 * (z * z).sum(1)
    weight = np.exp(log - log.max())
    weight /= weight.sum()
    mean = weight @ x
    return mean, weight @ (x - mean) ** 2
