"""Every rung of Table 5, and every option beside it, against the equations written out."""

from dataclasses import replace

import pytest
import torch

from mudd_interp.model import HookedMUDDTransformer
from tests.parity import literal
from tests.parity.agreement import assert_states_agree
from tests.parity.family import (
    APART,
    ATTNRES,
    BIDIRECTIONAL,
    FAMILY,
    HYPER,
    NORMED_HEADS,
    random_model,
    random_tokens,
)

EVERY = FAMILY | BIDIRECTIONAL
STREAMED = HYPER | NORMED_HEADS | ATTNRES | APART
RUN = EVERY | STREAMED

# float64 rounding, summed in another order over a few layers.
TOLERANCE = 1e-10


@pytest.mark.parametrize("name", EVERY)
def test_agrees_with_the_equations(name: str):
    cfg = EVERY[name]
    model, tokens = random_model(cfg), random_tokens(cfg)
    logits, cache = model.run_with_cache(tokens)
    for row, ids in enumerate(tokens):
        expected = literal.run(ids, model.state_dict(), cfg)
        torch.testing.assert_close(logits[row], expected["logits"], rtol=0, atol=TOLERANCE)
        assert_states_agree(cache, row, expected, cfg, TOLERANCE)


@pytest.mark.parametrize("name", STREAMED)
def test_reads_of_sublayers_agree_with_the_equations(name: str):
    cfg = STREAMED[name]
    model, tokens = random_model(cfg), random_tokens(cfg)
    logits, cache = model.run_with_cache(tokens)
    for row, ids in enumerate(tokens):
        expected = literal.run_sublayers(ids, model.state_dict(), cfg)
        assert set(expected) == {"logits", *(read.label for read in model.wiring.inputs)}
        torch.testing.assert_close(logits[row], expected["logits"], rtol=0, atol=TOLERANCE)
        for read in model.wiring.inputs:
            found = cache[read.hook][row]
            torch.testing.assert_close(found, expected[read.label], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", ["HC, static", "HC"])
def test_fresh_hyper_connections_are_the_plain_twin(name: str):
    """All streams are the plain residual, and their sum, n of it, is normed (2409.19606)."""
    cfg = replace(HYPER[name], eps=1e-30)  # an epsilon is not the same beside n times the stream
    torch.manual_seed(0)
    model = HookedMUDDTransformer(cfg, dtype=torch.float64)
    torch.manual_seed(0)
    twin = HookedMUDDTransformer(cfg.plain(), dtype=torch.float64)
    tokens = random_tokens(cfg)
    torch.testing.assert_close(model(tokens), twin(tokens), rtol=0, atol=TOLERANCE)


# nanochat's scalars begin at numbers of its own, by design.
@pytest.mark.parametrize("name", [n for n, cfg in FAMILY.items() if cfg.wiring.kind != "scalars"])
def test_a_fresh_model_is_its_plain_twin(name: str):
    cfg = FAMILY[name]
    torch.manual_seed(0)
    model = HookedMUDDTransformer(cfg)
    torch.manual_seed(0)
    twin = HookedMUDDTransformer(cfg.plain())
    tokens = random_tokens(cfg)
    torch.testing.assert_close(model(tokens), twin(tokens), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", RUN)
def test_with_and_without_gradients_hooks_and_cache_the_numbers_are_the_same(name: str):
    cfg = RUN[name]
    model, tokens = random_model(cfg), random_tokens(cfg)
    stacked = model(tokens).detach()
    with torch.no_grad():
        buffered = model(tokens)
        everything, _ = model.run_with_cache(tokens, names_filter=lambda name: True)
    torch.testing.assert_close(buffered, stacked, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(everything, stacked, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", FAMILY | STREAMED)
def test_decoding_with_keys_and_values_agrees_with_the_whole_prefix(name: str):
    cfg = RUN[name]
    model, tokens = random_model(cfg), random_tokens(cfg, pos=9)
    whole = model(tokens)
    past = model.new_kv_cache(batch=2, pos=9)
    pieces = [model(part, past_kv_cache=past) for part in tokens.split([4, 1, 3, 1], dim=1)]
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", BIDIRECTIONAL)
def test_a_position_sees_later_ones_and_the_words_for_it_are_those_of_the_configuration(name: str):
    model, tokens = random_model(BIDIRECTIONAL[name]), random_tokens(BIDIRECTIONAL[name])
    other = tokens.clone()
    other[:, -1] = (other[:, -1] + 1) % model.cfg.d_vocab
    moved = (model(tokens) - model(other)).abs().amax(-1)
    assert (moved > 1e-6).all()  # far above rounding: every position reads the last one
    assert model.cfg.attention_dir == "bidirectional"
    assert model.cfg.positional_embedding_type == ("rotary" if model.cfg.rotary_dim else "none")
