"""Attention rollout, against loops and by hand."""

import numpy as np
import pytest

from mudd_interp import axes
from mudd_interp.analysis import attention_rollout
from tests.unit import seeing


@pytest.mark.parametrize("name", ["see", "see-plain"])
def test_rollout_is_the_product_written_out(name: str):
    model, image = seeing.vision_model(name), seeing.seen(1)
    _, cache = model.run_with_cache(image)
    rollout = [[float(q == k) for k in range(16)] for q in range(16)]
    for layer in range(model.cfg.n_layers):
        pattern = cache[axes.pattern(layer)][0].detach()
        step = [
            [
                0.5 * sum(float(head[q, k]) for head in pattern) / len(pattern) + 0.5 * (q == k)
                for k in range(16)
            ]
            for q in range(16)
        ]
        rollout = [
            [sum(step[q][m] * rollout[m][k] for m in range(16)) for k in range(16)]
            for q in range(16)
        ]
    found = attention_rollout(model, image[0])
    np.testing.assert_allclose(found.rollout, rollout, atol=1e-14)
    np.testing.assert_allclose(found.rollout.sum(1), 1, atol=1e-14)
    means = [sum(row[k] for row in rollout) / 16 for k in range(16)]
    np.testing.assert_allclose(found.mean_row, means, atol=1e-14)
    assert found.frame["rollout"].tolist() == found.mean_row.tolist()
    assert found.frame["position"].tolist() == list(range(16))
