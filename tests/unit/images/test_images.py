"""Images from files: what comes out by hand, and what is refused in one sentence."""

import gzip
import json
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from mudd_interp.images import ImageSet, bundled_images, read_images, read_split
from mudd_interp.images.build import first_of_each_class
from mudd_interp.images.folders import FASHION_CLASSES
from mudd_interp.images.image_set import MOST_BYTES
from mudd_interp.images.pictures import MOST_PIXELS

GREY = np.arange(2 * 4 * 5, dtype=np.uint8).reshape(2, 4, 5)
LABELS = np.array([3, 1])


def idx(numbers: np.ndarray) -> bytes:
    """The bytes of an idx file."""
    return (
        bytes([0, 0, 8, numbers.ndim])
        + struct.pack(f">{numbers.ndim}I", *numbers.shape)
        + numbers.astype(np.uint8).tobytes()
    )


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("end", ["", ".gz"])
@pytest.mark.parametrize("beside", [None, "", ".gz"])
def test_idx_files_packed_or_not_with_and_without_labels(end, beside, tmp_path):
    pack = {"": bytes, ".gz": gzip.compress}
    path = written(tmp_path / f"t10k-images-idx3-ubyte{end}", pack[end](idx(GREY)))
    if beside is not None:
        written(tmp_path / f"t10k-labels-idx1-ubyte{beside}", pack[beside](idx(LABELS)))
    found = read_images(path)
    assert np.array_equal(found.pixels, GREY[..., None])
    assert (found.labels is None) == (beside is None)
    if found.labels is not None:
        assert found.labels.tolist() == [3, 1]
    assert found.source == path.name


def test_labels_of_another_name_are_found_beside(tmp_path):
    written(tmp_path / "train-labels.idx1-ubyte", idx(LABELS))
    found = read_images(written(tmp_path / "train-images.idx3-ubyte", idx(GREY)))
    assert found.labels is not None


@pytest.mark.parametrize("pixels", [GREY, np.repeat(GREY[..., None], 3, 3)])
def test_arrays_with_labels_and_names(pixels, tmp_path):
    names = ["a", "b", "c", "d"]
    np.savez(tmp_path / "i.npz", images=pixels, labels=LABELS, class_names=names, other=np.ones(1))
    arrays = {"images": pixels, "labels": LABELS.astype(np.uint8)}
    save_file(arrays, tmp_path / "i.safetensors", {"class_names": json.dumps(names)})
    np.savez_compressed(tmp_path / "packed.npz", images=np.asfortranarray(pixels), labels=LABELS)
    sets = [read_images(tmp_path / name) for name in ("i.npz", "i.safetensors", "packed.npz")]
    for found in sets:
        assert np.array_equal(found.pixels, pixels if pixels.ndim == 4 else pixels[..., None])
        assert found.labels is not None
        assert found.labels.tolist() == [3, 1]
        assert found.labels.dtype == np.int64
    assert [found.class_names for found in sets] == [tuple(names), tuple(names), None]
    assert len({found.digest for found in sets}) == 1


def picture(path: Path, mode: str = "L", size: tuple[int, int] = (5, 4), **options) -> Path:
    channels = {"L": 1, "RGB": 3, "RGBA": 4, "LA": 2, "CMYK": 4}[mode]
    values = np.random.default_rng(0).integers(0, 256, (size[1], size[0], channels))
    image = Image.fromarray(values.astype(np.uint8).squeeze(), mode=None)
    image.save(path, **options)
    return path


def test_one_picture_and_a_folder_of_them(tmp_path):
    first = picture(tmp_path / "b.png")
    single = read_images(first)
    assert single.pixels.shape == (1, 4, 5, 1)
    assert np.array_equal(single.pixels[0, :, :, 0], np.asarray(Image.open(first)))
    Image.fromarray(GREY[0]).save(tmp_path / "a.PNG")
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / ".hidden.png").write_bytes(b"no picture")
    both = read_images(tmp_path)
    assert np.array_equal(both.pixels[0, :, :, 0], GREY[0])  # by name
    assert np.array_equal(both.pixels[1], single.pixels[0])
    assert both.labels is None


