"""Clean and corrupted prompts: what may be compared, and the difference that is measured."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mudd_interp.analysis.inputs import NEXT_TOKEN, require_evaluation
from mudd_interp.ids import id_tensor
from mudd_interp.protocol import HookedModel, require_traits


def prompt_pair(
    model: HookedModel, clean: Any, corrupted: Any
) -> tuple[Int64[Tensor, "prompt pos"], Int64[Tensor, "prompt pos"]]:
    """Prompts that can be compared, as batches.

    Raises:
        ValueError: If they are not ids or differ in shape, or the model is in training mode or does
            not predict a next token.
    """
    require_evaluation(model)
    require_traits(model, "a patch, which moves the logits of next tokens,", NEXT_TOKEN)
    batches = model.front.batch(clean), model.front.batch(corrupted)
    if batches[0].shape != batches[1].shape:
        raise ValueError(
            f"expected clean and corrupted prompts of one shape, got {list(batches[0].shape)} and "
            f"{list(batches[1].shape)}: patches go position by position."
        )
    return batches


def answers_of(
    model: HookedModel,
    logits: Sequence[Float[Tensor, "prompt pos d_vocab"]],
    given: Any,
) -> Int64[Tensor, "prompt 2"]:
    """The two tokens of each prompt whose logits are compared.

    Args:
        model: The model.
        logits: Of the clean run and of the corrupted one.
        given: The tokens; ``None`` for the likeliest of the two runs at the last position.

    Raises:
        ValueError: If they are equal, outside the vocabulary or not two for each prompt.
    """
    if given is not None:
        given = id_tensor(given, "answers")
    else:
        given = torch.stack([run[:, -1].argmax(-1) for run in logits], dim=1)
        same = (given[:, 0] == given[:, 1]).nonzero().flatten().tolist()
        if same:
            raise ValueError(
                f"the likeliest token of prompt {same[0]} is {int(given[same[0], 0])} in both runs:"
                " give the answers to compare."
            )
    expected = (len(logits[0]), 2)
    inside = bool(((given >= 0) & (given < model.cfg.d_vocab)).all())
    if tuple(given.shape) != expected or not inside or bool((given[:, 0] == given[:, 1]).any()):
        raise ValueError(
            f"answers must be two different ids in 0..{model.cfg.d_vocab - 1} for each prompt, of "
            f"shape {list(expected)}, got {given.tolist()}."
        )
    return given.to(logits[0].device)


def logit_difference(
    logits: Float[Tensor, "*row prompt pos d_vocab"], answers: Int64[Tensor, "prompt 2"]
) -> Float[Tensor, "*row prompt"]:
    """The logit of the first answer minus that of the second, at the last position."""
    last = logits[..., -1, :]
    first, second = last.gather(-1, answers.expand(*last.shape[:-1], 2)).unbind(-1)
    return first - second
