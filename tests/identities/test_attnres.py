"""W composed of softmax weights over depth: what it is, what edits do, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mudd_interp as mi
from mudd_interp import axes
from mudd_interp.analysis import (
    dense_weights,
    edge_attribution,
    logit_lens,
    read_weights,
    routes,
    state_patch,
    token_weights,
)
from mudd_interp.edits import every_edge
from mudd_interp.model.wirings import AttnRes
from mudd_interp.viz import edge_figure
from tests.identities.errors import EXACT, TOKENS
from tests.parity.family import APART, ATTNRES, SMALL, random_model

EVERY = ATTNRES | APART
SEQUENCE = TOKENS[:1]


@pytest.fixture(scope="module", params=EVERY)
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(EVERY[request.param])


def cache_of(model: Any) -> Any:
    with torch.no_grad():
        return model.run_with_cache(TOKENS)[1]


def alphas(model: Any) -> list[str]:
    return [name for name in model.hook_dict if name.endswith("hook_alpha")]


# --- What W is ------------------------------------------------------------------------------------


def planted() -> Any:
    """Two blocks of Transformer, each a block of candidates; the embedding leaves axes 0 to 3 free.

    The attention of block 0 writes 10 on axis 0 and its FFN -3 on axis 2. By its query, the FFN of
    block 1 reads the block that lies along axis 0 and nothing else; what it makes of axis 0 it
    writes on axis 3, beside 1 on axis 1. By its query, the head reads the block that lies along
    axis 1.
    """
    biased: dict[str, Any] = {"attn_bias": True, "mlp_bias": True, "gated_mlp": False}
    sizes: dict[str, Any] = {**SMALL, **biased, "n_layers": 2}
    cfg = mi.ModelConfig(**sizes, wiring=AttnRes(block_size=2))
    torch.manual_seed(0)
    model: Any = mi.HookedMUDDTransformer(cfg, dtype=torch.float64)
    with torch.no_grad():
        model.embed.W_E[:, :4] = 0
        for block in model.blocks:
            block.attn.W_O.zero_()
            block.mlp.W_out.zero_()
        model.blocks[0].attn.b_O[0] = 10
        model.blocks[0].mlp.b_out[2] = -3
        model.blocks[1].mlp.W_in[0] = 1
        model.blocks[1].mlp.W_out[:, 3] = 1
        model.blocks[1].mlp.b_out[1] = 1
        model.attnres["1"]["mlp"].q[0] = 1e3
        model.attnres["head"].q[1] = 1e3
    return model


def test_a_planted_route_of_two_hops() -> None:
    model = planted()
    found = read_weights(model, TOKENS)
    assert found.reads == ("attn.0", "mlp.0", "attn.1", "mlp.1", "final")
    assert found.writes == ("embed", "attn.0", "mlp.0", "attn.1", "mlp.1")
    wanted = {"mlp.0": [0.5, 0.5, 0, 0, 0], "mlp.1": [0, 1, 1, 0, 0], "final": [0, 0, 0, 1, 1]}
    for read, weights in wanted.items():
        np.testing.assert_allclose(found.of(read), np.broadcast_to(weights, (2, 7, 5)), atol=EXACT)
    assert found.completeness.max() < EXACT
    logits = model(TOKENS)
    # attn.0 reaches the head by way of mlp.1, and not by itself: row 2 is mlp.1, row 3 the head.
    torch.testing.assert_close(mi.run(model, "cut r 3<-1", TOKENS), logits, rtol=0, atol=EXACT)
    assert (mi.run(model, "cut r 2<-1", TOKENS) - logits).abs().max() > 1e-2


def test_large_weights_that_cancel() -> None:
    """The FFN of block 0 takes back what its attention wrote: both have the weight of one block."""
    model = planted()
    with torch.no_grad():
        model.blocks[0].mlp.b_out.copy_(-model.blocks[0].attn.b_O)
        model.attnres["1"]["mlp"].q.zero_()
        model.blocks[1].mlp.W_in.normal_()
    found = read_weights(model, TOKENS).of("mlp.1")
    np.testing.assert_allclose(found[..., :4], 1 / 3)
    logits = model(TOKENS)
    assert (mi.run(model, "cut r 2<-1", TOKENS) - logits).abs().max() > 1e-2
    both = mi.run(model, "cut r 2<-1; cut r 2<-2", TOKENS)
    torch.testing.assert_close(both, logits, rtol=0, atol=EXACT)


def test_what_is_in_one_candidate_has_one_weight(model: Any) -> None:
    cache, wiring = cache_of(model), model.wiring
    for read in wiring.inputs:
        candidates, weights = wiring.candidates(read).double(), wiring.delta(read, cache)
        alpha = cache[wiring.needs(read)[-1]] if len(candidates) else weights[..., :0]
        running = torch.ones_like(weights) if wiring.static(read) is not None else 0.0
        torch.testing.assert_close(alpha @ candidates + running, weights, rtol=0, atol=EXACT)
        if len(candidates):
            torch.testing.assert_close(alpha.sum(-1), torch.ones(2, 7, dtype=torch.float64))


def test_kimi_k3_has_eight_blocks_and_an_open_one_at_its_head() -> None:
    """93 layers with attn_res_block_size 12, which counts layers."""
    cfg = replace(ATTNRES["AttnRes"], n_layers=93, d_mlp=24, wiring=AttnRes(block_size=24))
    with torch.device("meta"):
        wiring: Any = mi.HookedMUDDTransformer(cfg).wiring
    counts = {read.label: len(wiring.candidates(read)) for read in wiring.reads}
    assert [counts[label] for label in ("attn.0", "mlp.0", "attn.12", "mlp.12")] == [1, 2, 2, 3]
    assert counts["final"] == 9
    sizes = wiring.candidates(wiring.at("final")).sum(-1).tolist()
    assert sizes == [1, *[24] * 7, 2 * 93 - 7 * 24]


def test_fresh_weights_are_the_same_for_every_candidate_but_for_the_recency_bias() -> None:
    for name in ("AttnRes, blocks", "AttnRes, delta of blocks", "AttnRes, V apart"):
        fresh: Any = mi.HookedMUDDTransformer(EVERY[name])
        cache = cache_of(fresh)
        for hook in alphas(fresh):
            alpha = cache[hook]
            torch.testing.assert_close(alpha, torch.full_like(alpha, 1 / alpha.shape[-1]))
    recent = cache_of(mi.HookedMUDDTransformer(ATTNRES["AttnRes, states"]))[
        "attnres.0.attn.hook_alpha"
    ]
    torch.testing.assert_close(recent[0, 0].logit(), torch.tensor([-3.0, 3.0]))


def test_tables_hold_the_weights_of_the_reads(model: Any) -> None:
    exact, wiring = read_weights(model, TOKENS), model.wiring
    table, tokens = dense_weights(model, [TOKENS]), token_weights(model, SEQUENCE)
    labels = ["mlp.0", "attn.1", "mlp.1", "attn.2", "mlp.2", "final"]
    assert table.provenance.rows == tuple(labels)
    assert table.provenance.sources == exact.writes
    for read in wiring.rows:
        weights, columns = exact.of(read.label), list(wiring.columns(read))
        at = wiring.streams.index(read.stream), read.row
        np.testing.assert_allclose(table.mean[at][columns], weights.mean((0, 1))[columns])
        np.testing.assert_allclose(tokens.weights[at][columns], weights[0].T[columns])
        assert np.isnan(table.mean[at][len(columns) :]).all()
    assert np.isfinite(table.mean).any((1, 2)).all()


def test_an_edit_of_alpha_is_in_the_weights_and_in_what_is_read(model: Any) -> None:
    """The newest candidate alone: the read is that candidate, and W is its row."""
    for name in alphas(model):
        newest = [
            (name, lambda alpha, hook: torch.eye(alpha.shape[-1]).to(alpha)[-1].expand_as(alpha))
        ]
        with model.hooks(newest):
            cache, found = cache_of(model), read_weights(model, TOKENS)
        assert found.completeness.max() < EXACT
        read = next(r for r in model.wiring.inputs if name in model.wiring.needs(r))
        site = name.replace(".v.", ".attn.").replace("hook_alpha", "hook_candidates")
        residual = model.config.wiring.residual
        expected = cache[site][..., -1, :]
        if residual:
            expected = cache[site][..., -2, :] + cache[site][..., -1, :]
        torch.testing.assert_close(cache[read.hook], expected, rtol=0, atol=EXACT)
        row = model.wiring.candidates(read)[-1] + (1 if residual else 0)
        seen = found.of(read.label)[..., : len(row)]
        np.testing.assert_allclose(seen, np.broadcast_to(row, seen.shape), atol=EXACT)


def test_an_edit_of_candidates_is_of_one_read(model: Any) -> None:
    before, name = cache_of(model), axes.attnres(3, "hook_candidates")
    with model.hooks([(name, lambda x, hook: 2 * x)]):
        after = cache_of(model)
    assert (after["blocks.1.hook_resid_mid"] - before["blocks.1.hook_resid_mid"]).abs().max() > 0.1
    for earlier in ("blocks.1.hook_resid_pre", axes.attn_out(1)):
        assert torch.equal(after[earlier], before[earlier])
    later = axes.attnres(5, "hook_candidates")
    unchanged = after[later][..., 0, :] == before[later][..., 0, :]
    assert unchanged.all()


# --- Changes of W ---------------------------------------------------------------------------------


def test_cutting_an_edge_takes_its_term_away_where_it_is_read(model: Any) -> None:
    cache, wiring = cache_of(model), model.wiring
    for read in wiring.rows:
        weights = wiring.delta(read, cache)
        for source in (0, len(wiring.columns(read)) - 1):
            term = weights[..., source, None] * cache[wiring.sources[source].hook]
            with model.edited(f"cut {read.stream} {read.row}<-{source}"):
                after = cache_of(model)
            torch.testing.assert_close(
                after[read.hook], cache[read.hook] - term, rtol=0, atol=EXACT
            )
        with model.edited(f"cut {read.stream} {read.row}<-*"):
            assert cache_of(model)[read.hook].abs().max() < EXACT


def test_an_edit_of_w_is_the_edit_of_the_read_and_what_follows_is_computed_anew(
    model: Any,
) -> None:
    cache, wiring = cache_of(model), model.wiring
    for read in wiring.rows[:-1]:
        weights = wiring.delta(read, cache)
        changed = weights + torch.linspace(-1, 1, weights.shape[-1]).to(weights)
        writes = [cache[write.hook] for write in wiring.seen(read)]
        wanted = sum(w[..., None] * y for w, y in zip(changed.unbind(-1), writes, strict=True))
        with torch.no_grad():
            expected = model.run_with_hooks(
                TOKENS, fwd_hooks=[(read.hook, lambda x, hook, y=wanted: y)]
            )
            with model.hooks(wiring.hooks(read, lambda _, new=changed: new)):
                found = model(TOKENS)
        torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)
        assert (found - model(TOKENS)).abs().max() > 1e-6


def twin_of(model: Any) -> Any:
    """The plain Transformer with the same blocks."""
    twin = mi.HookedMUDDTransformer(model.config.plain(), dtype=torch.float64)
    twin.load_state_dict({n: model.state_dict()[n] for n in twin.state_dict()})
    return twin


@pytest.mark.parametrize("name", ATTNRES)
def test_every_weight_one_is_the_plain_twin(name: str) -> None:
    model: Any = random_model(ATTNRES[name])
    hooks = [h for r in model.wiring.reads for h in model.wiring.hooks(r, torch.ones_like)]
    with model.hooks(hooks):
        torch.testing.assert_close(model(TOKENS), twin_of(model)(TOKENS), rtol=0, atol=EXACT)


def test_the_static_part_is_the_running_state_where_it_is_added() -> None:
    """Delta Attention Residuals are their plain twin without what the softmax adds."""
    for name in ("AttnRes, delta", "AttnRes, delta of blocks"):
        model: Any = random_model(ATTNRES[name])
        static = mi.run(model, "static * *<-*", TOKENS)
        torch.testing.assert_close(static, twin_of(model)(TOKENS), rtol=0, atol=EXACT)
        assert (static - model(TOKENS)).abs().max() > 1e-2
    model = random_model(ATTNRES["AttnRes"])
    assert all(model.wiring.static(read) is None for read in model.wiring.reads)
    with pytest.raises(ValueError, match="composed of gates, and have no static part"):
        mi.run(model, "static * *<-*", TOKENS)


def test_what_looks_at_weights_sees_them_after_an_edit_and_edits_follow_one_another(
    model: Any,
) -> None:
    means = dense_weights(model, [TOKENS])
    with model.edited("mean * *<-*", means):
        after = dense_weights(model, [TOKENS])
    np.testing.assert_allclose(after.mean, means.mean, atol=1e-14)
    assert np.nanmax(after.frame["std"]) < 1e-14
    once = mi.run(model, "cut r 2<-1", TOKENS)
    with model.edited("cut r 2<-1"):
        torch.testing.assert_close(mi.run(model, "cut r 2<-1", TOKENS), once, rtol=0, atol=EXACT)


def test_first_order_estimates_are_derivatives(model: Any) -> None:
    found = edge_attribution(model, [TOKENS])
    edges, step = every_edge(model), 1e-4
    assert len(edges) == len(found.estimate)

    def loss(stream: Any, row: int, source: int, by: float) -> Tensor:
        def change(weights: Tensor) -> Tensor:
            changed = weights.clone()
            changed[..., source] *= 1 + by
            return changed

        read = model.wiring.row(stream, row)
        with torch.no_grad(), model.hooks(model.wiring.hooks(read, change)):
            return model(TOKENS, return_type="loss") * TOKENS[:, 1:].numel()

    for number in range(0, len(edges), 7):
        stream, row, source = edges[number].stream, edges[number].layer, edges[number].source
        assert row is not None
        assert source is not None
        slope = (loss(stream, row, source, step) - loss(stream, row, source, -step)) / (2 * step)
        estimate = found.estimate[number].sum()
        assert float(-slope) == pytest.approx(estimate, rel=1e-5, abs=1e-7)


@pytest.mark.parametrize("name", EVERY)
def test_the_lens_shows_what_the_head_makes_of_all_that_was_written(name: str) -> None:
    model: Any = random_model(EVERY[name])
    cache, lens = cache_of(model), logit_lens(model, SEQUENCE)
    assert lens.completeness_error < EXACT
    if model.config.wiring.head == "softmax":
        return
    written = cache[axes.EMBED] + sum(
        cache[hook(layer)] for layer in range(2) for hook in (axes.attn_out, axes.mlp_out)
    )
    wanted = model.decode_stream(written)[0].argmax(-1)
    (row,) = [row for row in lens.rows("x") if lens.depths[row] == 2]
    assert lens.top_id[row].tolist() == wanted.tolist()


# --- Values apart ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", APART)
def test_values_are_read_apart(name: str) -> None:
    model: Any = random_model(APART[name])
    found, before = read_weights(model, TOKENS), cache_of(model)
    assert found.reads[:6] == ("attn.0", "mlp.0", "attn.1.q", "attn.1.k", "attn.1.v", "mlp.1")
    assert (found.of("attn.2.q") == found.of("attn.2.k")).all()
    assert np.abs(found.of("attn.2.q") - found.of("attn.2.v")).max() > 1e-3
    flat = [(axes.attnres_values(1), lambda alpha, hook: torch.ones_like(alpha) / alpha.shape[-1])]
    with model.hooks(flat):
        after = cache_of(model)
    assert torch.equal(after["blocks.1.hook_q_input"], before["blocks.1.hook_q_input"])
    assert torch.equal(after["pattern", 1], before["pattern", 1])
    assert (after["blocks.1.hook_v_input"] - before["blocks.1.hook_v_input"]).abs().max() > 1e-3
    with pytest.raises(ValueError, match=r"stream q has no row 2: it has 1, 3\."):
        mi.run(model, "cut q 2<-0", TOKENS)
    with pytest.raises(ValueError, match=r"layer of stream v must be one of \[1, 3\], got 2"):
        dense_weights(model, [TOKENS]).edge("v", 2, 0)
    figure: Any = edge_figure(token_weights(model, SEQUENCE), "v", 3, 1)
    assert "attn.0 in what attn.2.v reads" in figure.layout.title.text


@pytest.mark.parametrize("name", APART)
def test_stream_r_is_what_attention_adds_to_and_an_edit_of_it_lasts(name: str) -> None:
    model: Any = random_model(APART[name])
    before = cache_of(model)
    added = torch.ones(16, dtype=torch.float64)
    with model.hooks([("blocks.1.hook_resid_pre", lambda x, hook: x + added)]):
        after = cache_of(model)
    unchanged = ("blocks.1.hook_q_input", "blocks.1.hook_v_input", axes.attn_out(1))
    assert all(torch.equal(after[name], before[name]) for name in unchanged)
    newest = axes.attnres(3, "hook_candidates")
    moved = (after[newest] - before[newest]).abs().amax((0, 1, 3))
    assert (moved > 0.5).any()
    assert (after["blocks.2.hook_q_input"] - before["blocks.2.hook_q_input"]).abs().max() > 1e-3


# --- Training, precision, files -------------------------------------------------------------------


@pytest.mark.parametrize("name", EVERY)
def test_a_few_steps_lower_the_loss_and_move_the_queries(name: str) -> None:
    torch.manual_seed(0)
    model: Any = mi.HookedMUDDTransformer(EVERY[name])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    losses = list[float]()
    for _ in range(8):
        loss = model(TOKENS, return_type="loss")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0] - 0.5
    inert = [
        part
        for part, site in model.attnres.named_modules()
        if hasattr(site, "q") and not site.q.any()
    ]
    single = {r.label for r in model.wiring.inputs if len(model.wiring.candidates(r)) == 1}
    doubled = {"attn.0"}  # two candidates, both the embedding
    assert {f"{part[2:]}.{part[0]}" for part in inert} <= single | doubled


def test_half_precision_weighs_in_float32() -> None:
    model: Any = random_model(ATTNRES["AttnRes, blocks"]).to(torch.bfloat16)
    cache = cache_of(model)
    assert cache["attnres.1.mlp.hook_alpha"].dtype == torch.float32
    assert cache["attnres.1.mlp.hook_candidates"].dtype == torch.float32
    assert cache["blocks.1.hook_resid_mid"].dtype == torch.bfloat16
    # what is read is rounded to 8 bits: half a step of them at most
    assert read_weights(model, TOKENS).completeness.max() < 2**-8


@pytest.mark.parametrize("name", ["AttnRes", "AttnRes, blocks", "AttnRes, delta, V apart"])
def test_the_lens_in_half_precision_ends_in_the_models_own_answer(name: str) -> None:
    model: Any = random_model((ATTNRES | APART)[name]).to(torch.bfloat16)
    found = logit_lens(model, TOKENS[0])
    assert found.completeness_error == 0
    assert (found.answer_rank[found.rows("x")[-1]] == 1).all()


def test_a_hook_that_changes_nothing_changes_nothing_in_half_precision() -> None:
    model: Any = random_model(APART["AttnRes, delta, V apart"]).to(torch.bfloat16)
    names = [axes.resid_pre(layer) for layer in range(model.cfg.n_layers)]
    with torch.no_grad():
        idle = model.run_with_hooks(TOKENS, fwd_hooks=[(n, lambda x, hook: None) for n in names])
        assert torch.equal(idle, model(TOKENS))
        moved = model.run_with_hooks(TOKENS, fwd_hooks=[(names[1], lambda x, hook: 2 * x)])
        assert (moved - model(TOKENS)).abs().max() > 1e-2


def test_a_saved_model_is_the_same_when_it_is_loaded(model: Any, tmp_path: Path) -> None:
    folder = mi.save_model(model, tmp_path / "model")
    again: Any = mi.load_model(folder, check=False)
    assert again.config == model.config
    assert torch.equal(again(TOKENS), model(TOKENS))


# --- What there is not ----------------------------------------------------------------------------


def test_what_is_about_states_is_refused_in_words() -> None:
    model: Any = random_model(ATTNRES["AttnRes"])
    with pytest.raises(ValueError, match=r"routes is not for .*, because it keeps no states X_j"):
        routes(model, SEQUENCE, source=0)
    with pytest.raises(ValueError, match=r"state_patch is not for .*, because it keeps no states"):
        state_patch(model, TOKENS[:1], TOKENS[1:])
    with pytest.raises(ValueError, match=r"no hook `blocks\.0\.hook_resid_post`"):
        model.run_with_cache(TOKENS, names_filter="blocks.0.hook_resid_post")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"block_size": 0}, "block_size must be a whole number of at least 1, got 0"),
        ({"block_size": 2.0}, "block_size must be a whole number of at least 1, got 2.0"),
        ({"candidates": "blocks"}, "candidates must be one of sums, states, differences, got"),
        ({"embedding": "first"}, "embedding must be one of block, both, none, got 'first'"),
        ({"head": "last"}, "head must be one of softmax, sum, got 'last'"),
        ({"residual": 1}, "residual must be one of False, True, got 1"),
        ({"recency_bias": "yes"}, "recency_bias must be one of False, True, got 'yes'"),
        ({"value_apart": None}, "value_apart must be one of False, True, got None"),
        ({"embedding": "none"}, "embedding='none' the first reads have no candidate"),
        ({"candidates": "differences"}, "'differences' the first reads have no candidate"),
        (
            {"candidates": "states", "embedding": "both"},
            "embedding='both' is for candidates='sums'",
        ),
        ({"blocksize": 2}, r"no field of a wiring of kind attnres `blocksize`; did you mean"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(values: Any, words: str) -> None:
    cfg = ATTNRES["AttnRes"].to_dict()
    with pytest.raises(ValueError, match=f"{words}|of the wrong type"):
        mi.ModelConfig.from_dict(cfg | {"wiring": cfg["wiring"] | values})


@pytest.mark.parametrize("name", EVERY)
def test_a_configuration_is_read_back(name: str) -> None:
    cfg = EVERY[name]
    assert mi.ModelConfig.from_json(cfg.to_json()) == cfg
    assert cfg.to_dict()["wiring"]["kind"] == "attnres"


def test_a_parallel_block_is_refused() -> None:
    with pytest.raises(ValueError, match="parallel_attn_mlp must be False"):
        mi.ModelConfig(**SMALL, parallel_attn_mlp=True, wiring=AttnRes())
