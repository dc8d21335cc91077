"""Rungs: their sizes by count, the same function at the start, and FLOPs as torch counts them."""

import math

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mudd_interp.experiments.gaps import paper_gap
from mudd_interp.experiments.plan import DEEP, LARGE_LADDER, SCALES
from mudd_interp.experiments.rungs import (
    RUNGS,
    TABLE_5,
    ZOO,
    Size,
    config,
    fresh_model,
    training_flops,
)
from mudd_interp.training.presets import PRESETS

TOY = Size(4, 32, 2)
GROWING = [name for name in RUNGS if RUNGS[name].realloc]
TOKENS = torch.arange(40).view(2, 20)


@pytest.mark.parametrize("size", [*SCALES, LARGE_LADDER, DEEP, TOY], ids=lambda size: size.name)
def test_reallocation_keeps_the_total_width_and_the_count_is_that_of_the_blocks(size: Size):
    model = fresh_model(config(size, "plain"), 0)
    matrices = sum(p.numel() for p in model.blocks.parameters() if p.ndim > 1)
    assert size.parameters == matrices
    for rung in GROWING:
        widths = config(size, rung).mlp_widths
        assert sum(widths) == size.n_layers * size.d_mlp
        assert list(widths) == sorted(widths)
        assert widths[0] < 0.6 * size.d_mlp < 1.4 * size.d_mlp < widths[-1]


def test_the_large_ladder_is_the_bundled_pair():
    for rung, preset in (("plain", "tfm-tiny"), ("muddformer", "mudd-tiny")):
        assert config(LARGE_LADDER, rung) == PRESETS[preset].cfg


@torch.no_grad()
def test_rungs_with_the_same_widths_begin_as_the_same_function():
    logits = {name: fresh_model(config(TOY, name), 3)(TOKENS) for name in TABLE_5}
    for name in TABLE_5:
        same = "plain-realloc" if name in GROWING else "plain"
        # A one-hot mix is a matrix product: other roundings than no mix.
        torch.testing.assert_close(logits[name], logits[same], rtol=0, atol=2e-5)
    assert not torch.allclose(logits["plain"], logits["plain-realloc"], atol=1e-2)
    assert not torch.allclose(logits["plain"], fresh_model(config(TOY, "plain"), 4)(TOKENS))


def test_what_two_rungs_share_is_drawn_alike_and_no_two_parts_are():
    plain, grown = (fresh_model(config(TOY, name), 3) for name in ("plain", "muddformer"))
    shared = dict(grown.named_parameters())
    for name, parameter in plain.named_parameters():
        if ".mlp." not in name and ".W_" in name:
            assert torch.equal(parameter, shared[name]), name
    queries = [plain.get_parameter(f"blocks.{layer}.attn.W_Q") for layer in range(2)]
    assert not torch.equal(queries[0], queries[1])


@pytest.mark.parametrize(
    "rung",
    ["static", "dynamic", "multiway-static", "muddformer", "without-v", "denseformer"],
)
def test_the_flops_of_dense_connections_are_those_that_torch_counts(rung: str):
    def counted(name: str) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            fresh_model(config(TOY, name), 0)(torch.arange(256)[None])
        return counter.get_total_flops()

    plain = "plain-realloc" if RUNGS[rung].realloc else "plain"
    forward = counted(rung) - counted(plain)
    ours = training_flops(config(TOY, rung), 256) - training_flops(config(TOY, plain), 256)
    assert ours == 3 * forward > 0


@torch.no_grad()
def test_relatives_share_what_they_have_in_common():
    plain, *others = (fresh_model(config(TOY, name), 3) for name in ZOO)
    for other in others:
        shared = dict(other.named_parameters())
        for name, parameter in plain.named_parameters():
            if ".W_" in name and parameter.shape == shared[name].shape:
                assert torch.equal(parameter, shared[name]), name
    static = fresh_model(config(TOY, "denseformer"), 3)
    torch.testing.assert_close(static(TOKENS), plain(TOKENS), rtol=0, atol=2e-5)


def test_the_gaps_of_the_paper():
    gap, low, high = paper_gap(("plain", "muddformer"))
    assert gap == pytest.approx(math.log(10.77 / 11.68))
    assert low < gap < high
    assert high - low == pytest.approx(2 * 0.005 * (1 / 11.68 + 1 / 10.77), rel=1e-3)


def test_a_near_miss_is_named():
    with pytest.raises(ValueError, match="without-v"):
        config(TOY, "without-w")
