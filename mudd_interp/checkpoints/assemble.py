"""A configuration and weight files -> a model, one tensor at a time."""

import difflib
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from mudd_interp.axes import short
from mudd_interp.checkpoints.layout import Layout, Placed, Shape, StoredWeight
from mudd_interp.checkpoints.weight_files import FLOATS, Weights
from mudd_interp.config import ModelConfig
from mudd_interp.model import FamilyModel, HookedMUDDTransformer, build_model

NAMED = 5


def check_numbers(name: str, stored: Float[Tensor, "*shape"], dtype: torch.dtype) -> None:
    """Refuse NaN and infinity, and numbers that would become infinite in ``dtype``."""
    low, high = (float(x) for x in torch.aminmax(stored))
    largest = max(abs(low), abs(high))
    if low != low or largest == float("inf"):
        bad = int((~torch.isfinite(stored)).sum())
        raise ValueError(
            f"parameter `{name}` holds {'NaN' if low != low else 'infinity'} ({bad} of "
            f"{stored.numel()} numbers are not finite): the checkpoint is damaged, or its training "
            "diverged; use another one."
        )
    if largest > torch.finfo(dtype).max:
        raise ValueError(
            f"parameter `{name}` holds {largest:.3g}, which is infinite in {dtype}: load it with "
            "dtype=torch.float32 or torch.bfloat16."
        )


def assemble(
    cfg: ModelConfig,
    weights: Weights,
    layout: Layout,
    device: torch.device,
    dtype: torch.dtype | None,
    check: Callable[[str, Tensor, torch.dtype], object] = check_numbers,
) -> FamilyModel:
    """Build a model and fill it; memory never holds more than the model and one tensor.

    Args:
        cfg: Its configuration.
        weights: The checkpoint.
        layout: Where our parameters are in it.
        device: Where to put the weights.
        dtype: Their precision; ``None`` means that of most numbers in the checkpoint.
        check: Called with each name, what is stored and ``dtype``; it reads every number once more.

    Raises:
        ValueError: If a parameter is missing, unexpected, of another shape or kind, or refused by
            the check; the error names each of them.
    """
    with torch.device("meta"):
        model = build_model(cfg)
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    placed = layout.weights(cfg, shapes, weights.entries)
    check_fit(placed, weights, partial(layout.never_read, cfg))
    dtype = dtype or usual_dtype(weights)
    for name, source in placed.items():
        owner, _, leaf = name.rpartition(".")
        module = model.get_submodule(owner)
        if isinstance(source, StoredWeight):
            stored = weights.tensor(source.name)
            check(source.name, stored, dtype)
            values = source.view(stored)
        else:
            values = torch.full(shapes[name], source, dtype=torch.float64)
        filled = fill(getattr(module, leaf), values, device, dtype)
        setattr(module, leaf, nn.Parameter(filled))
    if isinstance(model, HookedMUDDTransformer):  # it has none in its checkpoints
        model.unembed.b_U = torch.zeros(cfg.d_vocab, device=device, dtype=dtype)
    assert not any(t.is_meta for t in (*model.parameters(), *model.buffers()))
    return model


def fill(
    like: Float[Tensor, "*shape"],
    values: Float[Tensor, "*shape"],
    device: torch.device,
    dtype: torch.dtype,
) -> Float[Tensor, "*shape"]:
    """A copy of ``values`` whose memory is laid out as that of ``like``, an empty parameter."""
    # not empty_like: of a meta tensor it imports torch's compiler, half a second and 40 MB
    return torch.empty_strided(like.shape, like.stride(), device=device, dtype=dtype).copy_(values)


def usual_dtype(weights: Weights) -> torch.dtype:
    """The precision of most numbers of a checkpoint."""
    numbers = Counter[str]()
    for entry in weights.entries.values():
        numbers[entry.dtype] += torch.Size(entry.shape).numel()
    return FLOATS[numbers.most_common(1)[0][0]]


def check_fit(placed: Placed, weights: Weights, never_read: Callable[[str], bool]) -> None:
    """Refuse a checkpoint whose names, shapes or kinds of numbers are not those expected."""
    stored = [source for source in placed.values() if isinstance(source, StoredWeight)]
    expected = {source.name: source.shape for source in stored}
    found = {n: entry for n, entry in weights.entries.items() if not never_read(n) or n in expected}
    problems = [
        f"missing parameter `{name}`, expected with shape {list(shape)}"
        for name, shape in expected.items()
        if name not in found
    ]
    problems += [
        f"unexpected parameter `{short(name)}` of shape {list(found[name].shape)}"
        + (_near(name, expected) if at < NAMED else "")  # a search; later ones are not shown
        for at, name in enumerate(name for name in found if name not in expected)
    ]
    problems += [
        f"parameter `{name}` has shape {list(found[name].shape)}, expected {list(shape)}"
        for name, shape in expected.items()
        if name in found and found[name].shape != shape
    ]
    problems += [
        f"parameter `{name}` holds {found[name].dtype}, expected one of {', '.join(FLOATS)}"
        for name in expected
        if name in found and found[name].dtype not in FLOATS
    ]
    if problems:
        raise ValueError(_listed(problems, weights))


def _near(name: str, known: Mapping[str, Shape]) -> str:
    near = difflib.get_close_matches(short(name), known, n=1)
    return f" (did you mean `{near[0]}`?)" if near else ""


def _listed(problems: list[str], weights: Weights) -> str:
    more = len(problems) - NAMED
    return (
        f"the weights in {weights.files[0].path.parent} do not fit config.json: "
        + "; ".join(problems[:NAMED])
        + (f"; and {more} more" if more > 0 else "")
        + ". Correct config.json, or get it and the weights from the same place."
    )
