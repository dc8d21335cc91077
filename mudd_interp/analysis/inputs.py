"""What is refused before a model sees it, and the labels of what it is then given."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from torch import Tensor

from mudd_interp.analysis.provenance import TokensSeen, provenance
from mudd_interp.data import TokenBatches
from mudd_interp.protocol import HookedModel, Inputs, Trait

NEXT_TOKEN: frozenset[Trait] = frozenset({"tokens", "next_token"})
"""What an analysis requires of a model that asks what it predicts, and of which tokens."""

PATTERNS: frozenset[Trait] = frozenset({"patterns"})
"""What an analysis requires of a model that is about shares of attention."""

STATES: frozenset[Trait] = frozenset({"states"})
"""What an analysis requires of a model that is about its states X_j."""


NUMBERS: frozenset[Trait] = frozenset({"numbers"})
"""What an analysis requires of a model that asks for W as numbers."""

MOVING: frozenset[Trait] = frozenset({"moving"})
"""What an analysis requires of a model that holds weights still."""

SEVERAL: frozenset[Trait] = frozenset({"streams"})
"""What an analysis requires of a model that is about the streams of its residual."""

MIXING: frozenset[Trait] = frozenset({"mixing"})
"""What an analysis requires of a model that is about how its streams are mixed."""


def require_evaluation(model: HookedModel) -> None:
    """Refuse a model in training mode.

    Raises:
        ValueError: With what to do.
    """
    if getattr(model, "training", False):
        raise ValueError("the model is in training mode: call model.eval() first.")


def checked(batches: TokenBatches, model: HookedModel) -> Iterable[Inputs]:
    """The batches, each checked before a model sees it.

    Raises:
        ValueError: While walking: if one is not a batch that the model's front takes (of token ids:
            ``[batch pos]``), or is padded.
    """
    if isinstance(batches, Tensor | np.ndarray | str):
        raise ValueError(
            f"expected an iterable of batches, got a {type(batches).__name__}: wrap a tensor as "
            "[tokens], and turn text into batches with mudd_interp.data."
        )
    front = model.front
    for given in batches:
        batch = front.batch(given)
        front.refuse_padding(batch)
        yield batch


def one_input(model: HookedModel, given: Any) -> Inputs:
    """One sequence (or one of whatever the model reads) as a batch of one.

    Args:
        model: In evaluation mode.
        given: One input, such as ids ``[pos]`` or ``[1 pos]``.

    Raises:
        ValueError: If it is anything else, or the model is in training mode.
    """
    require_evaluation(model)
    return model.front.one(given)


def labels_of(
    model: HookedModel, batch: Inputs, data: str, options: Mapping[str, Any]
) -> dict[str, Any]:
    """The fields of a :class:`~mudd_interp.analysis.result.OneSequence` that label a batch of one.

    Args:
        model: The model.
        batch: What it read.
        data: What that is, in words.
        options: Of the analysis, for the provenance.
    """
    seen = TokensSeen(model.front)
    seen.add(batch)
    return {
        "provenance": provenance(model, data, seen, options),
        "token_ids": model.front.ids(batch[0]).cpu().numpy().copy(),
        "tokens": model.front.labels(batch[0]),
    }


def check_position(position: int, positions: int) -> None:
    """Refuse a position that a sequence does not have.

    Raises:
        ValueError: With the range of its positions.
    """
    if not 0 <= position < positions:
        raise ValueError(f"position must lie in 0..{positions - 1}, got {position}.")
