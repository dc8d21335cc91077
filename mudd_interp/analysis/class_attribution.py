"""What spoke for a class, and where: a class logit divided among patches and components."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from mudd_interp import axes
from mudd_interp.analysis.patches import patch_columns, patch_front
from mudd_interp.analysis.predictions import as_float64
from mudd_interp.analysis.sequence import SequenceResult, run_pass, written_hooks
from mudd_interp.ids import id_tensor
from mudd_interp.protocol import ClassModel, DecomposableModel, Trait, require_traits

OF_CLASSES: frozenset[Trait] = frozenset({"images", "classes"})
"""What an analysis of the classes of images requires of a model."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ClassAttribution(SequenceResult):
    """Direct contributions to the logit of a class, or to a difference of two, patch by patch.

    In logits, signed. Each is what a component wrote at a patch times its total coefficient over
    all paths there, through the final norm with its scale frozen; the head reads the mean over
    patches, so each patch has its share. Contributions and ``constant`` sum to the logit. They are
    of what stands at a patch at the end, which attention may have brought there from others.

    Attributes:
        side: Patches beside each other.
        answer_id: The class.
        answer: Its name.
        against: The name of the class whose logit is subtracted, or ``None``.
        logit: The model's own, or its difference.
        constant: What no component wrote: the biases of final norm and head.
        components: ``embed``, ``attn 0``, ``mlp 0``, ... in the order of depth.
        contribution: See above.
        heads: Of each head; with ``attn_bias`` they sum to the attention of their layer.
    """

    side: int
    answer_id: int
    answer: str
    against: str | None
    logit: float
    constant: float
    components: tuple[str, ...]
    contribution: Float64[np.ndarray, "component pos"]
    heads: Float64[np.ndarray, "layer head pos"]

    @property
    def attn_bias(self) -> Float64[np.ndarray, "layer pos"]:
        """Of the output bias of each layer's attention."""
        return self.contribution[1::2] - self.heads.sum(1)

    @property
    def by_patch(self) -> Float64[np.ndarray, " pos"]:
        """Of all components together; with the constant it sums to the logit."""
        return self.contribution.sum(0)

    @property
    def by_component(self) -> pd.Series:
        """Of all patches together, and the constant: it sums to the logit."""
        parts = dict(zip(self.components, self.contribution.sum(1).tolist(), strict=True))
        return pd.Series({**parts, "constant": self.constant})

    @property
    def frame(self) -> pd.DataFrame:
        """A row for each component at each patch, and the constant, which has no place.

        Columns ``kind`` (embed, attn, mlp, constant), ``layer``, ``patch``, ``row``, ``column`` and
        ``contribution`` (logits), which sums to the logit. What a row does not have is missing.
        """
        patches = patch_columns(self.side)
        tables = [
            patches.assign(kind=name.split()[0], layer=_layer(name), contribution=values)
            for name, values in zip(self.components, self.contribution, strict=True)
        ]
        constant = pd.DataFrame({"kind": ["constant"], "contribution": [self.constant]})
        columns = ["kind", "layer", *patches.columns, "contribution"]
        table = pd.concat([*tables, constant], ignore_index=True).reindex(columns=columns)
        return table.astype(dict.fromkeys(columns[1:-1], "Int64"))


def _layer(component: str) -> Any:
    return int(component.split()[1]) if " " in component else pd.NA


@torch.no_grad()
def class_attribution(
    model: DecomposableModel,
    image: Any,
    answer: Any = None,
    against: Any = None,
    data: str = "the prompt",
) -> ClassAttribution:
    """Divide a class logit, or a difference of two, among patches and what was written there.

    Args:
        model: A hooked model that tells the classes of images, in evaluation mode.
        image: ``[channel row column]``, or ``[1 channel row column]``, in -1..1.
        answer: The class in question, by name or number; ``None`` is the likeliest one.
        against: A class whose logit is subtracted, by name or number.
        data: What the image is, in words; it goes into the provenance.

    Raises:
        ValueError: If there is not one image, no such class, the model tells no classes of images
            or is in training mode, or its blocks are not the sum of attention and FFN.
        NotImplementedError: If a layer stands between the mean over patches and the classes.
    """
    require_traits(model, "class_attribution", OF_CLASSES)
    assert isinstance(model, ClassModel)
    target, other = (
        None if given is None else class_number(model, given) for given in (answer, against)
    )
    model.tokens_to_residual_directions(0)  # refuses a head that is not linear before a pass
    n_layers: int = model.cfg.n_layers
    found = run_pass(
        model, image, _names(model), data, {"answer": target, "against": other}, logits=True
    )
    logits = found.logits
    assert logits is not None
    target = int(logits.argmax()) if target is None else target
    direction, constant = model.tokens_to_residual_directions(target), model.logit_constant(target)
    logit = logits[target]
    if other is not None:
        direction = direction - model.tokens_to_residual_directions(other)
        constant, logit = constant - model.logit_constant(other), logit - logits[other]

    def shares(stack: Float[Tensor, "component pos d_model"]) -> Float64[np.ndarray, "..."]:
        normed = found.cache.apply_ln_to_stack(stack, has_batch_dim=False)
        return as_float64(normed.double() @ direction.double()) / stack.shape[1]

    contribution = shares(found.cache.decompose_resid())
    total = contribution.sum() + float(constant)
    heads = shares(found.cache.stack_head_results())
    return ClassAttribution(
        **found.labels,
        completeness_error=abs(total - float(logit)) / (abs(float(logit)) or 1.0),
        side=patch_front(model, "class_attribution").side,
        answer_id=target,
        answer=model.class_names[target],
        against=None if other is None else model.class_names[other],
        logit=float(logit),
        constant=float(constant),
        components=("embed", *(f"{k} {layer}" for layer in range(n_layers) for k in _IN_BLOCK)),
        contribution=contribution,
        heads=heads.reshape(n_layers, -1, contribution.shape[1]),
    )


_IN_BLOCK = ("attn", "mlp")


def _names(model: ClassModel) -> set[str]:
    layers = range(model.cfg.n_layers)
    z = {axes.attn(layer, "hook_z") for layer in layers}
    return {*written_hooks(model.wiring, len(layers)), *z, axes.FINAL_SCALE}


def class_number(model: ClassModel, given: Any) -> int:
    """The number of a class, given by its name or its number, in any form.

    Raises:
        ValueError: If there is no such class, with the nearest names.
    """
    names = model.class_names
    if isinstance(given, str) and not (given.isdecimal() and given not in names):
        return model.to_single_token(given)
    number = id_tensor(int(given) if isinstance(given, str) else given, "classes")
    if number.numel() != 1 or not 0 <= int(number) < len(names):
        raise ValueError(f"expected one class in 0..{len(names) - 1}, got {given!r}.")
    return int(number)
