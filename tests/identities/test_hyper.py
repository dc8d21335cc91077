"""W composed of the gates of hyper-connections: what it is, what edits do, what is refused."""

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
    direct_logit_attribution,
    edge_attribution,
    logit_lens,
    read_weights,
    routes,
    state_patch,
    stream_decomposition,
    token_weights,
)
from mudd_interp.edits import every_edge
from mudd_interp.model.wirings import Hyper
from tests.identities.errors import EXACT, TOKENS
from tests.parity.family import HYPER, NORMED_HEADS, SMALL, random_model

EVERY = HYPER | NORMED_HEADS
SEQUENCE = TOKENS[:1]


@pytest.fixture(scope="module", params=EVERY)
def model(request: pytest.FixtureRequest) -> Any:
    return random_model(EVERY[request.param])


def cache_of(model: Any) -> Any:
    with torch.no_grad():
        return model.run_with_cache(TOKENS)[1]


# --- What W is ------------------------------------------------------------------------------------


def test_a_planted_way_through_the_mixing_and_a_weight_that_cancels() -> None:
    """Two streams and one block, worked out by hand.

    The attention writes 2 into stream 0, from where T of the FFN takes 7 of it into stream 1: 14
    more at the head, which sums. What the FFN writes, 1 and -1, cancels there.
    """
    wiring = Hyper(n_streams=2, gates="static", mixing="free")
    cfg = replace(HYPER["HC, static"], n_layers=1, d_mlp=24, wiring=wiring)
    model: Any = mi.HookedMUDDTransformer(cfg, dtype=torch.float64)
    attn, mlp = model.hyper["0"]["attn"], model.hyper["0"]["mlp"]
    planted = {
        attn.pre.b: [1.0, 0.0],
        attn.post.b: [2.0, 0.0],
        attn.mix.b: [[1.0, 0.0], [0.0, 1.0]],
        mlp.pre.b: [0.0, 5.0],
        mlp.post.b: [1.0, -1.0],
        mlp.mix.b: [[1.0, 0.0], [7.0, 1.0]],
    }
    with torch.no_grad():
        for parameter, values in planted.items():
            parameter.copy_(torch.tensor(values))
    found = read_weights(model, TOKENS)
    assert found.reads == ("attn.0", "mlp.0", "final")
    assert (found.of("attn.0") == [1, 0, 0]).all()
    assert (found.of("mlp.0") == [5, 0, 0]).all()
    assert (found.of("final") == [1 + 7 + 1, 2 + 14, 0]).all()
    assert found.completeness.max() < EXACT
    cut = mi.run(model, "cut r 1<-2", TOKENS)
    torch.testing.assert_close(cut, model(TOKENS), rtol=0, atol=EXACT)
    assert (mi.run(model, "cut r 1<-1", TOKENS) - model(TOKENS)).abs().max() > 1e-3


def test_tables_hold_the_weights_of_the_reads(model: Any) -> None:
    exact, wiring = read_weights(model, TOKENS), model.wiring
    table = dense_weights(model, [TOKENS])
    assert table.provenance.rows == tuple(read.label for read in wiring.rows)
    assert table.provenance.sources == exact.writes
    tokens = token_weights(model, SEQUENCE)
    for row, read in enumerate(wiring.rows):
        weights, columns = exact.of(read.label), list(wiring.columns(read))
        np.testing.assert_allclose(table.mean[0, row, columns], weights.mean((0, 1))[columns])
        np.testing.assert_allclose(tokens.weights[0, row, columns], weights[0].T[columns])
        assert np.isnan(table.mean[0, row, len(columns) :]).all()


def test_an_edit_of_a_gate_is_in_the_weights(model: Any) -> None:
    before = read_weights(model, TOKENS)
    doubled = [(axes.hyper(2, "hook_post"), lambda w, hook: 2 * w)]
    with model.hooks(doubled):
        after = read_weights(model, TOKENS)
    assert after.completeness.max() < EXACT
    written = after.writes.index("attn.1")
    moved = np.abs(after.weights - before.weights).max((1, 2))
    assert (moved[:3] == 0).all()
    assert moved[3:, written].max() > 1e-3


def test_static_gates_have_a_static_w() -> None:
    model = random_model(HYPER["HC, static"])
    found = read_weights(model, TOKENS)
    for read in model.wiring.reads:
        static = model.wiring.static(read)
        assert static is not None
        seen = found.of(read.label)[..., : len(static)]
        np.testing.assert_allclose(seen, np.broadcast_to(static.numpy(), seen.shape), atol=1e-12)
    torch.testing.assert_close(mi.run(model, "static * *<-*", TOKENS), model(TOKENS))
    assert random_model(HYPER["mHC"]).wiring.static(model.wiring.rows[0]) is None


# --- Changes of W ---------------------------------------------------------------------------------


def test_cutting_an_edge_takes_its_term_away_where_it_is_read(model: Any) -> None:
    cache, wiring = cache_of(model), model.wiring
    for read in wiring.rows:
        weights = wiring.delta(read, cache)
        for source in (0, len(wiring.columns(read)) - 1):
            term = weights[..., source, None] * cache[wiring.sources[source].hook]
            with model.edited(f"cut r {read.row}<-{source}"):
                after = cache_of(model)
            torch.testing.assert_close(
                after[read.hook], cache[read.hook] - term, rtol=0, atol=EXACT
            )
        with model.edited(f"cut r {read.row}<-*"):
            assert cache_of(model)[read.hook].abs().max() < EXACT


