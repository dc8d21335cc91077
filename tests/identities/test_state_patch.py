"""Putting a whole state back is the clean run; its estimate is the gradient of exactly that."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from mudd_interp import axes
from mudd_interp.analysis import RESTORED, StatePatch, state_hooks, state_patch
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.analysis.test_activations import gpt2

PAIRS = torch.tensor([[3, 5], [4, 2]])
UNNORMED = [name for name in FAMILY if "PrePostDANorm" not in name]
PLAIN = [name for name, cfg in FAMILY.items() if cfg.wiring.kind == "plain"]


def prompts(model: Any) -> tuple[torch.Tensor, torch.Tensor]:
    return random_tokens(model.cfg, pos=5), random_tokens(model.cfg, pos=5, seed=9)


def difference(logits: torch.Tensor) -> torch.Tensor:
    first, second = logits[:, -1].gather(1, PAIRS.to(logits.device)).unbind(1)
    return first - second


def caches(model: Any, *given: torch.Tensor) -> list[Any]:
    with torch.no_grad():
        return [model.run_with_cache(tokens)[1] for tokens in given]


@pytest.mark.parametrize("name", FAMILY)
def test_the_whole_state_at_all_positions_is_the_clean_run_at_every_layer(name: str):
    model = random_model(FAMILY[name])
    found = state_patch(model, *prompts(model), PAIRS)
    state = found.patched[RESTORED.index("state")]
    np.testing.assert_allclose(state[:, -1], found.clean[None].repeat(4, 0), rtol=1e-9)
    np.testing.assert_allclose(found.recovered[0, :, -1], 1)
    # The last aggregate at the last position is all that the logits there read.
    resid = found.patched[RESTORED.index("resid_pre"), -1]
    np.testing.assert_allclose(resid[-2], found.clean, rtol=1e-9)
    np.testing.assert_allclose(resid[:-2], found.corrupted[None].repeat(4, 0), rtol=1e-9)
    # X_0 is the whole state that enters block 0.
    np.testing.assert_allclose(found.patched[RESTORED.index("output"), 0], state[0], rtol=1e-9)


@pytest.mark.parametrize("name", PLAIN)
def test_in_a_plain_model_the_stream_is_the_state(name: str):
    found = state_patch(random_model(FAMILY[name]), *prompts(random_model(FAMILY[name])), PAIRS)
    for row in found.patched[1:]:
        np.testing.assert_allclose(row, found.patched[0], rtol=1e-9, atol=1e-12)


def test_in_a_dense_model_it_is_not():
    model = random_model(FAMILY["MUDDFormer"])
    recovered = state_patch(model, *prompts(model), PAIRS).frame
    middle = recovered[(recovered["layer"] == 2) & recovered["position"].isna()].iloc[0]
    assert middle["state"] == pytest.approx(1)
    assert abs(middle["resid_pre"] - 1) > 0.05
    assert abs(middle["output"] - 1) > 0.05


def by_definition(model: Any, layer: int, at: list[int], what: str) -> torch.Tensor:
    """Every tensor written out: one place of one layer, in a pass from the first block on."""
    clean, corrupted = caches(model, *prompts(model))
    names = {
        "state": [axes.source_output(j) for j in range(layer + 1)],
        "output": [axes.source_output(layer)],
        "resid_pre": [axes.resid_pre(layer) if layer < 3 else axes.RESID_FINAL],
    }[what]

    def put_back(x: torch.Tensor, hook: Any) -> torch.Tensor:
        x = corrupted[hook.name].clone()
        x[:, at] = clean[hook.name][:, at]
        return x

    with torch.no_grad():
        hooks = [(name, put_back) for name in names]
        return difference(model.run_with_hooks(prompts(model)[1], fwd_hooks=hooks))


@pytest.mark.parametrize("name", ["MUDDFormer", "PrePostDANorm, Eq. 10", "GPT-2"])
@pytest.mark.parametrize("what", RESTORED)
def test_single_places_by_their_definition(name: str, what: str):
    model = gpt2() if name == "GPT-2" else random_model(FAMILY[name])
    found = state_patch(model, *prompts(model), PAIRS)
    tolerance = 1e-4 if name == "GPT-2" else 1e-9  # float32, and float64
    for layer in range(4):
        for at, place in (([2], 2), ([4], 4), ([0, 1, 2, 3, 4], -1)):
            exact = by_definition(model, layer, at, what).numpy()
            row = found.patched[RESTORED.index(what), layer, place]  # pyright: ignore[reportArgumentType]
            np.testing.assert_allclose(row, exact, rtol=tolerance, atol=tolerance / 10)


@pytest.mark.parametrize("name", [*UNNORMED, "GPT-2"])
def test_the_estimate_is_the_gradient_of_the_state_at_each_layer(name: str):
    model = gpt2() if name == "GPT-2" else random_model(FAMILY[name])
    model.requires_grad_(name == "MUDDFormer")
    found = state_patch(model, *prompts(model), PAIRS)
    clean, corrupted = caches(model, *prompts(model))
    for layer in range(4):
        names = [axes.source_output(j) for j in range(layer + 1)]
        leaves = {name: corrupted[name].clone().requires_grad_() for name in names}
        hooks: list[Any] = [(name, lambda x, hook: leaves[hook.name]) for name in names]  # noqa: B023
        logits = model.run_with_hooks(prompts(model)[1], fwd_hooks=hooks)
        difference(logits).sum().backward(inputs=list(leaves.values()))
        parts = [
            (leaf.grad * (clean[name] - corrupted[name])).sum(-1)
            for name, leaf in leaves.items()
            if leaf.grad is not None  # in a plain model only the newest output is read
        ]
        expected = torch.stack(parts).sum(0).T.numpy()
        tolerance = 1e-4 if name == "GPT-2" else 1e-8
        np.testing.assert_allclose(
            found.estimate[layer, :-1], expected, rtol=tolerance, atol=tolerance
        )
    np.testing.assert_allclose(found.estimate[:, -1], found.estimate[:, :-1].sum(1))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_for_prompts_that_hardly_differ_the_estimate_is_exact():
    """The state is changed by 1e-5 of itself, so the next order is smaller by about that."""
    model = random_model(FAMILY["MUDDFormer"])
    with torch.no_grad():
        model.embed.W_E[1] = model.embed.W_E[2] * (1 + 1e-5)
    clean = random_tokens(model.config, pos=5)
    clean[:, 1] = 1
    corrupted = clean.clone()
    corrupted[:, 1] = 2
    found = state_patch(model, clean, corrupted, PAIRS)
    exact = found.patched[0] - found.corrupted
    np.testing.assert_allclose(found.estimate, exact, rtol=1e-2, atol=1e-9)
    assert found.agreement > 0.9  # neighbours that are equal except for the next order may swap
    assert not exact[:, 0].any()  # what comes before the first difference is the same
    assert exact[:, 1].any(0).all()


def test_hooks_put_everything_up_to_a_block_back():
    model = random_model(FAMILY["MUDDFormer"])
    clean, corrupted = prompts(model)
    ours, theirs = caches(model, clean, corrupted)
    with torch.no_grad():
        for layer in range(4):
            whole = model.run_with_hooks(corrupted, fwd_hooks=state_hooks(ours, layer))
            torch.testing.assert_close(whole, model(clean))
        found = state_patch(model, clean, corrupted, PAIRS)
        one = model.run_with_hooks(corrupted, fwd_hooks=state_hooks(ours, 2, [3], elsewhere=theirs))
        np.testing.assert_allclose(difference(one), found.patched[0, 2, 3], rtol=1e-9)
        free = model.run_with_hooks(corrupted, fwd_hooks=state_hooks(ours, 2, [1]))
        pinned = model.run_with_hooks(corrupted, fwd_hooks=state_hooks(ours, 2, [1], theirs))
        assert not torch.allclose(free, pinned)
    with pytest.raises(ValueError, match=r"position must lie in 0\.\.4"):
        state_hooks(ours, 1, [5])
    with pytest.raises(ValueError, match="layer must be 0 or more"):
        state_hooks(ours, -1)
    with pytest.raises(ValueError, match=r"lacks `blocks\.3\.hook_resid_post`"):
        state_hooks(ours, 4)


def test_a_result_is_saved_and_has_a_table(tmp_path: Any):
    model = random_model(FAMILY["MUDDFormer"])
    found = state_patch(model, *prompts(model), PAIRS)
    found.save(tmp_path / "patch")
    again = StatePatch.load(tmp_path / "patch")
    pd.testing.assert_frame_equal(again.frame, found.frame)
    frame: Any = found.frame
    assert frame.columns.tolist() == ["layer", "position", *RESTORED, "estimate"]
    assert len(frame) == 4 * 6
    assert frame["position"].isna().sum() == 4
    whole = (found.clean - found.corrupted).mean()
    row = frame[(frame["layer"] == 1) & (frame["position"] == 2)].iloc[0]
    expected = (found.patched[2, 1, 2] - found.corrupted).mean() / whole
    assert row["resid_pre"] == pytest.approx(expected)
    with pytest.raises(ValueError, match="do not merge"):
        found.merge(again)


def test_an_estimate_is_missing_where_norms_stand_between():
    model = random_model(FAMILY["PrePostDANorm, R only"])
    assert model.wiring.between is not None
    found = state_patch(model, *prompts(model), PAIRS)
    assert np.isnan(found.estimate).all()
    assert np.isnan(found.agreement)


def test_prompts_that_cannot_be_compared_are_refused():
    model = random_model(FAMILY["MUDDFormer"])
    tokens = random_tokens(model.config)
    with pytest.raises(ValueError, match="of one shape"):
        state_patch(model, tokens, tokens[:, 1:])
    with pytest.raises(ValueError, match="the likeliest token of prompt 0 is"):
        state_patch(model, tokens, tokens)
    with pytest.raises(ValueError, match="training mode"):
        state_patch(model.train(), tokens, tokens, PAIRS)


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_a_gradient_that_is_not_finite_is_no_missing_estimate(value: float):
    model = random_model(FAMILY["MUDDFormer"])
    with torch.no_grad():
        model.unembed.W_U[:, 1] = value  # of a token that is not an answer
    with pytest.raises(ValueError, match="gradient of a logit difference of random weights is not"):
        state_patch(model, *prompts(model), PAIRS)
    assert not model.list_hooks()
