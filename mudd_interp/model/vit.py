"""``HookedViT``: Vision Transformers of the family, MUDDViT and its plain twin."""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from mudd_interp.axes import unknown_name
from mudd_interp.config import Classes, ModelConfig, Patches
from mudd_interp.ids import id_tensor
from mudd_interp.model.classes import ClassHead, ClassTask
from mudd_interp.model.parts import forwarded
from mudd_interp.model.patches import ImageFront, PatchEmbed
from mudd_interp.model.stack import HookedStack
from mudd_interp.model.weights import MUDDEnds
from mudd_interp.protocol import ModelInfo


class HookedViT(HookedStack):
    """A Vision Transformer: images in patches, blocks wired by the configuration, classes.

    Besides the hooks of every model of the family it has Prisma's ``hook_pos_embed`` and
    ``hook_patches``, the embedded patches without their positions; ``hook_embed``, X_0, is their
    sum.

    The head reads the mean over positions of ``ln_final``'s output, or that of a class token, at
    ``unembed.hook_pooled``. ``forward`` takes images ``[batch channel row column]`` in -1..1 and,
    for a loss, ``target``, the class of each.

    Args:
        cfg: A configuration whose front is ``Patches(...)`` and whose task is ``Classes(...)``.
        info: Name, revision and digest.
        device: Where the weights are to be.
        dtype: Their precision.

    Raises:
        ValueError: If the configuration is of a model that reads tokens.
    """

    unembed: ClassHead

    def __init__(
        self,
        cfg: ModelConfig,
        info: ModelInfo | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ):
        if not isinstance(cfg.front, Patches) or not isinstance(cfg.task, Classes):
            raise ValueError(
                "a HookedViT reads images and tells classes: give front=Patches(...) and "
                f"task=Classes(...), got {cfg.front!r} and {cfg.task!r}."
            )
        embed = PatchEmbed(cfg.front, cfg.d_model)
        task = ClassTask(ClassHead(cfg.task, cfg.d_model, cfg.d_vocab))
        super().__init__(cfg, ImageFront(cfg.front, embed), task, info, device, dtype)
        self.hook_patches, self.hook_pos_embed = embed.points
        self.setup()  # these two have names now

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the classes are called; their numbers, where there are no names."""
        task = self.config.task
        names = task.names if isinstance(task, Classes) else None
        return names or tuple(str(number) for number in range(self.config.d_vocab))

    @property
    def classes(self) -> "ClassNames":
        """The way from the names of classes to their numbers."""
        return ClassNames(self.class_names)

    @property
    def ends(self) -> MUDDEnds:
        """Its embedding, final norm and head."""
        ends = self.embed, self.ln_final, self.unembed
        return ClassEnds(self.classes, *ends, self.connections.reduced)

    @property
    def W_U(self) -> Float[Tensor, "d_model d_vocab"]:  # noqa: N802 (the field's name)
        """The weights of the classes."""
        return self.ends.W_U

    @property
    def b_U(self) -> Float[Tensor, " d_vocab"]:  # noqa: N802 (the field's name)
        """The biases of the classes."""
        return self.ends.b_U

    tokens_to_residual_directions = forwarded("ends", MUDDEnds.tokens_to_residual_directions)
    logit_constant = forwarded("ends", MUDDEnds.logit_constant)
    decode_stream = forwarded("ends", MUDDEnds.decode_stream)

    def to_single_token(self, string: str) -> int:
        """The number of a class, by its name.

        Raises:
            ValueError: If there is no such class, with the nearest names.
        """
        return self.classes.number(string)

    def to_single_str_token(self, int_token: int) -> str:
        """The name of a class, by its number."""
        return self.class_names[int_token]


class ClassNames:
    """Classes by name.

    Args:
        names: By number.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)

    def number(self, name: str) -> int:
        """The number of a class.

        Raises:
            ValueError: If there is no such class, with the nearest names.
        """
        if name not in self.names:
            known = ", ".join(self.names[:20])
            raise ValueError(f"{unknown_name('class', name, self.names)} There are {known}.")
        return self.names.index(name)

    def vocabulary_index(self, tokens: Any) -> Int64[Tensor, "*shape"]:
        """A class by its name, or numbers of classes of any shape and form.

        Raises:
            ValueError: If there is no such class.
        """
        if isinstance(tokens, str):
            return torch.tensor(self.number(tokens))
        index = id_tensor(tokens, "classes")
        if index.numel() and not 0 <= int(index.min()) <= int(index.max()) < len(self.names):
            raise ValueError(f"classes must lie in 0..{len(self.names) - 1}, got {tokens}.")
        return index


class ClassEnds(MUDDEnds):
    """The ends of a vision model, whose vocabulary is its classes."""

    def require_linear_head(self) -> None:
        """Refuse a head with a layer before the classes.

        Raises:
            NotImplementedError: With the reason.
        """
        if self.unembed.pre_logits:
            raise NotImplementedError(
                "this model has a layer with tanh before its classes (pre_logits), so class logits "
                "are not linear in the final stream, and no direction of it raises one."
            )

    def decode_stream(
        self, x: Float[Tensor, "batch pos d_model"]
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """What the head would say of each patch's stream alone, through the final norm.

        Without a layer before the classes their mean over positions is the output, or with a class
        token what is said there.
        """
        return self.unembed.decode(self.ln_final.fused(self.reduced(x)))
