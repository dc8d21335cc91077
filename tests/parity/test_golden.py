"""The loaded models against what the released code computes (tests/parity/golden/README.md).

``python -m tests.parity.test_golden`` prints the table of largest differences.
"""

from pathlib import Path

import pytest
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor

from mudd_interp import axes
from mudd_interp.axes import STREAMS
from mudd_interp.checkpoints import load_model
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.layers import Rotary

GOLDEN = Path(__file__).parent / "golden"
FOLDERS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())

REFERENCES = {
    # Against the paper's equations in the same precision: only the order of sums differs.
    torch.float64: ("expected_f64.safetensors", 1e-9),
    # Against the released code, which is itself 1e-5 from the exact values.
    torch.float32: ("expected.safetensors", 3e-5),
}


def load(folder: str, dtype: torch.dtype, check: bool = True) -> HookedMUDDTransformer:
    """A golden model."""
    model = load_model(GOLDEN / folder, dtype=dtype, check=check)
    assert isinstance(model, HookedMUDDTransformer)
    return model


def hooked(name: str) -> str | None:
    """Our hook for a reference tensor, ``None`` for the logits."""
    kind, *rest = name.split(".")
    layer = int(rest[0]) if rest else 0
    names = {
        "embed": axes.EMBED,
        "final_in": axes.RESID_FINAL,
        "block_out": axes.resid_post(layer),
        "attn_out": axes.block(layer, "hook_attn_out"),
        "mlp_out": axes.block(layer, "hook_mlp_out"),
        "pattern": axes.pattern(layer),
    }
    if kind == "stream_in":
        return axes.stream_input(layer, next(s for s in STREAMS if s == rest[1]))
    return names.get(kind)


def computed(name: str, logits: Tensor, cache: dict[str, Tensor]) -> Tensor:
    """What we compute for a reference tensor, in the reference's shape."""
    if name == "logits":
        return logits
    if not name.startswith("dense_weights."):
        return cache[hooked(name) or ""]
    layer = int(name.partition(".")[2])
    hooks = [axes.dense_weights(layer, s) for s in STREAMS]
    return torch.stack([cache[hook] for hook in hooks if hook in cache])


@torch.no_grad()
def measure(
    model: HookedMUDDTransformer, expected: dict[str, Tensor], tokens: Tensor
) -> dict[str, float]:
    """The largest absolute difference for each kind of tensor.

    ``fused`` are the logits without any hook, where attention runs in the fused kernel.
    """
    logits, cache = model.run_with_cache(tokens, return_cache_object=False)
    worst = {"fused": float((model(tokens) - expected["logits"]).abs().max())}
    for name, reference in expected.items():
        if name in ("tokens", "greedy_tokens"):
            continue
        ours = computed(name, logits, cache)
        assert ours.shape == reference.shape, name
        assert ours.dtype == reference.dtype, name
        kind = name.partition(".")[0]
        worst[kind] = max(worst.get(kind, 0.0), float((ours - reference).abs().max()))
    return worst


def differences(folder: str, dtype: torch.dtype) -> dict[str, float]:
    """Load a golden folder and measure it against the reference of a precision."""
    tokens = load_file(GOLDEN / folder / "expected.safetensors")["tokens"]
    return measure(load(folder, dtype), load_file(GOLDEN / folder / REFERENCES[dtype][0]), tokens)


@pytest.mark.parametrize("dtype", REFERENCES, ids=str)
@pytest.mark.parametrize("folder", FOLDERS)
def test_agrees_with_the_released_code(folder: str, dtype: torch.dtype):
    worst = differences(folder, dtype)
    assert len(worst) == 10
    assert max(worst.values()) <= REFERENCES[dtype][1], worst


@pytest.mark.parametrize("folder", FOLDERS)
def test_greedy_tokens_are_the_released_ones(folder: str):
    expected = load_file(GOLDEN / folder / "expected.safetensors")
    model = load(folder, torch.float32)
    greedy = model.generate(
        expected["tokens"], max_new_tokens=8, do_sample=False, stop_at_eos=False, verbose=False
    )
    assert isinstance(greedy, Tensor)
    assert torch.equal(greedy, expected["greedy_tokens"])


def test_a_wrong_rounding_of_the_rotary_tables_would_be_seen():
    """The tolerance is tight enough to tell the released rotary tables from exact ones."""
    exact = load("muddformer-tiny", torch.float64, check=False)  # a forward pass fills the tables
    for module in exact.modules():
        if isinstance(module, Rotary):
            module.rounding = "none"
    expected = load_file(GOLDEN / "muddformer-tiny" / "expected_f64.safetensors")
    tokens = load_file(GOLDEN / "muddformer-tiny" / "expected.safetensors")["tokens"]
    assert measure(exact, expected, tokens)["logits"] > 1e-6


def main() -> None:
    """Print the table."""
    rows = {
        f"{folder} {str(dtype).removeprefix('torch.')}": differences(folder, dtype)
        for dtype in REFERENCES
        for folder in FOLDERS
    }
    kinds = list(next(iter(rows.values())))
    table = Table("largest |difference|", *kinds)
    for name, worst in rows.items():
        table.add_row(name, *(f"{worst[kind]:.1e}" for kind in kinds))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