def test_every_weight_one_is_the_plain_twin() -> None:
    """The head that sums its streams reads one of each write then, as the plain twin does."""
    for name in ("HC", "mHC", "mHC, delayed", "mHC-lite", "HC, not mixed, gated head"):
        model: Any = random_model(HYPER[name])
        twin = mi.HookedMUDDTransformer(model.config.plain(), dtype=torch.float64)
        twin.load_state_dict({n: model.state_dict()[n] for n in twin.state_dict()})
        hooks = [
            hook for r in model.wiring.reads for hook in model.wiring.hooks(r, torch.ones_like)
        ]
        with model.hooks(hooks):
            torch.testing.assert_close(model(TOKENS), twin(TOKENS), rtol=0, atol=EXACT)


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

    def loss(row: int, source: int, by: float) -> Tensor:
        def change(weights: Tensor) -> Tensor:
            changed = weights.clone()
            changed[..., source] *= 1 + by
            return changed

        read = model.wiring.row("r", row)
        with torch.no_grad(), model.hooks(model.wiring.hooks(read, change)):
            return model(TOKENS, return_type="loss") * TOKENS[:, 1:].numel()

    for number in range(0, len(edges), 5):
        row, source = edges[number].layer, edges[number].source
        assert row is not None
        assert source is not None
        slope = (loss(row, source, step) - loss(row, source, -step)) / (2 * step)
        estimate = found.estimate[number].sum()
        assert float(-slope) == pytest.approx(estimate, rel=1e-5, abs=1e-7)


# --- A head that norms every stream ---------------------------------------------------------------


@pytest.mark.parametrize("name", NORMED_HEADS)
def test_a_logit_is_divided_among_what_wrote_all_streams_of_the_head(name: str) -> None:
    model: Any = random_model(NORMED_HEADS[name])
    found = direct_logit_attribution(model, SEQUENCE, answer=5, against=7, position=4)
    with torch.no_grad():
        logits = model(SEQUENCE)[0, 4]
    close = pytest.approx(float(logits[5] - logits[7]), rel=EXACT)
    for division in ("components", "heads", "sources"):
        assert found.division(division)["contribution"].to_numpy().sum() == close
    lens = logit_lens(model, SEQUENCE)
    assert lens.completeness_error < EXACT
    assert (lens.answer_rank[lens.rows("x")[-1]] == 1).all()


def test_there_is_no_one_final_stream_where_the_head_norms_several() -> None:
    model: Any = random_model(NORMED_HEADS["mHC, each stream normed"])
    words = r"reads 3 streams, each through a norm of its own \(final.0, final.1, final.2\)"
    with pytest.raises(ValueError, match=words):
        stream_decomposition(model, SEQUENCE)
    with pytest.raises(ValueError, match=words):
        cache_of(model).decompose_resid()
    assert stream_decomposition(model, SEQUENCE, 2).completeness_error < EXACT


# --- What there is not ----------------------------------------------------------------------------


def test_what_is_about_states_is_refused_in_words() -> None:
    model: Any = random_model(HYPER["mHC"])
    with pytest.raises(ValueError, match=r"routes is not for .*, because it keeps no states X_j"):
        routes(model, SEQUENCE, source=0)
    with pytest.raises(ValueError, match=r"state_patch is not for .*, because it keeps no states"):
        state_patch(model, TOKENS[:1], TOKENS[1:])
    with pytest.raises(ValueError, match=r"goes on from states is not for .*keeps no states"):
        model.logits_from([torch.zeros(1, 2, 16, dtype=torch.float64)])
    with pytest.raises(ValueError, match=r"cache\.delta_coefficients gives them one by one"):
        cache_of(model).path_coefficients()
    with pytest.raises(ValueError, match="composed of gates, and have no static part"):
        mi.run(model, "static * *<-*", TOKENS)
    with pytest.raises(ValueError, match=r"no hook `blocks\.0\.hook_resid_post`"):
        model.run_with_cache(TOKENS, names_filter="blocks.0.hook_resid_post")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"n_streams": 1}, "n_streams must be a whole number of at least 2, got 1"),
        ({"gates": "relu"}, "gates must be one of static, tanh, sigmoid, got 'relu'"),
        ({"mixing": "free"}, "with gates='sigmoid' mixing must be one of sinkhorn, permutations"),
        ({"gates": "tanh"}, "with gates='tanh' mixing must be one of free, identity"),
        ({"mixing": "permutations", "n_streams": 7}, "n_streams must be at most 6, got 7"),
        ({"head": "mean"}, "head must be one of sum, gate, last, norms, got 'mean'"),
        ({"delayed": 1}, "delayed must be one of False, True, got 1"),
        ({"eps": -1}, "eps must be a number from 0"),
        ({"rounds": 0}, "rounds must be a whole number of at least 1, got 0"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(values: Any, words: str) -> None:
    cfg = HYPER["mHC"].to_dict()
    with pytest.raises(ValueError, match=f"{words}|of the wrong type"):
        mi.ModelConfig.from_dict(cfg | {"wiring": cfg["wiring"] | values})


def test_a_parallel_block_is_refused() -> None:
    with pytest.raises(ValueError, match="parallel_attn_mlp must be False"):
        mi.ModelConfig(**SMALL, parallel_attn_mlp=True, wiring=Hyper())


def test_a_saved_model_is_the_same_when_it_is_loaded(model: Any, tmp_path: Path) -> None:
    folder = mi.save_model(model, tmp_path / "model")
    again: Any = mi.load_model(folder, check=False)
    assert again.config == model.config
    assert torch.equal(again(TOKENS), model(TOKENS))
