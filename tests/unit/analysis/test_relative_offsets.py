"""Attention by offset, against loops over queries and keys and of planted patterns."""

from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import relative_offsets
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit import seeing


@pytest.mark.parametrize("name", ["see", "see-plain"])
def test_scores_and_shares_are_those_of_the_loops(name: str):
    model, batches = seeing.vision_model(name), seeing.batches(2, 1)
    patterns = [model.run_with_cache(batch)[1] for batch in batches]
    found: Any = relative_offsets(model, batches)
    frame = found.frame.set_index(["layer", "head", "dy", "dx"])
    assert len(frame) == model.cfg.n_layers * model.cfg.n_heads * 49
    for layer in range(model.cfg.n_layers):
        images = torch.cat([cache[axes.pattern(layer)].detach() for cache in patterns])
        for head in range(model.cfg.n_heads):
            weights: dict[tuple[int, int], list[float]] = {}
            for image in images[:, head]:
                for query in range(16):
                    for key in range(16):
                        offset = key // 4 - query // 4, key % 4 - query % 4
                        weights.setdefault(offset, []).append(float(image[query, key]))
            for (dy, dx), values in weights.items():
                row = frame.loc[(layer, head, dy, dx)]
                assert row["score"] == pytest.approx(np.mean(values), abs=1e-13)
                assert row["share"] == pytest.approx(sum(values) / 48, abs=1e-13)
                assert row["pairs"] * 3 == len(values)
            strongest = max(
                (offset for offset, values in weights.items() if len(values) >= 24),
                key=lambda offset: np.mean(weights[offset]),
            )
            best = found.strongest.query("layer == @layer and head == @head")
            assert best[["dy", "dx"]].to_numpy().tolist() == [list(strongest)]
    shares = found.frame.groupby(["layer", "head"])["share"].sum()
    np.testing.assert_allclose(shares, 1, atol=1e-13)


def test_a_head_that_always_looks_left_is_found():
    model = seeing.vision_model()

    def left(pattern: torch.Tensor, hook: Any) -> torch.Tensor:
        planted = torch.zeros_like(pattern)
        for query in range(16):
            planted[:, :, query, query - 1 if query % 4 else query] = 1
        return planted

    with model.hooks([(axes.pattern(1), left)]):
        found: Any = relative_offsets(model, seeing.batches(1, 2))
    best = found.strongest.query("layer == 1")
    assert best[["dy", "dx", "score", "pairs"]].to_numpy().tolist() == [[0, -1, 1, 12]] * len(best)
    parts = [relative_offsets(model, [batch]) for batch in seeing.batches(1, 2)]
    whole = relative_offsets(model, seeing.batches(1, 2))
    np.testing.assert_allclose(parts[0].merge(parts[1]).score, whole.score, rtol=1e-12)


def test_a_model_of_text_is_refused():
    model = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match=r"^relative_offsets is not for .* reads no images"):
        relative_offsets(model, [random_tokens(model.config)])
