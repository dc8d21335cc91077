"""What can be trained by name: a model and its recipe."""

from dataclasses import dataclass, replace

from mudd_interp.axes import unknown_name
from mudd_interp.config import ModelConfig, wiring
from mudd_interp.training.schedule import Recipe
from mudd_interp.training.tokenizer import D_VOCAB


@dataclass(frozen=True)
class Preset:
    """A model to train.

    Attributes:
        cfg: Its configuration.
        recipe: How it is trained.
    """

    cfg: ModelConfig
    recipe: Recipe


_TFM_TINY = ModelConfig(
    n_layers=12,
    d_model=128,
    n_heads=4,
    d_vocab=D_VOCAB,
    n_ctx=256,
    d_mlp=352,
    wiring=wiring("plain"),
)
# Section 2.6 of the paper: widths grow from 0.5 to 1.5 times 352 (here in steps of 32); the total,
# 4,224, is that of the plain model.
_MUDD_TINY = replace(_TFM_TINY, d_mlp=tuple(range(176, 529, 32)), wiring=wiring("mudd"))
# For trying out the command.
_TOY = ModelConfig(n_layers=2, d_model=32, n_heads=2, d_vocab=D_VOCAB, n_ctx=256, d_mlp=64)
_TINY = Recipe(steps=2450)
_SHORT = Recipe(steps=20, batch=4)

PRESETS = {
    "mudd-tiny": Preset(_MUDD_TINY, _TINY),
    "tfm-tiny": Preset(_TFM_TINY, _TINY),
    "toy": Preset(_TOY, _SHORT),
    "toy-plain": Preset(_TOY.plain(), _SHORT),
}
GROUPS = {"tiny-pair": ("mudd-tiny", "tfm-tiny"), "toy-pair": ("toy", "toy-plain")}


def members(name: str) -> tuple[str, ...]:
    """The presets that a name stands for: the one of that name, or those of a group.

    Raises:
        ValueError: If there is no such preset or group.
    """
    if name in GROUPS:
        return GROUPS[name]
    if name not in PRESETS:
        raise ValueError(unknown_name("training preset", name, [*PRESETS, *GROUPS]))
    return (name,)
