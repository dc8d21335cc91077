"""A request -> the images that a model sees: all of them as batches, one of them by its number."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from jaxtyping import Float32
from torch import Tensor

from mudd_interp.config import Patches
from mudd_interp.data import Batches, take
from mudd_interp.documents import text_files_of
from mudd_interp.files import known_sha256
from mudd_interp.images import BUNDLED_IMAGES, ImageSet, bundled_images, read_images
from mudd_interp.protocol import HookedModel, require_traits
from mudd_interp.request import Request

OF_TEXT = ("text", "dataset", "prompt", "prompt_ids", "corrupted", "context")
"""Values of a request that mean nothing to a model of images."""


def reads_images(model: HookedModel) -> bool:
    """Whether a model reads images, and not text."""
    return "images" in model.traits


def image_set_of(request: Request, model: HookedModel) -> ImageSet:
    """The images of a request, at the size that one of its models reads.

    Raises:
        ValueError: If the request names a text, the model reads no images, or the images cannot be
            read or are of another size.
    """
    require_traits(model, "a set of images", ["images"])
    for name in OF_TEXT:
        if getattr(request, name) is not None:
            raise ValueError(
                f"{name} is for models that read text, and {model.info.name} reads images: leave "
                "it out, and give images instead."
            )
    patches = patches_of(model)
    size = patches.image_size, patches.n_channels
    found = _read(request.images, size if request.resize else None, _files_digest(request))
    found.chosen([0]).model_input(*size)  # which refuses another size; all are of one
    return found


def without_text(request: Request) -> Request:
    """The request without what means nothing to a model of images."""
    return replace(request, **dict.fromkeys(OF_TEXT))


def patches_of(model: Any) -> Patches:
    """How a model cuts its images."""
    return model.front.patches


def image_batches_of(request: Request, model: HookedModel) -> Batches:
    """Batches of the images ``[batch channel row column]`` in -1..1; errors as for the set."""
    found, patches = image_set_of(request, model), patches_of(model)

    def source() -> Iterator[Any]:
        for start in range(0, len(found), request.batch_size):
            indices = range(start, min(start + request.batch_size, len(found)))
            yield found.chosen(list(indices)).model_input(patches.image_size, patches.n_channels)

    batches = Batches(source, found.source, len(found))
    return batches if request.sequences is None else take(batches, request.sequences)


def image_of(
    request: Request, model: HookedModel
) -> tuple[Float32[Tensor, "1 channel row column"], ImageSet]:
    """The image that a request looks at closely, as a model reads it, and as a set of one.

    Raises:
        ValueError: As for the set, and if there is no image of that number.
    """
    found, patches = image_set_of(request, model), patches_of(model)
    if request.image >= len(found):
        raise ValueError(f"image must lie in 0..{len(found) - 1}, got {request.image}.")
    one = found.chosen([request.image])
    return one.model_input(patches.image_size, patches.n_channels), one


def image_name(request: Request, model: HookedModel) -> str:
    """What that image is, in words."""
    return f"image {request.image} of {image_set_of(request, model).source}"


def image_files(request: Request) -> dict[str, str]:
    """The files of images that a request reads, each with its sha256; none for the bundled ones."""
    if request.images is None:
        return {}
    path = Path(request.images).expanduser()
    files = text_files_of(path).files if path.is_dir() else (path,)
    return {str(each): known_sha256(each) for each in files if each.is_file()}


def _files_digest(request: Request) -> tuple[tuple[str, str], ...]:
    if request.images is None:
        return ((BUNDLED_IMAGES.name, known_sha256(BUNDLED_IMAGES)),)
    return tuple(sorted(image_files(request).items()))


@lru_cache(maxsize=4)
def _read(
    place: str | None,
    fitted: tuple[int, int] | None,
    _digests: tuple[tuple[str, str], ...],  # read anew when a file has changed
) -> ImageSet:
    if place is None:
        return bundled_images() if fitted is None else bundled_images().fitted(*fitted)
    return read_images(place, fitted)
