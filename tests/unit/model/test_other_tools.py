"""What README says about nnsight and circuitsvis: no dependencies, so they may be absent."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

import mudd_interp as mi
from tests.bundled import load
from tests.parity.family import FAMILY, random_model, random_tokens

NAMES = ["MUDDFormer", "Transformer++"]


def bend(x: torch.Tensor) -> torch.Tensor:
    """Changes direction too: a norm downstream hides a mere factor."""
    return x * (1 + 0.5 * torch.sin(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape))


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
    expected, cache = model.run_with_cache(tokens, names_filter=lambda _: True)
    for hook in cache:
        with wrapped.trace(tokens):
            value = wrapped.get(hook).output.save()
            logits = wrapped.output.save()
        torch.testing.assert_close(value, cache[hook], msg=hook)
        torch.testing.assert_close(logits, expected, msg=hook)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("in_place", [True, False])
def test_nnsight_edits_what_a_hook_edits(traced: Any, name: str, in_place: bool):
    model, wrapped, tokens = traced(name)
    clean = model(tokens)
    for hook in model.hook_dict:
        expected = model.run_with_hooks(tokens, fwd_hooks=[(hook, lambda x, hook: bend(x))])
        with wrapped.trace(tokens):
            if in_place:
                wrapped.get(hook).output[:] = bend(wrapped.get(hook).output)
            else:
                wrapped.get(hook).output = bend(wrapped.get(hook).output)
            logits = wrapped.output.save()
        torch.testing.assert_close(logits, expected, msg=hook)
        assert not torch.allclose(logits, clean, rtol=0, atol=1e-9), hook


def test_nnsight_traces_an_edited_model(traced: Any):
    model, wrapped, tokens = traced("MUDDFormer")
    with mi.edited(model, "cut v 0<-0"), wrapped.trace(tokens):
        logits = wrapped.output.save()
    torch.testing.assert_close(logits, mi.run(model, "cut v 0<-0", tokens))


def test_circuitsvis_draws_the_patterns_of_a_cache():
    circuitsvis: Any = pytest.importorskip("circuitsvis", reason="circuitsvis is no dependency")
    model = load("mudd-tiny")
    prompt = "def area(r):\n    return"
    _, cache = model.run_with_cache(prompt, names_filter="blocks.7.attn.hook_pattern")
    tokens = model.to_str_tokens(prompt)
    drawn = circuitsvis.attention.attention_patterns(tokens, cache["pattern", 7][0])
    html = str(drawn)
    assert "AttentionPatterns" in html
    assert '"def", " ' in html
    first = float(cache["pattern", 7][0, 2, 3, 1])
    assert f"{first:.6f}"[:6] in html
