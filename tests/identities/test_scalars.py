"""nanochat's scalars, and what else it has: what W is, what edits do, what value embeddings add."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mudd_interp as mi
from mudd_interp import axes
from mudd_interp.analysis import (
    ablation_sweep,
    composition,
    dense_weights,
    direct_logit_attribution,
    edge_patch,
    head_inputs,
    read_weights,
    state_patch,
)
from mudd_interp.config import NextTokenTask
from mudd_interp.edits import every_edge
from mudd_interp.model.wirings import Scalars
from mudd_interp.training.examples import TextExamples
from mudd_interp.training.schedule import Recipe
from mudd_interp.training.trainer import Trainer
from tests.identities.errors import EXACT, TOKENS
from tests.parity.family import BODY, NANOCHAT, SMALL, random_model, random_tokens

SEQUENCE = TOKENS[:1]
WHOLE = mi.ModelConfig(**BODY, wiring=Scalars(), task=NextTokenTask(softcap=4.0))


def scalars_of(n_layers: int) -> mi.ModelConfig:
    return replace(mi.ModelConfig(**SMALL, wiring=Scalars()), n_layers=n_layers, d_mlp=24)


def cache_of(model: Any, tokens: Tensor = TOKENS) -> Any:
    with torch.no_grad():
        return model.run_with_cache(tokens, names_filter=lambda _: True)[1]


@pytest.fixture(scope="module")
def model() -> Any:
    """With everything that nanochat has."""
    return random_model(WHOLE)


# --- What W is ------------------------------------------------------------------------------------


def test_numbers_worked_out_by_hand() -> None:
    """Five blocks, the head takes X_5 - b X_3; every lambda is small or negative."""
    model: Any = mi.HookedMUDDTransformer(scalars_of(5))
    r, x0, b = [2.0, 3.0, 1.0, -1.0, 5.0], [1.0, 0.0, -4.0, 0.0, 2.0], 7.0
    with torch.no_grad():
        model.scalars.resid_lambdas.copy_(torch.tensor(r))
        model.scalars.x0_lambdas.copy_(torch.tensor(x0))
        model.scalars.backout_lambda.fill_(b)
    native, delta = (read_weights(model, TOKENS, basis=basis) for basis in ("native", "delta"))
    assert (native.of("attn.0")[..., :1] == 3).all()  # r and lambda of block 0 are both of X_0
    assert (native.of("attn.2")[..., :4] == [-4, 0, 1, 0]).all()
    assert (native.of("final")[..., :6] == [0, 0, 0, -7, 0, 1]).all()
    # X_1, X_2, ... hold the embedding 3, 9, 9 - 4 = 5, -5 and -25 + 2 times.
    embedding = [delta.of(read)[0, 0, 0] for read in ("attn.1", "attn.2", "attn.3", "attn.4")]
    assert embedding == [3 * 3, 9 - 4, -5, -25 + 2]
    assert delta.of("final")[0, 0, 0] == -23 - 7 * 5
    # What block 0 wrote is in X_3 three times, in X_4 -3 and in X_5 -15 times.
    assert delta.of("final")[0, 0, 1] == delta.of("final")[0, 0, 2] == -15 - 7 * 3
    assert delta.completeness.max() < 1e-6


@pytest.mark.parametrize("n_layers", [1, 2, 3])
def test_where_the_state_that_is_backed_out_is_the_last_one(n_layers: int) -> None:
    model: Any = random_model(scalars_of(n_layers))
    found = read_weights(model, TOKENS, basis="native")
    b = model.scalars.backout_lambda.item()
    expected = [1 - b] if n_layers < 3 else [-b, 1]
    assert found.completeness.max() < EXACT
    np.testing.assert_allclose(model.wiring.static(model.wiring.at("final")), expected)


def test_a_fresh_model_has_the_numbers_of_nanochat() -> None:
    lambdas: Any = mi.HookedMUDDTransformer(scalars_of(3)).scalars
    close: Any = {"rtol": 0, "atol": 1e-6}
    torch.testing.assert_close(lambdas.resid_lambdas, torch.tensor([1.15, 1.10, 1.05]), **close)
    torch.testing.assert_close(lambdas.x0_lambdas, torch.tensor([0.2, 0.125, 0.05]), **close)
    assert lambdas.backout_lambda.item() == pytest.approx(0.2)
    one: Any = mi.HookedMUDDTransformer(scalars_of(1))
    assert one.scalars.resid_lambdas.item() == pytest.approx(1.15)


def test_tables_hold_the_weights_of_the_reads(model: Any) -> None:
    exact, table = read_weights(model, TOKENS, basis="native"), dense_weights(model, [TOKENS])
    for row, read in enumerate(model.wiring.rows):
        columns = list(model.wiring.columns(read))
        expected = exact.of(read.label)[0, 0, columns]
        np.testing.assert_allclose(table.mean[0, row, columns], expected)
        np.testing.assert_allclose(table.static[0, row, columns], expected)


# --- Changes of W ---------------------------------------------------------------------------------


def test_an_edit_of_a_hooked_number_is_one_of_the_read(model: Any) -> None:
    """Live: what follows is computed anew, with the same numbers."""
    cache = cache_of(model)
    for read in (model.wiring.at("attn.0"), *model.wiring.rows):
        gate = model.wiring.gate(read)
        for column, source in enumerate(model.wiring.columns(read)):
            term = cache[gate][..., column, None] * cache[model.wiring.sources[source].hook]

            def without(weights: Tensor, hook: Any, column: int = column) -> Tensor:
                changed = weights.clone()
                changed[..., column] = 0
                return changed

            with torch.no_grad():
                by_hook = model.run_with_hooks(TOKENS, fwd_hooks=[(gate, without)])
                less = [(read.hook, lambda x, hook, term=term: x - term)]
                by_read = model.run_with_hooks(TOKENS, fwd_hooks=less)
                torch.testing.assert_close(by_hook, by_read, rtol=0, atol=EXACT)
                if read.row >= 0:
                    by_edit = mi.run(model, f"cut r {read.row}<-{source}", TOKENS)
                    assert torch.equal(by_edit, by_hook)


def test_parameters_are_no_tensors_that_a_hook_is_given(model: Any) -> None:
    before = model.scalars.resid_lambdas.clone()
    model.run_with_hooks(TOKENS, fwd_hooks=[("dense.1.hook_weights_r", lambda w, hook: w.zero_())])
    assert torch.equal(model.scalars.resid_lambdas, before)


def test_with_all_numbers_one_and_zero_it_is_the_plain_twin(model: Any) -> None:
    twin = mi.HookedMUDDTransformer(model.config.plain(), dtype=torch.float64)
    twin.load_state_dict({n: model.state_dict()[n] for n in twin.state_dict()})
    first = (axes.dense_weights(-1, "r"), lambda w, hook: torch.ones_like(w))
    with torch.no_grad(), model.hooks([first]):
        found = mi.run(model, "plain * *<-*", TOKENS)
        torch.testing.assert_close(found, twin(TOKENS), rtol=0, atol=EXACT)


# --- Value embeddings, smear, windows and softcap -------------------------------------------------


def test_a_logit_before_its_softcap_is_divided_and_value_embeddings_are_in_the_heads(
    model: Any,
) -> None:
    found = direct_logit_attribution(model, SEQUENCE, answer=5, against=7, position=4)
    cache = cache_of(model, SEQUENCE)
    before, logits = cache[axes.PRE_SOFTCAP][0, 4], model(SEQUENCE)[0, 4].detach()
    torch.testing.assert_close(logits, 4 * torch.tanh(before / 4))
    assert float((before - logits).abs().max()) > 0.1
    close = pytest.approx(float(before[5] - before[7]), rel=EXACT)
    assert found.logit == close
    for division in ("components", "heads", "sources"):
        assert found.division(division)["contribution"].to_numpy().sum() == close
    assert np.abs(found.attn_bias).max() < EXACT
    assert found.completeness_error < EXACT


def test_what_a_value_embedding_adds_is_in_the_values_and_by_itself(model: Any) -> None:
    cache = cache_of(model)
    assert [axes.value_embed(layer) in model.hook_dict for layer in range(3)] == [True, False, True]
    added, gate = cache[axes.value_embed(2)], cache[axes.value_gate(2)]
    normed = cache["blocks.2.ln1.hook_normalized"] * model.blocks[2].ln1.w
    attn = model.blocks[2].attn
    own = torch.einsum("bpd,hde->bphe", normed, attn.W_V)
    torch.testing.assert_close(own + added, cache["blocks.2.attn.hook_v"], rtol=0, atol=EXACT)
    vectors = attn.value_embed.W_E[TOKENS] * gate[..., None]
    torch.testing.assert_close(vectors, added, rtol=0, atol=EXACT)
    assert ((gate > 0) & (gate < 3)).all()
    mixed = torch.einsum(
        "bhqk,bkhe->bqhe", cache["blocks.2.attn.hook_pattern"], own.repeat(1, 1, 2, 1)
    )
    with torch.no_grad():
        silent = [(axes.value_embed(2), lambda x, hook: torch.zeros_like(x))]
        with model.hooks(silent):
            z = model.run_with_cache(TOKENS)[1]["blocks.2.attn.hook_z"]
    torch.testing.assert_close(z, mixed, rtol=0, atol=EXACT)


def test_the_share_of_a_value_embedding_in_a_heads_value_is_a_row_of_its_own() -> None:
    model = random_model(NANOCHAT["nanochat without its softcap"])
    frame = head_inputs(model, [SEQUENCE], layer=2, head=1).frame.set_index(["stream", "component"])
    for stream in ("q", "k", "v"):
        assert frame.loc[stream, "total"].sum() == pytest.approx(1, abs=EXACT)
        # no norm and no projection has a bias
        assert frame.loc[(stream, "constant"), "total"] == pytest.approx(0, abs=EXACT)
    assert frame.loc[("q", "value_embed"), "total"] == 0
    share = frame.loc[("v", "value_embed"), "total"]
    assert abs(share) > 1e-2
    found = composition(model, SEQUENCE, (0, 1), (2, 0), "v")
    assert found.constant.mean() == pytest.approx(share, abs=EXACT)
    assert "value_embed" not in head_inputs(model, [SEQUENCE], layer=1, head=1).frame["component"]


def test_windows_hide_what_is_too_far_back(model: Any) -> None:
    """Of 7 positions block 0 sees 4, block 1 sees 3 and the last sees all that came before."""
    with torch.no_grad():
        cache, fused = cache_of(model), model(TOKENS)
        eager = model.run_with_cache(TOKENS)[0]
    torch.testing.assert_close(fused, eager, rtol=0, atol=EXACT)
    seen = torch.ones(7, 7).tril().bool()
    for layer, window in enumerate((4, 3, 24)):
        near = seen & (torch.arange(7)[:, None] - torch.arange(7) < window)
        assert ((cache[axes.pattern(layer)] > 0) == near).all()


def test_a_cache_of_keys_and_values_gives_the_same_logits(model: Any) -> None:
    tokens = random_tokens(model.config, pos=20)
    with torch.no_grad():
        past = model.new_kv_cache(2, 20)
        parts = [model(part, past_kv_cache=past) for part in tokens.split([6, 1, 1, 9, 3], dim=1)]
        torch.testing.assert_close(torch.cat(parts, 1), model(tokens), rtol=0, atol=EXACT)


def test_a_token_that_smear_hides_is_not_in_what_follows(model: Any) -> None:
    """X_0 has the token before in it, so an edit of smear's gate takes it out."""
    cache = cache_of(model)
    alone, gate, x0 = cache[axes.PRE_SMEAR], cache[axes.SMEAR], cache[axes.EMBED]
    assert (gate[:, 0] == 0).all()
    assert torch.equal(x0[:, 0], alone[:, 0])
    expected = alone[:, 1:] + gate[:, 1:] * alone[:, :-1]
    torch.testing.assert_close(x0[:, 1:], expected, rtol=0, atol=EXACT)
    torch.testing.assert_close(alone.square().mean(-1), torch.ones(2, 7).double())
    with model.hooks([(axes.SMEAR, lambda g, hook: torch.zeros_like(g))]):
        torch.testing.assert_close(cache_of(model)[axes.EMBED], alone, rtol=0, atol=EXACT)


