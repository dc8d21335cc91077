"""What edits do to models of every kind, in float64."""

import numpy as np
import pytest
import torch

import mudd_interp as mi
from mudd_interp import axes
from mudd_interp.analysis import dense_weights
from mudd_interp.edits import every_edge
from tests.parity.family import FAMILY, random_model, random_tokens

DENSE = [name for name, cfg in FAMILY.items() if cfg.wiring.kind != "plain"]
NORMED = [name for name in DENSE if FAMILY[name].wiring.kind == "prepost"]


def made(name):
    model = random_model(FAMILY[name])
    return model, random_tokens(model.config)


def hooks_of(model):
    return sum(len(p.fwd_hooks) + len(p.bwd_hooks) for p in model.hook_dict.values())


def close(found, expected, rtol=1e-12):
    # Relative to the largest entry: logits of random weights are of many sizes.
    assert (found - expected).abs().max() <= rtol * expected.abs().max()


PLAIN_END = ("MUDDFormer - R dense", "DenseFormer, period 2")
LAST_MIXED = [name for name in DENSE if name not in (*NORMED, *PLAIN_END)]


@pytest.mark.parametrize("name", LAST_MIXED)
def test_cutting_an_edge_of_the_last_aggregation_takes_its_term_away(name):
    model, tokens = made(name)
    last = model.cfg.n_layers - 1
    logits, cache = model.run_with_cache(tokens)
    scale = cache["ln_final.hook_scale"]
    frozen = [("ln_final.hook_scale", lambda _, hook: scale)]
    wiring, final = model.wiring, model.wiring.at("final")
    for column, source in enumerate(wiring.columns(final)):
        weight = cache[wiring.gate(final)][:, :, column, None]
        term = weight * cache[wiring.sources[source].hook]
        with model.edited(f"cut r {last}<-{source}"), model.hooks(frozen):
            edited, after = model.run_with_cache(tokens)
        close(after[axes.RESID_FINAL], cache[axes.RESID_FINAL] - term)
        if model.config.normalization_type == "LN":
            term = term - term.mean(-1, keepdim=True)
        close(edited, logits - (term / scale * model.ln_final.w) @ model.W_U)


@pytest.mark.parametrize("name", FAMILY)
def test_no_edit_and_no_hook_change_nothing(name):
    model, tokens = made(name)
    logits = model(tokens)
    assert torch.equal(mi.run(model, (), tokens), logits)
    counts: list[int] = []

    def stop():
        with model.edited(every_edge(model)):
            counts.append(hooks_of(model))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        stop()
    assert counts[0] > 0
    assert hooks_of(model) == 0
    assert torch.equal(model(tokens), logits)


@pytest.mark.parametrize("name", DENSE)
def test_the_plain_residual_everywhere_is_the_plain_twin(name):
    model, tokens = made(name)
    twin = mi.HookedMUDDTransformer(model.config.plain(), dtype=torch.float64)
    if len(model.wiring.streams) > 1:
        # The twin has one set of norm parameters in each block, a multiway model three.
        for block in model.blocks[1:]:
            block.ln1_k, block.ln1_v = block.ln1_q, block.ln1_q
    state = model.state_dict()
    renamed = {n.replace("ln1_q", "ln1"): v for n, v in state.items()} | state
    twin.load_state_dict({n: renamed[n] for n in twin.state_dict()})
    first = axes.dense_weights(-1, "r")  # what block 0 takes of X_0 is no edge between two states
    ones = [(first, lambda w, hook: torch.ones_like(w))] if first in model.hook_dict else []
    with model.hooks(ones):
        close(mi.run(model, "plain * *<-*", tokens), twin(tokens))


@pytest.mark.parametrize("name", DENSE)
def test_static_parts_are_left_when_the_weight_networks_are_empty(name):
    model, tokens = made(name)
    found = mi.run(model, "static * *<-*", tokens)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("W_2"):
                parameter.zero_()
    close(found, model(tokens))


@pytest.mark.parametrize("name", DENSE)
def test_means_are_those_of_the_corpus(name):
    model, tokens = made(name)
    means = dense_weights(model, [tokens])
    with model.edited("mean * *<-*", means):
        after = dense_weights(model, [tokens]).frame
    np.testing.assert_allclose(after["mean"], means.frame["mean"], atol=1e-14)
    assert after["std"].to_numpy().max() < 1e-14


def test_shuffled_weights_are_the_same_at_other_tokens():
    model, tokens = made("MUDDFormer")
    name = axes.dense_weights(1, "v")
    weights = model.run_with_cache(tokens)[1][name]
    with model.edited("shuffle v 1<-*"):
        moved = model.run_with_cache(tokens)[1][name]
    assert not torch.equal(moved, weights)
    order = [int((weights[0] == row).all(-1).nonzero()) for row in moved[0]]
    assert sorted(order) == list(range(tokens.shape[1]))
    assert torch.equal(moved, weights[:, order])


