"""W itself: every input is the sum of the writes, in both bases, for every kind of model."""

from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mudd_interp.analysis import read_weights
from mudd_interp.model.bridge import BridgeModel
from mudd_interp.wiring import Rewired, total
from tests.identities.circuits import FOUR_BLOCKS, planted
from tests.identities.errors import BRIDGED, EXACT, MODELS, TOKENS, model_of, neox
from tests.parity import literal
from tests.parity.family import FAMILY, random_model, random_tokens

NORMED = [name for name in MODELS if name.startswith("PrePostDANorm")]
NUMBERS = [name for name in MODELS if name not in NORMED]
# Sums of float32 products, in units of the input.
SINGLE = 1e-5


def cache_of(model: Any, tokens: Tensor = TOKENS) -> Any:
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=lambda _: True)[1]


@pytest.mark.parametrize("name", MODELS)
def test_every_read_is_the_sum_of_the_writes_that_it_sees(name: str) -> None:
    model = model_of(name)
    wiring, cache = model.wiring, cache_of(model)
    channels = wiring.between is not None
    assert channels == (name in NORMED)
    for read in wiring.reads:
        expected = cache[read.hook]
        states = [cache[write.hook] for write in wiring.seen(read)]
        found = total(wiring.weights(read, cache), states, channels)
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
        delta = wiring.delta(read, cache)
        deltas = wiring.deltas[: delta.shape[-2 if channels else -1]]
        found = total(delta, [cache[write.hook] for write in deltas], channels)
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", [*FAMILY, *BRIDGED])
def test_the_change_of_basis_is_exact_both_ways(name: str) -> None:
    model = model_of(name)
    wiring, cache = model.wiring, cache_of(model)
    for read in wiring.reads:
        native = wiring.weights(read, cache)
        back = wiring.states_of(read, wiring.delta(read, cache), cache)
        torch.testing.assert_close(back, native, rtol=0, atol=EXACT)


@pytest.mark.parametrize("basis", ["delta", "native"])
@pytest.mark.parametrize("name", NUMBERS)
def test_read_weights_are_complete(name: str, basis: Any) -> None:
    model = model_of(name)
    exact = read_weights(model, TOKENS, basis=basis)
    assert exact.weights.dtype == np.float64
    assert exact.weights.shape == (len(exact.reads), *TOKENS.shape, len(exact.writes))
    assert exact.completeness.max() < EXACT
    rounded = read_weights(model.to(torch.float32), TOKENS, basis=basis)
    assert 0 <= rounded.completeness.max() < SINGLE
    np.testing.assert_allclose(rounded.weights, exact.weights, atol=1e-3)


def test_the_names_of_reads_and_writes() -> None:
    sequential = read_weights(random_model(FAMILY["MUDDFormer"]), TOKENS)
    assert sequential.writes == ("embed", "attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2")
    of_block_1 = ("attn.1.q", "attn.1.k", "attn.1.v", "mlp.1")
    assert sequential.reads[:6] == ("attn.0", "mlp.0", *of_block_1)
    assert sequential.reads[-1] == "final"
    plain = read_weights(random_model(FAMILY["Transformer++"]), TOKENS)
    assert plain.reads == ("attn.0", "mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2", "final")
    native = read_weights(random_model(FAMILY["MUDDPythia"]), TOKENS, basis="native")
    assert native.writes == ("X_0", "X_1", "X_2", "X_3")


@pytest.mark.parametrize("name", ["Transformer++", "GPT-NeoX", *BRIDGED])
def test_a_plain_transformer_takes_one_of_every_write_before_the_read(name: str) -> None:
    model = model_of(name)
    found = read_weights(model, TOKENS)
    parallel = model.wiring.parallel
    for row, read in enumerate(found.reads):
        kind, _, layer = read.partition(".")
        n_layers = 3 if kind == "final" else int(layer)
        own = kind == "mlp" and not parallel
        expected = np.zeros(7)
        expected[: 1 + 2 * n_layers + own] = 1
        assert (found.weights[row] == expected).all(), read


def test_a_planted_circuit_worked_out_by_hand() -> None:
    """X_1 = X_0 + b_0; R of block 1 = 2 X_0 + 3 X_1; V of block 2 = 5 X_0 + 7 X_1 + 11 X_2."""
    model = planted({(0, "r"): [2.0, 3.0], (1, "v"): [5.0, 7.0, 11.0]}, FOUR_BLOCKS)
    native, delta = (read_weights(model, TOKENS, basis=basis) for basis in ("native", "delta"))
    v = native.of("attn.2.v")[..., [native.writes.index(f"X_{j}") for j in range(4)]]
    assert (v == [5, 7, 11, 0]).all()
    embed, block_0, block_1 = 5 + 7 + 11 * (2 + 3), 7 + 11 * 3, 11
    expected = [embed, block_0, block_0, block_1, block_1, 0, 0, 0, 0]
    assert (delta.of("attn.2.v") == expected).all()
    # The FFN of block 1 reads its R stream, and what the attention of its block wrote.
    assert (delta.of("mlp.1") == [2 + 3, 3, 3, 1, 0, 0, 0, 0, 0]).all()