def test_an_epsilon_of_none_is_the_smallest_step_of_the_precision() -> None:
    model = random_model(WHOLE)
    assert model.cfg.eps == torch.finfo(torch.float64).eps
    assert model.cfg.output_logits_soft_cap == 4.0
    small = torch.full((1, 16), 1e-4)
    for dtype, eps in ((torch.float32, 2**-23), (torch.float64, 2**-52)):
        found = model.to(dtype).ln_final(small.to(dtype))
        expected = small.to(dtype) / (1e-8 + eps) ** 0.5 * model.ln_final.w
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)
    assert model.to(torch.bfloat16).cfg.eps == 2**-23


# --- What goes on from states ---------------------------------------------------------------------


def test_a_pass_from_states_is_refused_and_analyses_run_the_whole_model(model: Any) -> None:
    cache = cache_of(model)
    states = [cache[axes.source_output(j)] for j in range(2)]
    with pytest.raises(ValueError, match="value embeddings are of tokens, and a pass that begins"):
        model.logits_from(states)
    with pytest.raises(ValueError, match="value embeddings are of tokens"):
        model(states[0], start_at_layer=0)
    edges = every_edge(model)
    losses: Any = ablation_sweep(model, [SEQUENCE], edges).frame["loss"]
    with torch.no_grad():
        whole = model(SEQUENCE, return_type="loss")
        for number in (0, len(edges) - 1):
            with model.edited([edges[number]]):
                change = model(SEQUENCE, return_type="loss") - whole
            assert losses[number] == pytest.approx(float(change), rel=1e-6, abs=1e-9)