def test_a_cut_stream_of_a_plain_transformer_is_zero():
    model, tokens = made("Transformer++")
    with model.edited("cut r 0<-1 @2,4-5"):
        cut = model.run_with_cache(tokens)[1][axes.resid_pre(1)]
    whole = model.run_with_cache(tokens)[1][axes.resid_pre(1)]
    assert cut[:, [2, 4, 5]].abs().max() == 0
    assert torch.equal(cut[:, [0, 1, 3, 6]], whole[:, [0, 1, 3, 6]])


@pytest.mark.parametrize("name", ["MUDDFormer, one key-value head", "GPT-NeoX"])
def test_a_cut_head_and_a_cut_ffn_write_nothing(name):
    model, tokens = made(name)
    hooks = [axes.attn(1, "hook_result"), axes.block(2, "hook_mlp_out")]
    whole = model.run_with_cache(tokens, names_filter=hooks)[1]
    with model.edited("cut head 1.1 @0-3; cut mlp 2"):
        cut = model.run_with_cache(tokens, names_filter=hooks)[1]
    assert cut[hooks[0]][:, :4, 1].abs().max() == 0
    assert torch.equal(cut[hooks[0]][:, 4:], whole[hooks[0]][:, 4:])
    assert torch.equal(cut[hooks[0]][:, :, 0], whole[hooks[0]][:, :, 0])
    assert cut[hooks[1]].abs().max() == 0


def test_other_hooks_before_and_inside_work_too():
    model, tokens = made("MUDDFormer")
    name, seen = axes.dense_weights(1, "v"), {}
    with model.hooks([(name, lambda w, hook: 2 * w)]), model.edited("cut v 1<-0"):
        with model.hooks([(name, lambda w, hook: seen.update(w=w))]):
            model(tokens)
        assert hooks_of(model) == 2
    weights = model.run_with_cache(tokens, names_filter=name)[1][name]
    assert seen["w"][:, :, 0].abs().max() == 0
    assert torch.equal(seen["w"][:, :, 1:], 2 * weights[:, :, 1:])


def test_the_later_edit_of_one_place_wins():
    model, tokens = made("MUDDFormer")
    both = mi.run(model, "plain v 1<-*; cut v 1<-0; cut v 1<-1", tokens)
    assert torch.equal(both, mi.run(model, "plain v 1<-*", tokens))


@pytest.mark.parametrize("name", FAMILY)
def test_going_on_from_earlier_outputs_gives_the_same_logits(name):
    model, tokens = made(name)
    logits, cache = model.run_with_cache(tokens)
    outputs = [cache[axes.source_output(j)] for j in range(model.cfg.n_layers + 1)]
    with torch.no_grad():
        for count in range(1, len(outputs) + 1):
            close(model.logits_from(outputs[:count]), logits)


@pytest.mark.parametrize(
    ("name", "edits", "message"),
    [
        ("Transformer++", "cut r 1<-0", "would change nothing in random weights"),
        ("Transformer++", "mean r 1<-2", "would change nothing in random weights"),
        ("Transformer++", "cut v 1<-2", "the streams of this model are r, which all four"),
        ("MUDDFormer - V dense", "static v *<-*", "would change nothing"),
        ("MUDDFormer", "cut v 2<-1", "The last aggregation feeds stream r only"),
        ("MUDDFormer", "cut v 3<-1", "layer must lie in 0..2 here, got 3"),
        ("MUDDFormer", "cut v 1<-3", "source must lie in 0..2 here, got 3"),
        ("MUDDFormer", "cut head 1.2", "head must lie in 0..1 here, got 2"),
        ("MUDDFormer", "mean v 1<-2", "needs mean weights: give means="),
        ("MUDDFormer", "cut mlp 1 @3,7", "position 7, the sequence has 7"),
    ],
)
def test_what_an_edit_cannot_mean_is_refused(name, edits, message):
    model, tokens = made(name)
    with pytest.raises(ValueError, match=message):
        mi.run(model, edits, tokens)
    assert hooks_of(model) == 0


def test_means_of_another_model_are_refused():
    model, tokens = made("MUDDFormer")
    other, _ = made("Transformer++")
    means = dense_weights(other, [tokens])
    with pytest.raises(ValueError, match="the means are of a model with streams r"):
        mi.run(model, "mean v 1<-2", tokens, means=means)


def test_edges_of_every_aggregate_can_be_cut():
    model, _ = made("MUDDFormer")
    keys = {(edit.layer, edit.stream) for edit in every_edge(model)}
    every = {(i, stream) for i in range(model.cfg.n_layers) for stream in "qkvr"}
    assert keys == every - {(model.cfg.n_layers - 1, stream) for stream in "qkv"}
