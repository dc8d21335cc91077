"""Contributions are exact: they sum to the logit, and to every stream, for every backbone."""

from typing import Any

import pytest
import torch
from transformer_lens import ActivationCache

from mudd_interp.model import HookedMUDDTransformer, MUDDActivationCache
from tests.identities.errors import CHECKS, EXACT, MODELS, TOKENS, errors
from tests.parity.family import FAMILY, random_model

# transformers computes Llama's norm in float32, whatever the model's precision.
FLOAT32_NORM = 1e-6


@pytest.mark.parametrize("name", MODELS)
def test_contributions_sum_to_what_they_decompose(name: str) -> None:
    found = errors(name)
    assert list(found) == list(CHECKS)
    assert max(found.values()) <= (FLOAT32_NORM if name == "bridge: Llama" else EXACT), found


def run(model: HookedMUDDTransformer, **kwargs: Any) -> MUDDActivationCache:
    with torch.no_grad():
        return model.run_with_cache(TOKENS, **kwargs)[1]


@pytest.fixture(scope="module")
def mudd() -> HookedMUDDTransformer:
    return random_model(FAMILY["MUDDFormer"])


DIRECTIONS = torch.randn(16, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("decompose_resid", {}),
    ("decompose_resid", {"layer": 2, "mode": "attn", "apply_ln": True, "pos_slice": -1}),
    ("decompose_resid", {"layer": 1, "mlp_input": True, "apply_ln": True, "incl_embeds": False}),
    ("accumulated_resid", {"apply_ln": True, "incl_mid": True, "pos_slice": (1, 4)}),
    ("accumulated_resid", {"layer": 2, "apply_ln": True, "mlp_input": True}),
    ("stack_head_results", {"incl_remainder": True, "apply_ln": True}),
    ("stack_head_results", {"layer": 0, "pos_slice": 3}),
    ("stack_neuron_results", {"layer": 2, "incl_remainder": True, "neuron_slice": [1, 5]}),
    (
        "stack_neuron_results",
        {"layer": 3, "incl_remainder": True, "apply_ln": True, "project_output_onto": DIRECTIONS},
    ),
    ("get_full_resid_decomposition", {"apply_ln": True}),
    ("get_full_resid_decomposition", {"layer": 1, "mlp_input": True, "expand_neurons": False}),
    (
        "get_full_resid_decomposition",
        {"layer": 2, "apply_ln": True, "project_output_onto": DIRECTIONS[:, 0]},
    ),
]


@pytest.mark.parametrize(("method", "options"), CALLS)
def test_on_a_plain_model_every_method_is_that_of_transformer_lens(
    method: str, options: dict[str, Any]
) -> None:
    config = FAMILY["MUDDPythia, sequential"].plain().to_dict() | {"d_mlp": 24}
    cache = run(random_model(type(FAMILY["MUDDFormer"]).from_dict(config)))
    theirs = ActivationCache(dict(cache.cache_dict), cache.model)
    with torch.no_grad():
        found, labels = getattr(cache, method)(**options, return_labels=True)
        expected, names = getattr(theirs, method)(**options, return_labels=True)
    assert labels == [str(name).replace("tensor(", "").replace(")", "") for name in names]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("pos_slice", [-1, (1, 3), [0, 4]])
def test_positions_and_sequences_are_sliced_alike(mudd: HookedMUDDTransformer, pos_slice: Any):
    cache = run(mudd)
    whole = cache.decompose_resid(2, stream="v", apply_ln=True)
    positions = torch.arange(TOKENS.shape[1]).numpy()
    chosen = positions[slice(*pos_slice) if isinstance(pos_slice, tuple) else pos_slice]
    sliced = cache.decompose_resid(2, stream="v", apply_ln=True, pos_slice=pos_slice)
    torch.testing.assert_close(sliced, whole[:, :, chosen], rtol=0, atol=0)
    single = cache.apply_slice_to_batch_dim(1).decompose_resid(2, stream="v", apply_ln=True)
    torch.testing.assert_close(single, whole[:, 1], rtol=0, atol=1e-14)


def test_neuron_labels_follow_each_blocks_width(mudd: HookedMUDDTransformer) -> None:
    stack, labels = run(mudd).stack_neuron_results(3, return_labels=True)
    widths = mudd.config.mlp_widths
    assert len(set(widths)) == 3
    assert labels == [f"L{layer}N{n}" for layer, width in enumerate(widths) for n in range(width)]
    assert len(stack) == len(labels)


def test_the_lens_ends_in_the_models_logits(mudd: HookedMUDDTransformer) -> None:
    with torch.no_grad():
        logits, cache = mudd.run_with_cache(TOKENS)
        lens = cache.logit_lens(positions=None)
        inner = mudd.decode_stream(cache["blocks.1.hook_resid_pre"])
    assert lens.labels == ["0_pre", "1_pre", "2_pre", "final_post"]
    torch.testing.assert_close(lens.values[-1], logits, rtol=0, atol=1e-12)
    torch.testing.assert_close(lens.values[1], inner, rtol=0, atol=1e-12)


REFUSED: dict[str, tuple[Any, list[str]]] = {
    "which norm": (lambda c: c.decompose_resid(1, apply_ln=True), ["stream='q'", "mlp_input"]),
    "no norm": (lambda c: c.decompose_resid(1, apply_ln=True, stream="r"), ["before the FFN"]),
    "final stream v": (lambda c: c.decompose_resid(stream="v"), ["final norm reads stream r"]),
    "FFN stream k": (lambda c: c.decompose_resid(1, True, stream="k"), ["FFN reads stream r"]),
    "layer": (lambda c: c.decompose_resid(4), ["0..3", "got 4"]),
    "no FFN": (lambda c: c.decompose_resid(mlp_input=True), ["no FFN behind the last"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_undefined_says_so(mudd: HookedMUDDTransformer, case: str) -> None:
    call, words = REFUSED[case]
    with pytest.raises(ValueError) as error:  # noqa: PT011 (the words are looked at below)
        call(run(mudd))
    assert all(word in str(error.value) for word in words), error.value


def test_a_hook_that_was_not_kept_or_is_not_there_is_named(mudd: HookedMUDDTransformer) -> None:
    with pytest.raises(ValueError, match=r"does not hold `dense\.0\.hook_weights_r`.*names_filter"):
        run(mudd, names_filter="hook_embed").decompose_resid()
    with pytest.raises(ValueError, match=r"no hook `blocks\.0\.hook_resid_mid`"):
        run(random_model(FAMILY["MUDDPythia"])).accumulated_resid(incl_mid=True)
