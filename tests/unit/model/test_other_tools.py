"""What README says of nnsight and circuitsvis: neither is a dependency, so they may be absent."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import mudd_interp as mi
from tests.parity.family import FAMILY, random_model, random_tokens

VALUES = "blocks.1.hook_v_input"
NAMES = ["MUDDFormer", "Transformer++"]


def wake(x: torch.Tensor, hook: Any) -> None:
    """A hook that does nothing: what is hooked is computed, and has a tensor of its own."""


@pytest.fixture
def traced() -> Callable[[str], tuple[Any, Any, torch.Tensor]]:
    """A model, the same model wrapped by nnsight, and tokens."""
    nnsight: Any = pytest.importorskip("nnsight", reason="nnsight is no dependency")

    def wrapped(name: str) -> tuple[Any, Any, torch.Tensor]:
        model = random_model(FAMILY[name]).requires_grad_(False)
        return model, nnsight.NNsight(model), random_tokens(model.config, pos=5)

    return wrapped


@pytest.mark.parametrize("name", NAMES)
def test_nnsight_reads_what_the_cache_holds(traced: Any, name: str):
    model, wrapped, tokens = traced(name)
    with model.hooks([("blocks.1.attn.hook_pattern", wake)]), wrapped.trace(tokens):
        values = wrapped.blocks[1].hook_v_input.output.save()
        pattern = wrapped.blocks[1].attn.hook_pattern.output.save()
        logits = wrapped.output.save()
    expected, cache = model.run_with_cache(tokens)
    torch.testing.assert_close(values, cache[VALUES])
    torch.testing.assert_close(pattern, cache["pattern", 1])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("name", NAMES)
def test_nnsight_edits_one_stream_where_a_hook_is_around_the_trace(traced: Any, name: str):
    model, wrapped, tokens = traced(name)
    with model.hooks([(VALUES, wake)]), wrapped.trace(tokens):
        wrapped.blocks[1].hook_v_input.output[:] = 0
        logits = wrapped.output.save()
    expected = model.run_with_hooks(tokens, fwd_hooks=[(VALUES, lambda x, hook: 0 * x)])
    torch.testing.assert_close(logits, expected)
    assert not torch.allclose(logits, model(tokens))


def test_nnsight_traces_an_edited_model(traced: Any):
    model, wrapped, tokens = traced("MUDDFormer")
    with mi.edited(model, "cut v 0<-0"), wrapped.trace(tokens):
        logits = wrapped.output.save()
    torch.testing.assert_close(logits, mi.run(model, "cut v 0<-0", tokens))


def test_circuitsvis_draws_the_patterns_of_a_cache():
    circuitsvis: Any = pytest.importorskip("circuitsvis", reason="circuitsvis is no dependency")
    model = mi.load_model("mudd-tiny")
    prompt = "def area(r):\n    return"
    _, cache = model.run_with_cache(prompt, names_filter="blocks.7.attn.hook_pattern")
    tokens = model.to_str_tokens(prompt)
    drawn = circuitsvis.attention.attention_patterns(tokens, cache["pattern", 7][0])
    html = str(drawn)
    assert "AttentionPatterns" in html
    assert '"def", " ' in html
    first = float(cache["pattern", 7][0, 2, 3, 1])
    assert f"{first:.6f}"[:6] in html
