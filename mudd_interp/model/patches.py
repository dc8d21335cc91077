"""The front of a vision model: images, cut into patches."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.config import Patches
from mudd_interp.protocol import Trait

Images = Float[Tensor, "batch channel row column"]


class PatchEmbed(nn.Module):
    """X_0 of images: a linear map of each patch, and where it stands.

    ``W_E`` is ``[channel·row·column d_model]``, the kernel of a convolution whose stride is its
    size, with the bias ``b_E``. ``prefix`` are the vectors of positions before the patches, and
    ``W_pos`` those of all positions, where they are learned. ``hook_patches`` and
    ``hook_pos_embed`` are what is added up.
    """

    def __init__(self, patches: Patches, d_model: int):
        super().__init__()
        self.patches = patches
        self.W_E = nn.Parameter(torch.empty(d_model, patches.pixels).T)
        self.b_E = nn.Parameter(torch.zeros(d_model))
        before = (nn.Parameter(torch.zeros(d_model)) for _ in range(patches.n_prefix))
        self.prefix = nn.ParameterList(before)
        if patches.positions == "learned":
            self.W_pos = nn.Parameter(torch.empty(patches.n_positions, d_model))
        # A model gives the two points names of its own: Prisma's, without a module in front.
        self.points = (HookPoint(), HookPoint())
        self.d_model = d_model
        self._tables: dict[tuple[torch.device, torch.dtype], Float[Tensor, "pos d_model"]] = {}

    def forward(self, images: Images) -> Float[Tensor, "batch pos d_model"]:
        """X_0, in the precision of the weights."""
        hook_patches, hook_pos_embed = self.points
        pixels = in_patches(self.patches, self.scaled(images.to(self.W_E.dtype)))
        embedded = F.linear(pixels, self.W_E.T, self.b_E)
        if self.patches.n_prefix:
            prefix = torch.stack(list(self.prefix)).expand(len(images), -1, -1)
            embedded = torch.cat([prefix, embedded], dim=1)
        embedded = hook_patches(embedded)
        is_learned = self.patches.positions == "learned"
        place = self.W_pos if is_learned else self.table(embedded.device, embedded.dtype)
        return embedded + hook_pos_embed(place.expand_as(embedded))

    def scaled(self, images: Images) -> Images:
        """Images on the scale that the weights are for."""
        mean, std = self.patches.mean, self.patches.std
        if mean is None or std is None:
            return images
        mean, std = (images.new_tensor(each)[:, None, None] for each in (mean, std))
        return ((images + 1) / 2 - mean) / std

    def table(self, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "pos d_model"]:
        """The positions on a device, made once for each device and precision."""
        key = (device, dtype)
        if key not in self._tables:
            exact = sine_cosine(self.patches.side, self.d_model)
            exact = F.pad(exact, (0, 0, self.patches.n_prefix, 0))  # a prefix stands nowhere
            self._tables[key] = exact.to(device=device, dtype=dtype)
        return self._tables[key]


def in_patches(patches: Patches, images: Images) -> Float[Tensor, "batch pos pixel"]:
    """The pixels of each patch, row by row; within a patch by channel, then row by row."""
    side, size = patches.side, patches.patch_size
    apart = images.unflatten(3, (side, size)).unflatten(2, (side, size))
    return apart.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def sine_cosine(side: int, d_model: int) -> Float[Tensor, "pos d_model"]:
    """Fixed 2-D positions in float64: sin x, cos x, sin y, cos y, each ``d_model / 4`` wide.

    Frequency k is ``10000^(-k / (d_model/4 - 1))`` (big_vision, ``posemb_sincos_2d``). x is the
    column of a patch, y its row, both from 0.
    """
    quarter = d_model // 4
    steps = torch.arange(quarter, dtype=torch.float64) / max(quarter - 1, 1)
    frequencies = 10000.0**-steps
    row, column = torch.meshgrid(*(torch.arange(side, dtype=torch.float64),) * 2, indexing="ij")
    x, y = (torch.outer(axis.flatten(), frequencies) for axis in (column, row))
    return torch.cat([x.sin(), x.cos(), y.sin(), y.cos()], dim=1)


class ImageFront:
    """Reads images ``[batch channel row column]`` in -1..1; see ``mudd_interp.protocol.Front``.

    Args:
        patches: How they are cut.
        embed: From images to X_0.
    """

    traits: frozenset[Trait] = frozenset({"images"})

    def __init__(self, patches: Patches, embed: Callable[..., Any]):
        self.patches, self.embed = patches, embed

    def batch(self, given: Any) -> Images:
        """A batch of images: a tensor, or an array, of floating-point numbers.

        Raises:
            ValueError: If it is none, with what was expected and what came.
        """
        images = torch.from_numpy(given) if isinstance(given, np.ndarray) else given
        size, channels = self.patches.image_size, self.patches.n_channels
        wanted = f"images [batch {channels} {size} {size}] of floating-point numbers in -1..1"
        if not isinstance(images, Tensor):
            raise ValueError(f"expected {wanted}, got a {type(given).__name__}.")
        shape = [channels, size, size]
        if images.ndim != 4 or list(images.shape[1:]) != shape or not len(images):
            what = "numbers" if images.is_floating_point() else "token ids or pixels"
            raise ValueError(f"expected {wanted}, got {what} of shape {list(images.shape)}.")
        if not images.is_floating_point():
            raise ValueError(
                f"expected {wanted}, got {images.dtype}: bring pixels of 0..255 into that range "
                "with x / 127.5 - 1."
            )
        return images

    def one(self, given: Any) -> Images:
        """One image, with or without an axis for the batch, as a batch of one.

        Raises:
            ValueError: If it is anything else.
        """
        batch = self.batch(given[None] if getattr(given, "ndim", 0) == 3 else given)
        if len(batch) != 1:
            raise ValueError(f"expected one image, got {len(batch)}: run them one by one.")
        return batch

    def example(self) -> Images:
        """An image whose numbers rise evenly from -1 to 1, by channel, row and column."""
        size, channels = self.patches.image_size, self.patches.n_channels
        return torch.linspace(-1, 1, channels * size**2).view(1, channels, size, size)

    def refuse_padding(self, batch: Images) -> None:
        """Every patch of an image counts."""

    @property
    def n_prefix(self) -> int:
        """How many positions, such as a class token, stand before the patches."""
        return self.patches.n_prefix

    @property
    def side(self) -> int:
        """How many patches stand beside each other, and how many below each other."""
        return self.patches.side

    def pixels(self, batch: Images) -> Float[Tensor, "batch pos channel pixel"]:
        """The pixels of each patch, row by row."""
        return in_patches(self.patches, batch).unflatten(2, (self.patches.n_channels, -1))

    def positions(self, batch: Images) -> int:  # noqa: ARG002 (a front's)
        """How many positions each image has: its patches, and what stands before them."""
        return self.patches.n_positions

    def labels(self, row: Float[Tensor, "channel row column"]) -> tuple[str, ...]:  # noqa: ARG002 (a front's)
        """The row and the column of each patch, from 0: ``"2,5"``; ``"class"`` before them."""
        side = range(self.patches.side)
        prefix = ("class", *(f"extra {n}" for n in range(1, self.patches.n_prefix)))
        patches = (f"{row},{column}" for row in side for column in side)
        return (*prefix[: self.patches.n_prefix], *patches)

    def ids(self, row: Float[Tensor, "channel row column"]) -> Int64[Tensor, " pos"]:
        """The numbers of the positions."""
        return torch.arange(self.patches.n_positions, device=row.device)

    def contents(self, batch: Images) -> Sequence[bytes]:
        """The numbers of each image as float32, four bytes each, the lowest first."""
        return [row.tobytes() for row in batch.detach().float().cpu().numpy().astype("<f4")]
