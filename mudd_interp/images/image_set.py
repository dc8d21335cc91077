"""Images of one size, what they show, and where they come from."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
from PIL import Image
from torch import Tensor

from mudd_interp.files import sha256

MOST_BYTES = 2**29
"""The most pixels, times channels, that are read: 512 MiB."""

Pixels = UInt8[np.ndarray, "image row column channel"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images of one size.

    Attributes:
        pixels: Brightness, 0 (black) to 255; one channel is grey, three are RGB.
        labels: The class of each image, from 0; ``None`` where that is not known.
        class_names: What the classes are called; ``None`` where they have no names.
        source: What was read, in words.

    Raises:
        ValueError: If there is no image, a number of channels other than 1 or 3, or the labels
            do not belong to the images or the names.
    """

    pixels: Pixels
    labels: Int64[np.ndarray, " label"] | None
    class_names: tuple[str, ...] | None
    source: str

    def __post_init__(self) -> None:
        if not self.pixels.size:
            raise ValueError(f"{self.source} holds no image: give at least one.")
        if self.pixels.shape[3] not in (1, 3):
            raise ValueError(
                f"{self.source} has {self.pixels.shape[3]} channels: expected 1 (grey) or 3 (RGB)."
            )
        if self.labels is None:
            return
        if len(self.labels) != len(self):
            raise ValueError(
                f"{self.source} has {len(self):,} images and {len(self.labels):,} labels: expected "
                "a label for each image; one of the two belongs to other data."
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or (self.class_names is not None and high >= len(self.class_names)):
            names = "" if self.class_names is None else f" below {len(self.class_names)}"
            raise ValueError(
                f"{self.source} has labels from {low} to {high}: expected 0 or more{names}."
            )

    def __len__(self) -> int:
        """How many images there are."""
        return len(self.pixels)

    def label_of(self, index: int) -> str | None:
        """What an image shows, in a word: its class's name or number; ``None`` if not known."""
        if self.labels is None:
            return None
        label = int(self.labels[index])
        return str(label) if self.class_names is None else self.class_names[label]

    @cached_property
    def digest(self) -> str:
        """The sha256 of the pixels and their shape."""
        return sha256(repr(self.pixels.shape).encode() + self.pixels.tobytes())

    def chosen(self, indices: Sequence[int] | Int64[np.ndarray, " chosen"]) -> "ImageSet":
        """Some of the images, in the order of their indices."""
        labels = None if self.labels is None else self.labels[indices]
        return replace(self, pixels=self.pixels[indices], labels=labels)

    def fitted(self, image_size: int, n_channels: int) -> "ImageSet":
        """The images at another size: the square in the middle of each, resized (bilinear).

        RGB becomes grey by brightness (ITU-R 601), and grey RGB with three equal channels.
        """
        if self.pixels.shape[1:] == (image_size, image_size, n_channels):
            return self
        fitted = [fit(pixels, image_size, n_channels) for pixels in self.pixels]
        source = f"{self.source}, resized to {_size(fitted[0])}"
        return replace(self, pixels=np.stack(fitted), source=source)

    def model_input(
        self, image_size: int, n_channels: int
    ) -> Float32[Tensor, "batch channel row column"]:
        """What a model reads: brightness from -1 (black) to 1.

        Args:
            image_size: Rows, and columns, that the model reads.
            n_channels: Channels that it reads.

        Raises:
            ValueError: If the images have another size or other channels.
        """
        if self.pixels.shape[1:] != (image_size, image_size, n_channels):
            raise ValueError(
                f"{self.source} has images of {_size(self.pixels[0])}, the model reads "
                f"{image_size} × {image_size} × {n_channels} (rows, columns, channels): give "
                "images of that size, or ask for them to be resized."
            )
        return model_input(self.pixels)


def model_input(pixels: Pixels) -> Float32[Tensor, "batch channel row column"]:
    """Brightness from -1 (black) to 1, channels first."""
    channels_first = pixels.transpose(0, 3, 1, 2).astype(np.float32, order="C")
    return torch.from_numpy(channels_first) / 127.5 - 1


def fit(
    pixels: UInt8[np.ndarray, "row column channel"], image_size: int, n_channels: int
) -> UInt8[np.ndarray, "{image_size} {image_size} {n_channels}"]:
    """One image at another size and number of channels: see :meth:`ImageSet.fitted`."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image = image.convert("L" if n_channels == 1 else "RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    square = image.crop((left, top, left + side, top + side))
    image = square.resize((image_size, image_size), Image.Resampling.BILINEAR)
    return with_channels(np.asarray(image))


def with_channels(pixels: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "row column channel"]:
    """A picture's array, with an axis for its channels also where it is grey."""
    return pixels if pixels.ndim == 3 else pixels[..., None]


def _size(pixels: UInt8[np.ndarray, "row column channel"]) -> str:
    return " × ".join(map(str, pixels.shape))
