"""Relatives of MUDDFormer against what their own code computes (golden-relatives/README.md)."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis import read_weights
from mudd_interp.checkpoints import load_model
from mudd_interp.model.wirings import Static

GOLDEN = Path(__file__).parent / "golden-relatives"
FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())
DENSEFORMERS = [name for name in FOLDERS if name.startswith("denseformer")]

REFERENCES = {
    # In the same precision only the order of sums differs.
    torch.float64: ("expected_f64.safetensors", 1e-9),
    # The reference is itself 1e-5 from the exact values.
    torch.float32: ("expected.safetensors", 2e-5),
}


@cache
def loaded(folder: str, dtype: torch.dtype) -> Any:
    return load_model(GOLDEN / folder, dtype=dtype)


def hooked(name: str) -> str | None:
    """Our hook for a reference tensor, if it has one."""
    kind, _, layer = name.partition(".")
    at = int(layer or 0)
    return {
        "embed": axes.EMBED,
        "attn_in": axes.resid_pre(at),
        "attn_out": axes.attn_out(at),
        "mlp_in": axes.block(at, "hook_resid_mid"),
        "mlp_out": axes.mlp_out(at),
        "block_out": axes.resid_post(at),
        "final_in": axes.RESID_FINAL,
    }.get(kind)


@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("folder", DENSEFORMERS)
def test_every_tensor_is_that_of_the_reference(folder: str, dtype: torch.dtype) -> None:
    file, largest = REFERENCES[dtype]
    expected, model = load_file(GOLDEN / folder / file), loaded(folder, dtype)
    with torch.no_grad():
        fused = model(expected["tokens"])
        logits, cache = model.run_with_cache(expected["tokens"])
    close(fused, expected["logits"], largest)
    close(logits, expected["logits"], largest)
    compared = {name: hook for name in expected if (hook := hooked(name)) is not None}
    assert len(compared) == 5 * model.cfg.n_layers + 2
    for name, hook in compared.items():
        close(cache[hook], expected[name], largest)


@pytest.mark.parametrize("folder", DENSEFORMERS)
def test_the_averages_are_of_the_same_states(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected.safetensors")
    model = loaded(folder, torch.float32)
    averages = {name for name in expected if name.startswith("dwa_weights.")}
    assert averages == {
        f"dwa_weights.{read.row}" for read in model.wiring.rows if model.wiring.weighed(read)
    }
    for name in averages:
        read = model.wiring.row("r", int(name.rpartition(".")[2]))
        assert torch.equal(model.wiring.static(read), expected[name].flatten())
        states = expected[name.replace("weights", "states")].flatten().tolist()
        assert list(model.wiring.columns(read)) == states


@pytest.mark.parametrize("folder", DENSEFORMERS)
def test_what_reads_take_of_writes(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected_f64.safetensors")
    found = read_weights(loaded(folder, torch.float64), expected["tokens"], basis="delta")
    close(torch.tensor(found.weights), expected["W"], 1e-12)
    assert found.completeness.max() < 1e-12


@pytest.mark.parametrize("folder", DENSEFORMERS)
def test_greedy_tokens(folder: str) -> None:
    expected = load_file(GOLDEN / folder / "expected.safetensors")
    model = loaded(folder, torch.float32)
    greedy = model.generate(
        expected["tokens"], max_new_tokens=8, do_sample=False, stop_at_eos=False, verbose=False
    )
    assert torch.equal(greedy, expected["greedy_tokens"])


def test_dilation_is_counted_in_blocks() -> None:
    """The training code counts its dilation in groups of blocks, the package in blocks."""
    kinds = {name: loaded(name, torch.float32).config.wiring for name in DENSEFORMERS}
    assert kinds == {
        "denseformer-d1p1-tiny": Static(),
        "denseformer-d2p2-tiny": Static(period=2, dilation=4),
        "denseformer-pkg-d2p2-tiny": Static(period=2, dilation=2),
    }


def close(found: Tensor, expected: Tensor, largest: float) -> None:
    assert found.shape == expected.shape
    torch.testing.assert_close(found, expected, rtol=0, atol=largest)
