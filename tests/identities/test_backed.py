"""W of transformers' own models: what it adds up to, what edits do, what is refused."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import mudd_interp as mi
from mudd_interp import axes
from mudd_interp.analysis import (
    ablation_sweep,
    dense_weights,
    depth_read,
    direct_logit_attribution,
    edge_attribution,
    head_activity,
    head_entropy,
    head_scores,
    logit_lens,
    path_coefficients,
    read_weights,
    routes,
    stream_decomposition,
    token_weights,
)
from mudd_interp.edits import every_edge
from mudd_interp.model.wirings.altup import WRITES
from tests.relatives import BACKED, GATED_HEADS, loaded

EXACT = 1e-9
"""Largest error in float64: a wrong term shows at 1e-2, rounding at 1e-13."""
TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5], [6, 5, 3, 5, 8, 9, 7, 9, 3]])
SEQUENCE = TOKENS[:1]


@pytest.fixture(scope="module", params=BACKED)
def model(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param, torch.float64)


@pytest.fixture(scope="module", params=GATED_HEADS)
def hyper(request: pytest.FixtureRequest) -> Any:
    return loaded(request.param, torch.float64)


@pytest.fixture(scope="module")
def gemma() -> Any:
    return loaded("gemma3n-tiny", torch.float64)


def cache_of(model: Any, *edits: tuple[str, Callable[..., Tensor]]) -> Any:
    with torch.no_grad(), model.hooks(list(edits)):
        return model.run_with_cache(TOKENS)[1]


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=0, atol=EXACT)


def moved(x: Tensor, hook: Any) -> Tensor:
    """An edit of any tensor, of each number another."""
    return x * 1.1 + 0.05 * torch.sin(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape)


# --- Hooks are what the model computes with -------------------------------------------------------


@pytest.mark.parametrize(
    "kind", ["hook_streams", "hook_pre", "hook_post", "hook_mix", "hook_attn_out", "hook_mlp_out"]
)
def test_what_is_hooked_in_hyper_connections_is_what_follows_is_made_of(
    hyper: Any, kind: str
) -> None:
    """With an edit at any of these hooks, what hooks show still satisfies the equations."""
    names = [name for name in hyper.hook_dict if name.endswith(kind)]
    if kind == "hook_mix" and not hyper.wiring.mixes:
        assert not names
        return
    for name in names:
        assert_recurrence(hyper, cache_of(hyper, (name, moved)), name)


def assert_recurrence(model: Any, cache: Any, edited: str) -> None:
    """Each read is p X, and each sublayer leaves T X + w y, moved where that is edited."""
    n = 2 * model.cfg.n_layers
    streams = [*(axes.hyper(k, "hook_streams") for k in range(n)), axes.HEAD_STREAMS]
    pres = [*(axes.hyper(k, "hook_pre") for k in range(n)), axes.HEAD_GATE]
    for k, read in enumerate(model.wiring.reads):
        x = cache[streams[k]]
        close(torch.einsum("bpn,bpnd->bpd", cache[pres[k]], x), cache[read.hook])
        if k == n:
            return
        mixed = cache[axes.hyper(k, "hook_mix")] @ x if model.wiring.mixes else x
        wrote = cache[model.wiring.writes[k + 1].hook]
        left = mixed + cache[axes.hyper(k, "hook_post")][..., None] * wrote[..., None, :]
        follows = streams[k + 1]
        close(moved(left, None) if follows == edited else left, cache[follows])


ALTUP = ["hook_streams", "hook_predict", "hook_correct", *WRITES.values()]


@pytest.mark.parametrize("kind", ALTUP)
def test_what_is_hooked_in_altup_is_what_follows_is_made_of(gemma: Any, kind: str) -> None:
    active = gemma.wiring.active
    for name in (name for name in gemma.hook_dict if name.endswith(kind)):
        cache = cache_of(gemma, (name, moved))
        for layer in range(gemma.cfg.n_layers):
            at = {kind: cache[axes.block(layer, hook)] for kind, hook in WRITES.items()}
            x = cache[axes.altup(layer, "hook_streams")]
            predicted = x + cache[axes.altup(layer, "hook_predict")] @ x
            close(predicted[..., active, :], cache[axes.resid_pre(layer)])
            middle = (predicted[..., active, :] + at["attn"] + at["laurel"]) / 2**0.5
            close(middle, cache[axes.block(layer, "hook_resid_mid")])
            new = middle + at["mlp"] - predicted[..., active, :]
            left = predicted + cache[axes.altup(layer, "hook_correct")][..., None] * new[:, :, None]
            close(left[..., active, :], cache[axes.block(layer, "hook_ple_in")])
            left[..., 1:, :] += at["ple"][..., None, :]
            last = layer + 1 == gemma.cfg.n_layers
            follows = axes.STREAMS_FINAL if last else axes.altup(layer + 1, "hook_streams")
            close(moved(left, None) if follows == name else left, cache[follows])


def test_an_edit_of_a_read_is_what_its_norm_reads(model: Any) -> None:
    for read in model.wiring.inputs:
        if read.norm_hook is None:
            continue
        cache = cache_of(model, (read.hook, moved))
        scale = cache[read.hook].square().mean(-1, keepdim=True).add(model.cfg.eps).sqrt()
        close(cache[read.norm_hook], scale)
        normalized = read.norm_hook.replace("hook_scale", "hook_normalized")
        close(cache[normalized], cache[read.hook] / scale)


def test_a_doubled_scale_is_a_halved_norm(model: Any) -> None:
    for name in (name for name in model.hook_dict if name.endswith("hook_scale")):
        normalized = name.replace("hook_scale", "hook_normalized")
        with torch.no_grad():
            doubled = model.run_with_hooks(TOKENS, fwd_hooks=[(name, lambda x, hook: 2 * x)])
            halved = model.run_with_hooks(TOKENS, fwd_hooks=[(normalized, lambda x, hook: x / 2)])
        close(doubled, halved)


def test_a_head_is_cut_where_it_mixes_and_where_it_writes(hyper: Any) -> None:
    def cut(x: Tensor, hook: Any) -> Tensor:
        x[:, :, 1] = 0.0
        return x

    before = cache_of(hyper)
    for layer in range(hyper.cfg.n_layers):
        mixed = cache_of(hyper, (axes.attn(layer, "hook_z"), cut))
        written = cache_of(hyper, (axes.attn(layer, "hook_result"), cut))
        close(mixed[axes.attn_out(layer)], written[axes.attn_out(layer)])
        heads = before["result", layer]
        close(heads.sum(2), before[axes.attn_out(layer)])
        close(mixed[axes.attn_out(layer)], before[axes.attn_out(layer)] - heads[:, :, 1])
    assert (mi.run(hyper, "cut head 1.1", TOKENS) - hyper(TOKENS)).abs().max() > 1e-3


def test_attention_is_what_its_probabilities_make_of_values(model: Any) -> None:
    shares = [name for name in model.hook_dict if axes.of_pairs(name)]
    assert len(shares) == model.cfg.n_layers
    for layer, name in enumerate(shares):
        pattern = cache_of(model)[name]
        assert pattern.shape[:3] == (2, model.cfg.n_heads, TOKENS.shape[1])
        assert not pattern[..., : TOKENS.shape[1]].triu(1).any()
        sums = pattern.sum(-1)
        if name.endswith("hook_pattern"):
            close(sums, torch.ones_like(sums))
        else:
            assert (sums < 1).all()
        z = axes.attn(layer, "hook_z")
        halved = cache_of(model, (name, lambda x, hook: x / 2))
        close(halved[z], cache_of(model)[z] / 2)


def test_no_hook_stays_behind_and_nothing_moves_where_nothing_is_edited(model: Any) -> None:
    with torch.no_grad():
        before = model(TOKENS)
        with model.hooks([(name, lambda x, hook: x) for name in model.hook_dict]):
            close(model(TOKENS), before)
        for name in (
            axes.RESID_FINAL,
            axes.attn(1, "hook_z"),
            *filter(axes.of_pairs, model.hook_dict),
        ):
            with pytest.raises(ZeroDivisionError), model.hooks([(name, fail)]):
                model(TOKENS)
        assert torch.equal(model(TOKENS), before)
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def fail(x: Tensor, hook: Any) -> Tensor:
    raise ZeroDivisionError


def test_gradients_go_through_every_hook(model: Any) -> None:
    _, cache = model.run_with_cache(TOKENS, return_type="loss", incl_bwd=True)
    names = [name for name in model.hook_dict if not model.on_request(name)]
    assert all(cache[f"{name}_grad"].abs().max() > 0 for name in names)
    model.zero_grad()


# --- W --------------------------------------------------------------------------------------------


def test_an_edit_of_a_gate_is_in_the_weights(model: Any) -> None:
    before = read_weights(model, TOKENS)
    gates = [n for n in model.hook_dict if n.endswith((".hook_post", ".hook_correct"))]
    with model.hooks([(gates[1], lambda w, hook: 2 * w)]):
        after = read_weights(model, TOKENS)
    assert after.completeness.max() < EXACT
    changed = np.abs(after.weights - before.weights).max((1, 2, 3))
    assert changed[0] == 0
    assert changed[-1] > 1e-3


def test_an_edit_of_w_is_the_edit_of_the_read(model: Any) -> None:
    cache, wiring = cache_of(model), model.wiring
    for read in wiring.rows:
        weights = wiring.delta(read, cache)
        for source in (0, len(wiring.columns(read)) - 1):
            term = weights[..., source, None] * cache[wiring.sources[source].hook]
            with model.edited(f"cut r {read.row}<-{source}"):
                after = cache_of(model)
            close(after[read.hook], cache[read.hook] - term)
            direct = cache_of(model, (read.hook, lambda x, hook, by=term: x - by))
            assert (
                torch.equal(after[axes.RESID_FINAL], direct[axes.RESID_FINAL])
                or (after[axes.RESID_FINAL] - direct[axes.RESID_FINAL]).abs().max() < EXACT
            )


def test_tables_hold_the_weights_of_the_reads(model: Any) -> None:
    exact, wiring = read_weights(model, TOKENS), model.wiring
    table, tokens = dense_weights(model, [TOKENS]), token_weights(model, SEQUENCE)
    assert table.provenance.rows == tuple(read.label for read in wiring.rows)
    assert table.provenance.sources == exact.writes
    for row, read in enumerate(wiring.rows):
        weights, columns = exact.of(read.label), list(wiring.columns(read))
        np.testing.assert_allclose(table.mean[0, row, columns], weights.mean((0, 1))[columns])
        np.testing.assert_allclose(tokens.weights[0, row, columns], weights[0].T[columns])
        assert np.isnan(table.mean[0, row, len(columns) :]).all()
        sizes = np.abs(weights[0][:, columns])
        depth = sizes @ np.arange(len(columns)) / sizes.sum(1)
        np.testing.assert_allclose(depth_read(tokens, "r", row), depth)
    assert path_coefficients(model, SEQUENCE).completeness_error < EXACT


def test_every_edge_can_be_cut_and_has_an_estimate(model: Any) -> None:
    edges = every_edge(model)
    assert len(edges) == sum(len(model.wiring.columns(read)) for read in model.wiring.rows)
    found = edge_attribution(model, [SEQUENCE])
    assert found.estimate.shape == (len(edges), 1)
    effects = ablation_sweep(model, [SEQUENCE], edges[:: len(edges) // 4])
    assert np.isfinite(effects.frame["loss"].to_numpy()).all()


# --- Logits ---------------------------------------------------------------------------------------


def test_a_logit_is_divided_among_what_wrote_it(hyper: Any) -> None:
    found = direct_logit_attribution(hyper, SEQUENCE, answer=5, against=7, position=4)
    with torch.no_grad():
        logits = hyper(SEQUENCE)[0, 4]
    expected = pytest.approx(float(logits[5] - logits[7]), rel=EXACT)
    for division in ("components", "heads", "sources"):
        assert found.division(division)["contribution"].to_numpy().sum() == expected
    assert stream_decomposition(hyper, SEQUENCE).completeness_error < EXACT
    assert stream_decomposition(hyper, SEQUENCE, 2).completeness_error < EXACT


def test_the_lens_ends_with_the_models_own_prediction(hyper: Any) -> None:
    lens = logit_lens(hyper, SEQUENCE)
    assert lens.completeness_error < EXACT
    assert (lens.answer_rank[lens.rows("x")[-1]] == 1).all()
    assert (lens.answer_rank[lens.rows("r")[-1]] == 1).all()


def test_a_head_that_is_no_read_is_refused_in_words(gemma: Any) -> None:
    for ask in (
        lambda: direct_logit_attribution(gemma, SEQUENCE),
        lambda: logit_lens(gemma, SEQUENCE),
        lambda: gemma.tokens_to_residual_directions(3),
        lambda: gemma.logit_constant(3),
        lambda: gemma.decode_stream(torch.zeros(1, 2, 32, dtype=torch.float64)),
    ):
        with pytest.raises(NotImplementedError, match="no read of what its sublayers wrote"):
            ask()
    with pytest.raises(ValueError, match=r"no final stream can be divided.*give a block"):
        stream_decomposition(gemma, SEQUENCE)
    cache = cache_of(gemma)
    for ask in (
        lambda: stream_decomposition(gemma, SEQUENCE, 2),
        lambda: cache.decompose_resid(2),
        lambda: cache.stack_head_results(2),
        lambda: cache.get_full_resid_decomposition(2),
    ):
        with pytest.raises(ValueError, match=r"more than an embedding, attention and FFNs \(embed"):
            ask()


def test_what_is_about_states_is_refused(model: Any) -> None:
    with pytest.raises(ValueError, match=r"routes is not for .*, because it keeps no states X_j"):
        routes(model, SEQUENCE, source=0)
    with pytest.raises(ValueError, match=r"no hook `blocks\.0\.hook_resid_post`: a block puts out"):
        model.run_with_cache(TOKENS, names_filter="blocks.0.hook_resid_post")
    with pytest.raises(ValueError, match="composed of gates, and have no static part"):
        mi.run(model, "static * *<-*", TOKENS)


def test_what_is_about_patterns_is_refused_where_a_sink_takes_a_share(hyper: Any) -> None:
    for ask in (
        lambda: head_activity(hyper, [TOKENS], sink_token_ids=[]),
        lambda: head_entropy(hyper, [TOKENS]),
        lambda: head_scores(hyper, 5, 1),
    ):
        with pytest.raises(ValueError, match="no attention patterns, whose rows sum to one"):
            ask()


def test_patterns_without_a_sink_are_as_of_any_model(gemma: Any) -> None:
    found = head_activity(gemma, [TOKENS], sink_token_ids=[])
    assert found.frame["active"].between(0, 1).all()
    assert len(found.frame) == gemma.cfg.n_layers * gemma.cfg.n_heads