def test_a_folder_for_each_class(tmp_path):
    for name, count in (("shoe", 2), ("bag", 1)):
        (tmp_path / name).mkdir()
        for number in range(count):
            picture(tmp_path / name / f"{number}.png", "RGB")
    found = read_images(tmp_path)
    assert found.class_names == ("bag", "shoe")
    assert found.labels is not None
    assert found.labels.tolist() == [0, 1, 1]
    assert found.pixels.shape == (3, 4, 5, 3)


def test_what_a_camera_says_about_up_is_followed(tmp_path):
    pixels = np.zeros((2, 3), np.uint8)
    pixels[0] = 255  # the upper row
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    found = read_images(tmp_path / "turned.png").pixels
    assert np.array_equal(found[0, :, :, 0], np.array([[0, 255]] * 3))


def test_alpha_that_says_nothing_is_dropped(tmp_path):
    pixels = np.full((2, 2, 4), 255, np.uint8)
    pixels[0, 0] = 1, 2, 3, 255
    Image.fromarray(pixels).save(tmp_path / "i.png")
    assert read_images(tmp_path / "i.png").pixels[0, 0, 0].tolist() == [1, 2, 3]


def test_model_input_by_hand():
    pixels = np.array([[[[0, 255, 51]]]], np.uint8)
    images = ImageSet(pixels, None, None, "it")
    (given,) = images.model_input(1, 3)
    assert given.flatten().tolist() == pytest.approx([-1, 1, -0.6])
    assert given.shape == (3, 1, 1)
    assert given.dtype == torch.float32


def test_fitted_takes_the_square_in_the_middle():
    pixels = np.zeros((1, 2, 6, 1), np.uint8)
    pixels[0, :, 2:4] = 200
    images = ImageSet(pixels, np.array([0]), ("a",), "it")
    fitted = images.fitted(4, 3)
    assert fitted.pixels.shape == (1, 4, 4, 3)
    assert (fitted.pixels == 200).all()
    assert fitted.source == "it, resized to 4 × 4 × 3"
    assert fitted.fitted(4, 3) is fitted
    with pytest.raises(ValueError, match=r"2 × 6 × 1, the model reads 4 × 4 × 3"):
        images.model_input(4, 3)


def test_rgb_becomes_grey_by_brightness():
    pixels = np.array([[[[255, 0, 0]]], [[[0, 255, 0]]]], np.uint8)
    grey = ImageSet(pixels, None, None, "it").fitted(1, 1).pixels.flatten()
    assert grey.tolist() == [76, 150]  # 0.299 and 0.587 of 255


def test_pictures_of_several_sizes_are_read_where_they_are_to_be_resized(tmp_path):
    picture(tmp_path / "a.png")
    picture(tmp_path / "b.png", "RGB", (9, 9))
    with pytest.raises(ValueError, match=r"several sizes \(a\.png: 4 × 5 × 1, b\.png: 9 × 9 × 3"):
        read_images(tmp_path)
    assert read_images(tmp_path, fitted=(6, 1)).pixels.shape == (2, 6, 6, 1)


def test_the_digest_is_of_shape_and_pixels():
    one = ImageSet(np.zeros((2, 2, 3, 1), np.uint8), None, None, "it")
    turned = ImageSet(np.zeros((2, 3, 2, 1), np.uint8), None, None, "it")
    lighter = ImageSet(np.ones((2, 2, 3, 1), np.uint8), None, None, "it")
    assert len({each.digest for each in (one, turned, lighter)}) == 3


def test_the_bundled_images():
    found = bundled_images()
    assert found.pixels.shape == (200, 28, 28, 1)
    assert found.class_names == FASHION_CLASSES
    assert found.labels is not None
    assert np.bincount(found.labels).tolist() == [20] * 10
    assert len(np.unique(found.pixels.reshape(200, -1), axis=0)) == 200


