"""How near relatives are to their reference code: ``python -m tests.parity.relatives_errors``.

Largest absolute differences from the reference tensors of each folder, by kind of tensor; of sums
of W times writes from the inputs in units of the inputs' length.
"""

from collections.abc import Iterator
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from mudd_interp.analysis import ReadWeights, read_weights
from tests.parity.test_relatives import ATTNRES, FOLDERS, REFERENCES, gate_hook, hooked, own_hook
from tests.relatives import GOLDEN, loaded

KINDS: tuple[str, ...] = ("inputs", "outputs", "gates", "W", "logits", "sums")
_INPUTS = {"attn_in", "attn_v_in", "mlp_in", "ple_in", "final_in"}
_OUTPUTS = {"embed", "attn_out", "mlp_out", "laurel_out", "ple_out", "block_out"}


@torch.no_grad()
def errors(folder: str, dtype: torch.dtype) -> dict[str, float]:
    """The largest error of each kind of tensor."""
    file, _ = REFERENCES[dtype]
    expected, model = load_file(GOLDEN / folder / file), loaded(folder, dtype)
    logits, cache = model.run_with_cache(expected["tokens"])
    found = dict.fromkeys(KINDS, 0.0)
    for name, wanted in expected.items():
        hook = _hook(folder, name, model)
        if hook is not None and hook in cache and cache[hook].shape == wanted.shape:
            kind = _kind(name.partition(".")[0])
            found[kind] = max(found[kind], float((cache[hook] - wanted).abs().max()))
    weights = read_weights(model, expected["tokens"])
    found["W"] = max(_of_w(weights, expected["W"]))
    found["logits"] = float((logits - expected["logits"]).abs().max())
    found["sums"] = float(weights.completeness.max())
    return found


def _hook(folder: str, name: str, model: Any) -> str | None:
    if folder in ATTNRES:
        return own_hook(name, model.config.wiring.value_apart)
    return gate_hook(name) or hooked(name)


def _kind(name: str) -> str:
    if name in _INPUTS:
        return "inputs"
    return "outputs" if name in _OUTPUTS else "gates"


def _of_w(found: ReadWeights, expected: torch.Tensor) -> Iterator[float]:
    """The error of each row of W: a sublayer's, or the head's, which is last."""
    rows = [read for read in found.reads if read.rpartition(".")[2] not in ("k", "v")]
    for read, wanted in zip(rows, expected, strict=False):
        yield float((torch.tensor(found.of(read)) - wanted).abs().max())


def main() -> None:
    """Print the table."""
    table = Table("folder", "precision", *KINDS)
    for folder in FOLDERS:
        for dtype in REFERENCES:
            numbers = errors(folder, dtype).values()
            name = str(dtype).removeprefix("torch.")
            table.add_row(folder, name, *(f"{number:.0e}" for number in numbers))
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