@pytest.mark.parametrize("name", [name for name in FAMILY if name not in NORMED])
def test_weights_make_the_streams_of_the_equations(name: str) -> None:
    """Against states and streams of the literal reference, which shares no code."""
    cfg = FAMILY[name]
    model, tokens = random_model(cfg), random_tokens(cfg)
    cache = cache_of(model, tokens)
    for batch, ids in enumerate(tokens):
        wanted = literal.run(ids, model.state_dict(), cfg)
        for read in model.wiring.reads:
            if read.label.startswith("mlp"):
                continue
            states = [wanted[f"X.{j}"] for j in model.wiring.columns(read)]
            found = total(model.wiring.weights(read, cache)[batch], states)
            place = "final" if read.label == "final" else f"stream.{read.layer}.{read.stream}"
            torch.testing.assert_close(found, wanted[place], rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", FAMILY)
def test_weights_that_no_token_changes_are_the_static_part(name: str) -> None:
    model = model_of(name)
    cache = cache_of(model)
    for read in model.wiring.reads:
        static = model.wiring.static(read)
        assert static is not None
        assert static.shape == (len(model.wiring.seen(read)),)
        if model.wiring.gates == "static" and name not in NORMED:
            weights = model.wiring.weights(read, cache)
            torch.testing.assert_close(weights, static.to(weights).expand_as(weights))


@pytest.mark.parametrize("name", NORMED)
def test_vectors_are_refused_in_words(name: str) -> None:
    with pytest.raises(ValueError, match=r"PrePostDANorm.*path_coefficients"):
        read_weights(model_of(name), TOKENS)


def test_what_cannot_be_read_is_refused() -> None:
    model = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match="basis must be one of delta, native, got 'state'"):
        read_weights(model, TOKENS, basis="state")
    with pytest.raises(ValueError, match=r"no read 'attn.9': there are attn.0"):
        read_weights(model, TOKENS).of("attn.9")
    with pytest.raises(ValueError, match="training mode"):
        read_weights(model.train(), TOKENS)


# --- Changes of W ---------------------------------------------------------------------------------


def doubled_first(weights: Tensor) -> Tensor:
    """Twice the first weight, and half of one more on the newest."""
    changed = weights.clone()
    changed[..., 0] *= 2
    changed[..., -1] += 0.5
    return changed


@pytest.mark.parametrize("name", ["MUDDFormer", "+ Static Dense", "MUDDFormer - R dense"])
def test_a_change_of_weights_is_an_edit_of_the_hooked_tensor(name: str) -> None:
    model = model_of(name)
    for read in model.wiring.rows:
        gate = model.wiring.gate(read)
        if gate is None:
            continue
        with torch.no_grad():
            by_hook = model.run_with_hooks(
                TOKENS, fwd_hooks=[(gate, lambda weights, hook: doubled_first(weights))]
            )
            with model.hooks(model.wiring.hooks(read, doubled_first)):
                found = model(TOKENS)
        assert torch.equal(found, by_hook)


@pytest.mark.parametrize("name", ["MUDDFormer", "PrePostDANorm, Eq. 10", "+ Dynamic Dense"])
def test_a_composed_change_is_that_of_the_hooked_tensor(name: str) -> None:
    """How wirings without a hooked W are edited, (W' - W) * write, where both ways exist."""
    model = model_of(name)
    wiring = model.wiring
    for read in [read for read in wiring.rows if wiring.gate(read) is not None]:
        with torch.no_grad():
            if wiring.between is None:
                with model.hooks(wiring.hooks(read, doubled_first)):
                    expected = model(TOKENS)
                change = doubled_first
            else:  # a vector of each weight: the read times two
                double = [(read.hook, lambda x, hook: 2 * x)]
                expected = model.run_with_hooks(TOKENS, fwd_hooks=double)
                change = partial(torch.mul, 2)
            with model.hooks(Rewired(wiring, read, change).hooks()):
                found = model(TOKENS)
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


@pytest.mark.parametrize("name", ["Transformer++", "MUDDFormer - R dense", "bridge: Llama"])
def test_a_read_of_the_newest_state_can_be_given_others(name: str) -> None:
    model = model_of(name)
    cache = cache_of(model)
    for read in model.wiring.rows:
        if model.wiring.gate(read) is not None:
            continue
        first, newest = (cache[model.wiring.sources[j].hook] for j in (0, read.layer))

        def given(weights: Tensor) -> Tensor:
            changed = 0.5 * weights
            changed[..., 0] += 2
            return changed

        wanted = 2 * first + 0.5 * newest
        with torch.no_grad():
            expected = model.run_with_hooks(
                TOKENS, fwd_hooks=[(read.hook, lambda x, hook, wanted=wanted: wanted)]
            )
            with model.hooks(model.wiring.hooks(read, given)):
                found = model(TOKENS)
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


def test_an_ffn_can_be_given_less_of_its_own_attention() -> None:
    model = random_model(FAMILY["MUDDFormer"])
    cache = cache_of(model)
    read = model.wiring.at("mlp.1")

    def without_own(weights: Tensor) -> Tensor:
        changed = weights.clone()
        changed[..., -1] = 0
        return changed

    less = cache["blocks.1.hook_resid_mid"] - cache["blocks.1.hook_attn_out"]
    expected = model.run_with_hooks(TOKENS, fwd_hooks=[(read.hook, lambda x, hook: less)])
    with model.hooks(model.wiring.hooks(read, without_own)):
        found = model(TOKENS)
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


def test_reads_in_words() -> None:
    wiring = random_model(FAMILY["MUDDFormer"]).wiring
    assert str(wiring.row("v", 1)) == "V of block 2"
    assert wiring.row("v", 1).row == 1
    assert str(wiring.at("final")) == "the final norm"
    with pytest.raises(ValueError, match=r"no read 'attn.2': there are attn.0, mlp.0, attn.1.q"):
        wiring.at("attn.2")


def test_a_baseline_in_memory_has_a_wiring() -> None:
    torch.manual_seed(0)
    model = BridgeModel.from_module(neox().eval())
    assert model.wiring.parallel
    assert read_weights(model, TOKENS).completeness.max() < SINGLE