def test_the_first_of_each_class_in_their_order():
    pixels = np.arange(6, dtype=np.uint8)[:, None, None, None]
    images = ImageSet(pixels, np.array([1, 1, 0, 1, 0, 0]), None, "it")
    chosen = first_of_each_class(images, 2)
    assert chosen.pixels.flatten().tolist() == [0, 1, 2, 4]


HUGE = (60_000, 3000, 3000)


def header(*shape: int) -> bytes:
    return bytes([0, 0, 8, len(shape)]) + struct.pack(f">{len(shape)}I", *shape)


REFUSED: dict[str, tuple[str, bytes]] = {
    "is no image .it is empty.": ("a", b""),
    "is no image .it begins with b'imag'": ("a.txt", b"images"),
    "is no idx file of bytes": ("a", b"\0\0\x08\x09"),
    "has 1 axes, as files of labels": ("labels", idx(LABELS)),
    "cut off within its first bytes": ("a", b"\0\0\x08\x03\0\0"),
    "cut off: it states 2 × 4 × 5 = 40 bytes, and holds 39": (
        "a.gz",
        gzip.compress(idx(GREY)[:-1]),
    ),
    "= 40 bytes, and holds more": ("a", idx(GREY) + b"\0"),
    "= 40 bytes, more than it has room": ("a", idx(GREY)[:-1]),
    "more than it has room for": ("a.gz", gzip.compress(header(*HUGE))),
    "holds no image": ("a", header(0, 28, 28)),
    "is damaged or cut off .*Compressed file ended": ("b.gz", gzip.compress(idx(GREY))[:-9]),
    "is damaged or cut off .*CRC": ("a.gz", gzip.compress(idx(GREY))[:-8] + b"\0" * 8),
    "damaged, or no PNG or JPEG": ("a.png", b"\x89PNG\r\n\x1a\n" + b"\0" * 40),
    "is damaged or cut off": ("a.npz", b"PK\x03\x04" + b"\0" * 40),
    "is damaged or cannot be read": ("a.safetensors", b"\xff" * 40),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_a_file_that_is_damaged_or_something_else_is_refused(reason, tmp_path):
    name, data = REFUSED[reason]
    with pytest.raises(ValueError, match=reason) as found:
        read_images(written(tmp_path / name, data))
    assert name in str(found.value)


def test_more_than_is_read_is_refused_before_it_is(tmp_path):
    path = tmp_path / "images"
    with path.open("wb") as file:  # a file with a hole: nothing is written
        file.write(header(MOST_BYTES, 1, 2))
        file.truncate(12 + 4 + 2 * MOST_BYTES)
    with pytest.raises(ValueError, match="at most 536,870,912 are read, so cut it first"):
        read_images(path)


def png(width: int, height: int) -> bytes:
    """A PNG that only states a size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunk = struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))
    empty = struct.pack(">I", 0) + b"IEND" + struct.pack(">I", zlib.crc32(b"IEND"))
    data = b"IDAT" + zlib.compress(b"")
    inner = struct.pack(">I", len(data) - 4) + data + struct.pack(">I", zlib.crc32(data))
    return b"\x89PNG\r\n\x1a\n" + chunk + inner + empty


@pytest.mark.parametrize("side", [2**13 + 1, 2**31 - 1])
def test_a_picture_that_states_a_huge_size_is_refused_before_it_is_unpacked(side, tmp_path):
    assert side**2 > MOST_PIXELS
    with pytest.raises(ValueError, match=r"expected at most 67,108,864|damaged, or no PNG"):
        read_images(written(tmp_path / "a.png", png(side, side)))


@pytest.mark.parametrize(("mode", "name"), [("RGBA", "a.png"), ("LA", "a.png"), ("CMYK", "a.jpg")])
def test_other_kinds_of_pictures_are_refused(mode, name, tmp_path):
    if mode == "CMYK":
        Image.new("CMYK", (4, 4)).save(tmp_path / name)
    else:
        picture(tmp_path / name, mode)
    with pytest.raises(ValueError, match=f"is {mode}.*expected a grey or RGB"):
        read_images(tmp_path / name)


def test_sixteen_bits_and_a_cut_off_jpeg_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.uint16)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is I;16"):
        read_images(tmp_path / "a.png")
    data = picture(tmp_path / "a.jpg", "RGB", (64, 64)).read_bytes()
    with pytest.raises(ValueError, match="is damaged, or no PNG or JPEG"):
        read_images(written(tmp_path / "a.jpg", data[: len(data) // 2]))


ARRAYS = {
    "has no array `images`": {"pictures": GREY},
    "must be bytes .uint8.* got float64": {"images": GREY / 2},
    "must be bytes .uint8.* shape .4, 5.": {"images": GREY[0]},
    "has 2 channels": {"images": np.zeros((1, 2, 2, 2), np.uint8)},
    "2 images and 3 labels": {"images": GREY, "labels": np.arange(3)},
    "labels from -1": {"images": GREY, "labels": np.array([-1, 0])},
    "`labels` must be whole numbers": {"images": GREY, "labels": np.ones(2)},
    "holds no image": {"images": GREY[:0]},
}


@pytest.mark.parametrize("reason", ARRAYS)
@pytest.mark.parametrize("end", ["npz", "safetensors"])
def test_arrays_that_are_no_images_are_refused(reason, end, tmp_path):
    path = tmp_path / f"i.{end}"
    if end == "npz":
        np.savez(path, allow_pickle=False, **ARRAYS[reason])
    else:
        save_file(ARRAYS[reason], path)
    with pytest.raises(ValueError, match=reason) as found:
        read_images(path)
    assert path.name in str(found.value)


def test_names_that_do_not_fit_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=GREY, labels=LABELS, class_names=["a"])
    with pytest.raises(ValueError, match=r"labels from 1 to 3: expected 0 or more below 1"):
        read_images(tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", images=GREY, class_names=[1])
    with pytest.raises(ValueError, match="class_names must be a list of strings"):
        read_images(tmp_path / "b.npz")


def test_objects_in_an_archive_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.array([[[{}]]], dtype=object))
    with pytest.raises(ValueError, match="holds objects"):
        read_images(tmp_path / "a.npz")


def test_an_array_that_states_more_than_it_holds_is_refused(tmp_path):
    np.savez(tmp_path / "a.npz", images=np.zeros((9, 4, 5), np.uint8))
    data = (tmp_path / "a.npz").read_bytes()
    forged = data.replace(b"(9, 4, 5)", b"(9,14,15)")
    assert forged != data
    with pytest.raises(ValueError, match=r"a\.npz"):
        read_images(written(tmp_path / "a.npz", forged))


@pytest.mark.parametrize("place", ["missing", "empty"])
def test_nothing_is_refused_with_what_was_expected(place, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"expected .*(folders of them|folder of PNGs)"):
        read_images(tmp_path / place)


def split_folder(folder: Path, train: np.ndarray, test: np.ndarray) -> Path:
    for name, pixels in (("train", train), ("t10k", test)):
        written(folder / f"{name}-images-idx3-ubyte", idx(pixels))
        written(folder / f"{name}-labels-idx1-ubyte.gz", gzip.compress(idx(LABELS)))
    return folder


def test_a_folder_of_four_files(tmp_path):
    split = read_split(split_folder(tmp_path, GREY, GREY[:, ::-1]))
    assert split.n_classes == 4
    assert split.test.class_names is None
    assert np.array_equal(split.test.pixels[..., 0], GREY[:, ::-1])
    (tmp_path / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(ValueError, match="no t10k-labels-idx1-ubyte beside"):
        read_split(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").unlink()
    with pytest.raises(ValueError, match=r"no train-images-idx3-ubyte\.gz in .*--data"):
        read_split(tmp_path)


def test_parts_of_different_data_are_refused(tmp_path):
    with pytest.raises(ValueError, match="of different data"):
        read_split(split_folder(tmp_path, GREY, GREY[:, :3]))
