"""The recursion on numbers worked out by hand, and against every path one by one."""

from itertools import combinations, pairwise

import numpy as np
import torch

from mudd_interp.paths import strongest_routes
from mudd_interp.states import newest_only
from mudd_interp.wiring import unrolled

# R_0 = X_0; R_1 = 2 X_0 + 3 X_1; a stream of block 2 reads 5 X_0 + 7 X_1 + 11 X_2.
RESIDUAL = [torch.tensor([[1.0]]), torch.tensor([[2.0], [3.0]])]
WEIGHTS = torch.tensor([[5.0], [7.0], [11.0]])


def unroll(weights: torch.Tensor, residual: list[torch.Tensor]) -> torch.Tensor:
    return unrolled(residual, weights[..., 0, 0]).read(weights)


def test_coefficients_worked_out_by_hand():
    """X_1 = X_0 + out_1 and X_2 = 2 X_0 + 3 X_1 + out_2."""
    assert unroll(WEIGHTS, RESIDUAL).flatten().tolist() == [
        5 + 7 + 11 * (2 + 3),
        7 + 11 * 3,
        11,
    ]


def test_in_a_plain_residual_every_coefficient_is_one():
    like = torch.zeros(2, 4, 16)
    residual = [newest_only(layer + 1, like) for layer in range(3)]
    assert torch.equal(unroll(newest_only(4, like), residual), torch.ones(2, 4, 4, 1))


def random_dag(n: int, seed: int) -> tuple[np.ndarray, list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    return generator.normal(size=n), [generator.normal(size=1 + layer) for layer in range(n - 1)]


def every_route(weights, residual, start):
    """All routes from the component to the stream, by brute force."""
    later = range(start + 1, len(weights))
    found = {}
    for length in range(len(later) + 1):
        for passed in combinations(later, length):
            sources = (start, *passed)
            steps = [residual[to - 1][at] for at, to in pairwise(sources)]
            found[sources] = float(np.prod([*steps, weights[sources[-1]]]))
    return found


def test_the_strongest_routes_are_those_that_brute_force_finds():
    for seed in range(5):
        weights, residual = random_dag(7, seed)
        for start in range(7):
            expected = every_route(weights, residual, start)
            best = sorted(expected, key=lambda sources: -abs(expected[sources]))[:4]
            found = strongest_routes(weights, residual, start, k=4)
            assert [route.sources for route in found] == best
            for route in found:
                np.testing.assert_allclose(route.coefficient, expected[route.sources])


def test_all_routes_together_are_the_coefficient():
    weights, residual = random_dag(6, seed=9)
    total = unroll(
        torch.from_numpy(weights)[:, None], [torch.from_numpy(each)[:, None] for each in residual]
    )
    for start in range(6):
        routes = strongest_routes(weights, residual, start, k=100)
        np.testing.assert_allclose(sum(r.coefficient for r in routes), total[start, 0])


def test_the_baseline_has_one_route():
    residual = [np.eye(layer + 1)[-1] for layer in range(4)]
    (route,) = strongest_routes(np.eye(5)[-1], residual, start=1, k=9)
    assert (route.sources, route.coefficient) == ((1, 2, 3, 4), 1.0)
