"""What is tried on every model that is loaded, by running it on an example."""

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mudd_interp import axes
from mudd_interp.axes import STREAMS
from mudd_interp.model import FamilyModel
from mudd_interp.protocol import Hook
from mudd_interp.states import StateWiring

ROW_SUM = {torch.float64: 1e-9, torch.float32: 1e-5, torch.float16: 1e-2, torch.bfloat16: 5e-2}
"""How far the sum of an attention row may be from one: the rounding of its entries."""


@torch.no_grad()
def check_runs(model: FamilyModel) -> tuple[str, ...]:
    """Run a model on an example, then run it again with hooked tensors of its middle edited.

    The four streams are edited as they enter the middle block, and so is every dense weight that
    they were mixed with. That a stream on the plain residual has no dense weight is reported, not
    refused. Each edit has a row of the batch to itself, so that two runs are enough for all.

    Returns:
        What was found, in words.

    Raises:
        ValueError: If logits are not finite, the rows of a pattern do not sum to one, or an edit
            of a hooked tensor leaves the logits as they were.
    """
    inputs, weights = edited_hooks(model)
    names = [*inputs, *weights]
    none, each = torch.zeros(2, len(names), len(names), dtype=torch.bool, device=model.cfg.device)
    each.fill_diagonal_(True)
    logits, patterns = _run(model, names, none)
    if not logits.isfinite().all():
        raise ValueError(
            f"the logits of {model.info.name} are not finite in {model.cfg.dtype}, though its "
            "weights are: load it with dtype=torch.float32."
        )
    worst = max(_row_error(name, pattern) for name, pattern in patterns.items())
    edited, _ = _run(model, names, each)
    effects = (edited - logits).abs().flatten(1).amax(1).tolist()
    changes = dict(zip(names, effects, strict=True))
    _require_effect(model, changes)
    return (
        f"attention: all rows sum to one (to {worst:.1g})",
        _changed("hooks", {name: changes[name] for name in inputs}),
        *((_changed("dense weights", {n: changes[n] for n in weights}),) if weights else ()),
        *_without_weights(model),
    )


def edited_hooks(model: FamilyModel) -> tuple[list[str], list[str]]:
    """The stream inputs of the middle block, and the dense weights that made them."""
    middle = model.config.n_layers // 2
    inputs = [axes.stream_input(middle, stream) for stream in STREAMS]
    rows = [read for read in model.wiring.rows if read.layer == max(1, middle)]
    weights = [model.wiring.gate(read) for read in rows]
    return inputs, [name for name in weights if name is not None]


def _run(
    model: FamilyModel, names: Sequence[str], rows: Bool[Tensor, "edit batch"]
) -> tuple[Float[Tensor, "batch *pos d_vocab"], dict[str, Tensor]]:
    """Logits and patterns of a batch of equal rows; the edit of a hook is made in its rows only.

    The hooks are there even if none edits: they decide which kernels run, and so the rounding. So
    two runs differ only by what was edited, and not at all if an edit has no effect.
    """
    example = model.front.example().to(model.cfg.device)
    hooks: list[Hook] = [(name, partial(_edit, rows=rows[edit])) for edit, name in enumerate(names)]
    patterns = [axes.pattern(layer) for layer in range(model.config.n_layers)]
    with model.hooks(hooks):
        return model.run_with_cache(
            example.expand(len(names), *example.shape[1:]),
            names_filter=patterns,
            return_cache_object=False,
        )


def _edit(
    x: Float[Tensor, "batch pos _"],
    hook: object,  # noqa: ARG001 (a hook's signature)
    rows: Bool[Tensor, " batch"],
) -> Float[Tensor, "batch pos _"]:
    """``1 - x`` in some rows: no norm undoes that, and a weight of zero becomes one."""
    return torch.where(rows[:, None, None], 1 - x, x)


def _row_error(name: str, pattern: Float[Tensor, "batch head query key"]) -> float:
    error = float((pattern.double().sum(-1) - 1).abs().max())
    if not error <= ROW_SUM[pattern.dtype]:
        raise ValueError(
            f"the rows of {name} sum to one only to {error:.2g} (in {pattern.dtype}): its weights "
            "or its precision are not what they should be; try dtype=torch.float32."
        )
    return error


def _require_effect(model: FamilyModel, changes: Mapping[str, float]) -> None:
    dead = [f"`{name}`" for name, change in changes.items() if change == 0]
    if dead:
        raise ValueError(
            f"editing {', '.join(dead)} does not change the logits of {model.info.name}: weights "
            "that matter are all zero; is this a checkpoint of a trained model? If it is meant to "
            "be so, load it with check=False."
        )


def _changed(what: str, changes: Mapping[str, float]) -> str:
    each = ", ".join(f"{name} (by up to {change:.2g})" for name, change in changes.items())
    return f"{what}: the logits change with an edit of {each}"


def _without_weights(model: FamilyModel) -> tuple[str, ...]:
    """The streams that have no dense weights, by the model's design."""
    wiring = model.wiring
    plain = wiring.plain_streams if isinstance(wiring, StateWiring) else ()
    if not plain:
        return ()
    return (f"dense weights: none on {', '.join(plain)}, by design: the plain residual",)
