"""``forward`` with TransformerLens' arguments: what is exact is done, the rest refused in words."""

import inspect
from typing import Any

import pytest
import torch
from transformer_lens.model_bridge import TransformerBridge
from transformer_lens.utilities.lm_utils import lm_cross_entropy_loss

from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.arguments import FORWARD
from mudd_interp.model.bridge import BridgeModel
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.parity.test_neox import TOLERANCE, Pair


@pytest.fixture(scope="module", params=["neox parallel", "neox sequential", "llama"])
def pair(request: pytest.FixtureRequest) -> Pair:
    return Pair(request.param)


@pytest.fixture(params=["ours", "baseline"])
def model(request: pytest.FixtureRequest, pair: Pair) -> Any:
    return getattr(pair, request.param)


@pytest.mark.parametrize("kind", [HookedMUDDTransformer, BridgeModel])
def test_every_argument_of_the_bridge_is_taken_in_its_order_or_refused_by_name(kind: type):
    theirs = [*inspect.signature(TransformerBridge.forward).parameters][:-1]
    ours = [*inspect.signature(kind.forward).parameters][:-1]  # pyright: ignore
    known = [name for name in ours if name in theirs]
    assert known == [name for name in theirs if name in ours]
    assert set(theirs) - set(ours) <= FORWARD.keys()


@pytest.mark.parametrize("name", FORWARD)
def test_an_argument_that_means_nothing_is_refused_with_the_reason(
    pair: Pair, model: Any, name: str
):
    with pytest.raises(ValueError, match=rf"forward takes no {name} here \(.+\): leave it out"):
        model(pair.tokens, **{name: torch.ones(1)})
    assert torch.equal(model(pair.tokens, **{name: None}), model(pair.tokens))


def test_an_argument_that_does_not_exist_names_the_nearest(pair: Pair, model: Any):
    with pytest.raises(ValueError, match="argument `stop_at_layr`; did you mean `stop_at_layer`"):
        model(pair.tokens, stop_at_layr=1)


def test_a_return_type_that_does_not_exist_is_refused_before_anything_runs(pair: Pair, model: Any):
    run: list[Any] = []
    hook = ("hook_embed", lambda x, hook: run.append(x))
    for given in ("logits_and_cache", "predictions"):
        with model.hooks([hook]), pytest.raises(ValueError, match="return_type must be 'logits'"):
            model(pair.tokens, given)
    assert not run


