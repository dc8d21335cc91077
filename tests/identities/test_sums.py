"""What the rows of a table sum to, wherever its docstring says that they do."""

from typing import Any

import numpy as np
import pytest
import torch

from mudd_interp.analysis import (
    compare_losses,
    composition,
    composition_table,
    edge_attribution,
    in_context_loss,
    predictions,
    routes,
    token_weights,
    weight_distribution,
)
from tests.identities.errors import TOKENS
from tests.parity.family import FAMILY, random_model

SEQUENCE = TOKENS[:1]
# Sums in float64 of terms that are float32's or float64's.
CLOSE: Any = {"rel": 1e-5, "abs": 1e-6}


@pytest.fixture(scope="module")
def model() -> Any:
    return random_model(FAMILY["MUDDFormer"])


def test_routes_sum_to_the_coefficient_and_their_shares_to_one(model: Any) -> None:
    found = routes(model, SEQUENCE, source=0, layer=3, stream="r", position=4)
    assert len(found.frame) > 2
    assert found.frame["coefficient"].to_numpy().sum() == pytest.approx(found.total, **CLOSE)
    assert found.frame["share"].to_numpy().sum() == pytest.approx(1, **CLOSE)


def test_direct_and_chain_sum_to_the_total_of_a_pair_of_heads(model: Any) -> None:
    for frame in (
        composition(model, SEQUENCE, (0, 1), (2, 0), "v").frame,
        composition_table(model, SEQUENCE, "v").frame,
    ):
        np.testing.assert_allclose(frame["direct"] + frame["chain"], frame["total"], atol=1e-12)


def test_static_and_dynamic_sum_to_the_weight(model: Any) -> None:
    frame = token_weights(model, SEQUENCE).frame_at(3)
    assert frame["dynamic"].abs().to_numpy().max() > 0
    np.testing.assert_allclose(frame["static"] + frame["dynamic"], frame["total"], atol=1e-12)


def test_mean_losses_are_the_models(model: Any) -> None:
    with torch.no_grad():
        expected = float(model(SEQUENCE, return_type="loss"))
    assert predictions(model, SEQUENCE).frame["loss"].iloc[1:].to_numpy().mean() == pytest.approx(
        expected, **CLOSE
    )
    frame = in_context_loss(model, [SEQUENCE], early=2, late=5, reach=1).frame
    mean = np.average(frame["loss"], weights=frame["sequences"])
    assert mean == pytest.approx(expected, **CLOSE)


def test_probabilities_sum_to_one_over_the_whole_vocabulary(model: Any) -> None:
    found = predictions(model, SEQUENCE, k=model.cfg.d_vocab)
    assert found.top_frame(2)["probability"].to_numpy().sum() == pytest.approx(1, **CLOSE)


def test_histograms_hold_every_token(model: Any) -> None:
    found = weight_distribution(model, [TOKENS])
    stream = model.wiring.streams[0]
    edge = found.edge_frame(stream, 1, 0)
    assert edge["count"].to_numpy().sum() == TOKENS.numel()
    assert edge["share"].to_numpy().sum() == pytest.approx(1, **CLOSE)
    other = random_model(FAMILY["Transformer++"])
    losses = compare_losses(model, other, [TOKENS])
    predicted = TOKENS.numel() - len(TOKENS)
    assert losses.summary.tokens == predicted
    assert losses.histogram_frame["count"].to_numpy().sum() == predicted


def test_estimates_of_edges_sum_to_that_of_all_of_them(model: Any) -> None:
    """To first order: the slope of the loss as all edges shrink at once."""
    found = edge_attribution(model, [SEQUENCE])
    step, sides = 1e-2, list[float]()
    for size in (-step, step):
        hooks = [
            (model.wiring.gate(read), lambda w, hook, s=size: w * (1 - s))
            for read in model.wiring.rows
        ]
        with torch.no_grad(), model.hooks(hooks):
            sides.append(float(model(SEQUENCE, return_type="loss")))
    slope = (sides[1] - sides[0]) / (2 * step)
    # of a central difference: its square, and the last bits of the loss over the step
    assert found.frame["estimate"].to_numpy().sum() == pytest.approx(slope, rel=2e-3, abs=1e-3)
