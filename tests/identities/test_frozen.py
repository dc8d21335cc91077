"""Edits with the weights of later reads held: what stays, what differs from live, and where."""

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

import mudd_interp as mi
from mudd_interp.analysis import ablation_sweep, edge_sizes, read_weights, weight_contribution_cause
from mudd_interp.edits import every_edge
from tests.identities.errors import EXACT, TOKENS, relative
from tests.parity.family import APART, ATTNRES, FAMILY, HYPER, NORMED_HEADS, random_model

MODELS = FAMILY | HYPER | NORMED_HEADS | ATTNRES | APART


@cache
def made(name: str) -> Any:
    return random_model(MODELS[name])


STATIC = [name for name in MODELS if made(name).wiring.gates == "static"]
MOVING = [name for name in MODELS if name not in STATIC]
NUMBERS = [name for name in MOVING if MODELS[name].wiring.kind != "prepost"]
WEIGHED_ENDS = [
    name
    for name in MOVING
    if name not in NORMED_HEADS and MODELS[name].wiring.to_dict().get("ways") != "qkv"
]


def logits(model: Any, edits: str, held: bool) -> torch.Tensor:
    with torch.no_grad():
        if not held:
            return mi.run(model, edits, TOKENS)
        with mi.frozen(model, TOKENS), mi.edited(model, edits):
            return model(TOKENS)


def early_edge(model: Any) -> str:
    """A cut of what the first read weighs, where later ones can answer to it."""
    wiring = model.wiring
    first = next(filter(wiring.weighed, wiring.rows), wiring.rows[0])
    columns = wiring.columns(first)
    source = columns[0] if wiring.weighed(first) else columns[-1]
    return f"cut {first.stream} {first.row}<-{source}"


@pytest.mark.parametrize("name", NUMBERS)
def test_nothing_but_the_edited_weight_differs(name: str) -> None:
    model = made(name)
    basis = "delta" if model.wiring.basis == "delta" else "native"
    before = read_weights(model, TOKENS, basis)
    edge = early_edge(model)
    with mi.frozen(model, TOKENS), mi.edited(model, edge):
        held = read_weights(model, TOKENS, basis)
    with mi.edited(model, edge):
        live = read_weights(model, TOKENS, basis)
    changed = np.abs(live.weights - before.weights).max() > 1e-3
    assert changed, "the model does not answer to the edit, so this says nothing"
    moved = np.abs(held.weights - before.weights).max((1, 2, 3)) > EXACT
    # An edit of a gate is there to be read; what is added to a read is not.
    edited = {read for read in before.reads if read.split(".")[1:2] == ["1"]}
    assert {before.reads[i] for i in np.flatnonzero(moved)} <= edited
    assert moved.any() == (basis == "native")


@pytest.mark.parametrize("name", MOVING)
def test_frozen_and_live_differ_where_gates_answer(name: str) -> None:
    model = made(name)
    edge = early_edge(model)
    with torch.no_grad():
        plain = model(TOKENS)
    held, live = (logits(model, edge, each) for each in (True, False))
    assert relative(held, live) > 1e-4
    assert relative(held, plain) > 1e-4


@pytest.mark.parametrize("name", STATIC)
def test_frozen_and_live_agree_where_no_token_moves_a_weight(name: str) -> None:
    model = made(name)
    assert model.wiring.moving == ()
    edge = early_edge(model)
    assert torch.equal(logits(model, edge, True), logits(model, edge, False))


@pytest.mark.parametrize("name", WEIGHED_ENDS)
def test_what_the_head_reads_moves_nothing_after_it(name: str) -> None:
    model = made(name)
    last = max(read.row for read in model.wiring.rows)
    edge = str(next(e for e in reversed(every_edge(model)) if e.layer == last and e.source == 0))
    assert relative(logits(model, edge, True), logits(model, edge, False)) < EXACT


def test_without_an_edit_a_frozen_model_is_as_it_was() -> None:
    for name in ("MUDDFormer", "mHC"):
        model = made(name)
        with torch.no_grad():
            plain = model(TOKENS)
            with mi.frozen(model, TOKENS):
                torch.testing.assert_close(model(TOKENS), plain, rtol=0, atol=1e-12)
            assert torch.equal(model(TOKENS), plain)
        assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_an_edit_of_two_weights_at_once_by_hand() -> None:
    """Two hooks, written out: all gates as they were, one of them cut."""
    model = made("MUDDFormer")
    with torch.no_grad():
        cache = model.run_with_cache(TOKENS)[1]
        hooks = []
        for name in model.wiring.moving:
            kept = cache[name].clone()
            if name == model.wiring.gate(model.wiring.row("v", 1)):
                kept[..., 0] = 0
            hooks.append((name, lambda _, hook, kept=kept: kept))
        expected = model.run_with_hooks(TOKENS, fwd_hooks=hooks)
    torch.testing.assert_close(logits(model, "cut v 1<-0", True), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["MUDDFormer", "mHC"])
def test_a_frozen_sweep_is_one_pass_for_each_edge(name: str) -> None:
    model = made(name)
    edges = [str(edge) for edge in every_edge(model)][::3]
    found = ablation_sweep(model, [TOKENS], edges, frozen=True)
    live = ablation_sweep(model, [TOKENS], edges)
    assert found.frozen
    assert not live.frozen
    with torch.no_grad():
        before = model.loss_fn(model(TOKENS), TOKENS, per_token=True).sum(1)
    for row, edge in enumerate(edges):
        after = model.loss_fn(logits(model, edge, True), TOKENS, per_token=True).sum(1)
        np.testing.assert_allclose(found.loss_change[row], after - before, atol=1e-10)
    assert np.abs(found.loss_change - live.loss_change).max() > 1e-4
    table = weight_contribution_cause(edge_sizes(model, [TOKENS]), live, frozen=found)
    np.testing.assert_array_equal(table["kl_frozen"], found.frame["kl"])
    np.testing.assert_array_equal(table["kl"], live.frame["kl"])


def test_a_sweep_in_the_place_of_the_other_is_refused() -> None:
    model = made("MUDDFormer")
    live, held = (ablation_sweep(model, [TOKENS], ["cut v 1<-0"], frozen=f) for f in (False, True))
    sizes = edge_sizes(model, [TOKENS])
    for given in ((held, live), (live, live), (held, None)):
        with pytest.raises(ValueError, match="expected a live sweep as effects, and as frozen"):
            weight_contribution_cause(sizes, given[0], frozen=given[1])


def test_where_no_token_changes_a_weight_a_frozen_sweep_is_refused() -> None:
    with pytest.raises(ValueError, match="because no token changes its weights"):
        ablation_sweep(made("Transformer++"), [TOKENS], frozen=True)


def test_another_batch_is_refused() -> None:
    model = made("MUDDFormer")
    told = "held at those of 2 sequences of 7 tokens, got 1 sequences of 7 tokens"
    with mi.frozen(model, TOKENS), pytest.raises(ValueError, match=told):
        model(TOKENS[:1])