@pytest.mark.parametrize("start", [0, 1, 2, -1])
def test_a_plain_model_goes_on_from_the_stream_that_enters_a_block(
    pair: Pair, model: Any, start: int
):
    logits, cache = model.run_with_cache(pair.tokens)
    stream = cache["resid_pre", start]
    torch.testing.assert_close(model(stream, start_at_layer=start), logits, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(
        model(stream[0], start_at_layer=start), logits[:1], rtol=0, atol=TOLERANCE
    )
    between = model(stream, start_at_layer=start, stop_at_layer=3)
    torch.testing.assert_close(between, cache["resid_final"], rtol=0, atol=TOLERANCE)
    assert model(stream, start_at_layer=start, return_type=None) is None


def test_hooks_fire_from_the_block_that_it_starts_at(pair: Pair, model: Any):
    _, cache = model.run_with_cache(pair.tokens)
    stream = cache["resid_pre", 1] + 1
    logits, kept = model.run_with_cache(stream, start_at_layer=1)
    below = [name for name in kept if name.startswith("blocks.0.")]
    assert below == []
    assert "hook_embed" not in kept
    assert torch.equal(kept["resid_pre", 1], stream)

    def shift(x: Any, hook: Any) -> Any:
        return x + 0.5

    with model.hooks([("blocks.0.hook_resid_post", shift), ("hook_embed", shift)]):
        torch.testing.assert_close(model(stream, start_at_layer=1), logits, rtol=0, atol=TOLERANCE)
        assert not torch.equal(model(pair.tokens), model(stream, start_at_layer=1))
    with model.hooks([("blocks.1.hook_resid_pre", shift)]):
        moved = model(stream, start_at_layer=1)
    torch.testing.assert_close(moved, model(stream + 0.5, start_at_layer=1), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("stop", [0, 2, -1])
def test_the_block_that_it_stops_before_does_not_fire(pair: Pair, model: Any, stop: int):
    _, whole = model.run_with_cache(pair.tokens)
    stream, kept = model.run_with_cache(pair.tokens, stop_at_layer=stop)
    torch.testing.assert_close(stream, whole["resid_pre", stop], rtol=0, atol=TOLERANCE)
    blocks = {name.split(".")[1] for name in kept if name.startswith("blocks.")}
    assert blocks == set("012"[:stop])
    assert "hook_embed" in kept
    with model.hooks([(f"blocks.{stop % 3}.hook_resid_pre", lambda x, hook: x + 1)]):
        untouched = model(pair.tokens, stop_at_layer=stop)
    torch.testing.assert_close(untouched, stream, rtol=0, atol=TOLERANCE)


def test_a_dense_model_goes_on_from_all_that_came_before():
    model = random_model(FAMILY["MUDDFormer"])
    tokens = random_tokens(model.config)
    logits, cache = model.run_with_cache(tokens)
    residual, read, *rest = model.input_to_embed(tokens)
    assert torch.equal(residual, cache["embed"])
    assert torch.equal(read, tokens)
    assert rest == [None, None]
    torch.testing.assert_close(model(residual, start_at_layer=0), logits)
    with pytest.raises(ValueError, match=r"block 2 reads X_0\.\.X_2.*model\.logits_from"):
        model(cache["resid_pre", 2], start_at_layer=2)
    outputs = [cache["embed"], cache["resid_post", 0], cache["resid_post", 1]]
    torch.testing.assert_close(model.logits_from(outputs), logits)
    for wrong in ([], [*outputs, outputs[0], outputs[0]]):
        with pytest.raises(ValueError, match="expected X_0 and up to 3 outputs of blocks"):
            model.logits_from(wrong)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"start_at_layer": 9}, r"start_at_layer must lie in -3\.\.3, got 9"),
        ({"start_at_layer": 2, "stop_at_layer": 1}, "stop_at_layer 1 lies before start_at_layer 2"),
        ({"start_at_layer": 1, "return_type": "loss"}, "a loss needs the tokens"),
    ],
    ids=str,
)
def test_a_start_that_leads_nowhere_is_refused(
    pair: Pair, model: Any, arguments: Any, message: str
):
    stream = model(pair.tokens, stop_at_layer=1)
    with pytest.raises(ValueError, match=message):
        model(stream, **arguments)


def test_what_is_no_stream_is_refused(pair: Pair, model: Any):
    stream = model(pair.tokens, stop_at_layer=1)
    for given in (pair.tokens, stream[..., 1:], stream[None]):
        with pytest.raises(ValueError, match=r"takes a residual-stream tensor \[batch pos 64\]"):
            model(given, start_at_layer=1)
    with pytest.raises(ValueError, match=r"the stream is torch\.float64, and the model"):
        model(stream.double(), start_at_layer=1)
    with pytest.raises(ValueError, match="1 to 48 positions here, got 0"):
        model(stream[:, :0], start_at_layer=1)


def test_a_masked_loss_is_that_of_transformer_lens(pair: Pair, model: Any):
    logits = model(pair.tokens)
    mask = torch.ones_like(pair.tokens)
    mask[0, 20:], mask[1, :3], mask[1, 10] = 0, 0, 0
    for per_token in (False, True):
        found = model.loss_fn(logits, pair.tokens, mask, per_token)
        expected = lm_cross_entropy_loss(logits, pair.tokens, mask, per_token)
        torch.testing.assert_close(found, expected)
    everything = model.loss_fn(logits, pair.tokens, torch.ones_like(mask))
    torch.testing.assert_close(everything, model.loss_fn(logits, pair.tokens))
    with pytest.raises(ValueError, match="leaves no two tokens in a row"):
        model.loss_fn(logits, pair.tokens, torch.zeros_like(mask))
    with pytest.raises(ValueError, match=r"must be a tensor of the tokens' shape, \[2, 40\]"):
        model.loss_fn(logits, pair.tokens, mask[:, 1:])


def test_keys_and_values_of_another_kind_are_refused_in_words():
    model = random_model(FAMILY["MUDDFormer"])
    tokens = random_tokens(model.config)
    kept = model.new_kv_cache(2, 7)
    assert torch.equal(model(tokens, past_kv_cache=kept), model(tokens))
    for wrong in (kept[1:], [], object(), [torch.ones(1)] * 3):
        with pytest.raises(ValueError, match=r"from model\.new_kv_cache\(batch, pos\), got"):
            model(tokens, past_kv_cache=wrong)