def test_states_of_another_prompt_come_with_the_value_embeddings_of_its_own(model: Any) -> None:
    """What is put back is the stream; what later blocks read of the tokens stays."""
    clean, corrupted = TOKENS[:1], TOKENS[1:]
    pair = torch.tensor([[5, 7]])
    found = state_patch(model, clean, corrupted, pair)
    layers, state = range(model.cfg.n_layers + 1), found.patched[0, :, -1, 0]
    silent = [(axes.value_embed(layer), lambda x, hook: torch.zeros_like(x)) for layer in (0, 2)]
    with model.hooks(silent):
        without = state_patch(model, clean, corrupted, pair)
    for layer in layers:
        assert without.patched[0, layer, -1] == pytest.approx(without.clean, rel=EXACT)
        same = bool(np.isclose(state[layer], found.clean[0], rtol=EXACT, atol=0))
        assert same == (layer == model.cfg.n_layers)  # no block is left to read tokens
    cache = cache_of(model, corrupted)
    read, edges = model.wiring.at("final"), edge_patch(model, clean, corrupted, pair)
    term = cache[model.wiring.gate(read)][..., 1, None] * cache[axes.source_output(3)]
    own = cache_of(model, clean)
    less = own[model.wiring.gate(read)][..., 1, None] * own[axes.source_output(3)]
    with torch.no_grad(), model.hooks([(read.hook, lambda x, hook: x - less + term)]):
        logits = model(clean)[0, -1]
    assert edges.edge[-1, 0] == pytest.approx(float(logits[5] - logits[7]), rel=EXACT)


# --- Training -------------------------------------------------------------------------------------


def test_a_few_steps_lower_the_loss_and_move_every_number(tmp_path: Any) -> None:
    torch.manual_seed(0)
    cfg = replace(WHOLE, n_ctx=8, task=NextTokenTask(softcap=15.0), attention_windows=None)
    model: Any = mi.HookedMUDDTransformer(cfg)
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    periodic = np.tile(np.arange(4, dtype=np.uint16), 400)
    recipe = Recipe(steps=40, batch=4, peak_lr=0.02)
    run = Trainer(model, recipe, TextExamples(recipe, periodic, periodic, 8), tmp_path)
    start = run.validation_loss()
    run.run()
    assert run.validation_loss() < 0.3 * start
    moved = {name for name, weight in model.named_parameters() if not weight.equal(before[name])}
    assert moved == before.keys()
