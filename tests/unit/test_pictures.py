"""Images in the place of a text: what a study makes of them, and what it refuses."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import mudd_interp as mi
from mudd_interp.catalog import find, shell_command
from mudd_interp.catalog.weights import edge_place
from mudd_interp.checkpoints import save_model
from mudd_interp.config import TokenInput
from mudd_interp.figures import draw_figures, read_manifest, write_figures
from mudd_interp.images import bundled_images
from mudd_interp.model import HookedViT
from mudd_interp.model.wirings import MUDD, Plain
from mudd_interp.request import Request
from mudd_interp.study import Study
from tests.bundled import load
from tests.parity.family import SEEN, perturbed
from tests.unit.command import run

OF_FASHION: dict[str, Any] = {
    **SEEN,
    "d_vocab": 10,
    "n_ctx": 49,
    "front": mi.Patches(image_size=28, patch_size=4, n_channels=1),
    "task": mi.Classes(names=tuple("abcdefghij")),
}


def vit(wiring: Any = None) -> HookedViT:
    """A little model of the bundled images, with random weights."""
    torch.manual_seed(0)
    cfg = mi.ModelConfig(**OF_FASHION, wiring=wiring or MUDD())
    return perturbed(HookedViT(cfg, mi.ModelInfo("random ViT")))


def study(**values: Any) -> Study:
    models: dict[str, Any] = {"one": vit(), "two": vit(Plain()), "text": load("tfm-tiny")}
    given: dict[str, Any] = {"model": "one", "baseline": "two", "sequences": 5, **values}
    return Study(Request(**given), lambda name, **_: models[name])


def test_the_corpus_is_the_images_and_the_prompt_one_of_them():
    found, images = study(image=3, batch_size=2), bundled_images()
    batches = list(found.batches("model"))
    assert [len(batch) for batch in batches] == [2, 2, 1]
    wanted = torch.from_numpy(images.pixels[:5, :, :, 0]).float() / 127.5 - 1
    torch.testing.assert_close(torch.cat(batches)[:, 0], wanted, rtol=0, atol=0)
    torch.testing.assert_close(found.prompt("model")[0, 0], wanted[3], rtol=0, atol=0)
    assert found.prompt_name("model") == f"image 3 of {images.source}"
    assert found.picture("model").label_of(0) == images.label_of(3)
    assert found.token_texts("model")[8] == "1,1"
    assert found.position("model") == 24  # row 3 of 0..6, column 3
    assert study(position=5).position("model") == 5


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"prompt": "x = 1"}, "prompt is for models that read text, and random ViT reads images"),
        ({"text": "README.md"}, "text is for models that read text"),
        ({"context": 20}, "context is for models that read text"),
        ({"image": 200}, r"image must lie in 0\.\.199, got 200"),
        ({"images": "no/such/place"}, "cannot read no/such/place"),
        ({"baseline": "text"}, "random ViT reads images and tfm-tiny reads text"),
        ({"model": "text", "baseline": None, "images": "x.png"}, "images are for models that read"),
        ({"position": 49}, r"position must lie in 0\.\.48 of this image, got 49"),
    ],
)
def test_what_does_not_go_together_is_refused(values: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        study(**values).position("model")  # which reads the prompt


def test_images_of_another_size_are_resized_only_when_asked(tmp_path: Path):
    pixels = np.arange(40 * 60 * 3, dtype=np.uint8).reshape(40, 60, 3)
    Image.fromarray(pixels).save(tmp_path / "one.png")
    where = {"images": str(tmp_path / "one.png")}
    with pytest.raises(ValueError, match=r"40 × 60 × 3, the model reads 28 × 28 × 1"):
        study(**where).prompt("model")
    assert study(**where, resize=True).prompt("model").shape == (1, 1, 28, 28)


def test_a_file_that_changes_is_read_anew(tmp_path: Path):
    path = tmp_path / "one.png"
    for brightness in (0, 255):
        Image.fromarray(np.full((28, 28), brightness, np.uint8)).save(path)
        found = study(images=str(path)).prompt("model")
        assert float(found.mean()) == (-1 if brightness == 0 else 1)


def test_figures_of_images_are_written_with_the_files_that_they_are_of(tmp_path: Path):
    Image.fromarray(np.full((28, 28), 7, np.uint8)).save(tmp_path / "one.png")
    made = study(images=str(tmp_path / "one.png"))
    drawn = draw_figures(made, [find("layer_similarity"), find("attention_maps")])
    write_figures(made, drawn, tmp_path / "out", ("layer_similarity", "attention_maps"))
    manifest = read_manifest(tmp_path / "out" / "manifest.json")
    assert list(manifest.texts) == [str(tmp_path / "one.png")]
    assert manifest.provenance["model"].reads == "images"
    assert "49 patches in 1 image " in drawn[find("layer_similarity")].figure.to_json()
    command = shell_command(find("attention_maps"), made.request)
    assert f"--images {tmp_path / 'one.png'}" in command


def test_a_position_sees_every_patch_and_the_table_has_them_all():
    drawn = draw_figures(study(), [find("attention_maps")])[find("attention_maps")]
    frame: Any = drawn.frame
    assert len(frame) == SEEN["n_heads"] * 49 * 49
    assert frame.groupby(["head", "query"])["weight"].sum().round(5).eq(1).all()


def test_the_command_takes_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    model = save_model(vit(), tmp_path / "model")
    given = ("--model", model, "--baseline", "none", "--sequences", 2, "--only", "layer_similarity")
    assert run("figures", *given, "--out", tmp_path / "out", monkeypatch=monkeypatch) == 0
    assert (tmp_path / "out" / "layer_similarity.html").is_file()
    text = (*given, "--prompt", "x = 1", "--out", tmp_path / "no")
    assert run("figures", *text, monkeypatch=monkeypatch) != 0
    assert "prompt is for models that read text" in " ".join(capsys.readouterr().err.split())
    assert run("inspect", model, monkeypatch=monkeypatch) == 0


def test_names_of_classes_are_its_vocabulary():
    model = vit()
    assert model.to_single_token("c") == 2
    assert model.to_single_str_token(2) == "c"
    with pytest.raises(ValueError, match="no class `z`"):
        model.to_single_token("z")
    with pytest.raises(ValueError, match=r"classes must lie in 0\.\.9"):
        model.tokens_to_residual_directions([10])


def test_logits_are_the_mean_over_patches_of_what_each_says():
    model = vit()
    images = bundled_images().model_input(28, 1)[:3]
    logits, cache = model.run_with_cache(images)
    each = model.decode_stream(cache["hook_resid_final"])
    torch.testing.assert_close(each.mean(1), logits, rtol=1e-4, atol=1e-4)
    cfg = replace(model.config, task=mi.Classes(pre_logits=True))
    with pytest.raises(NotImplementedError, match="pre_logits"):
        HookedViT(cfg).tokens_to_residual_directions(0)


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (torch.zeros(1, 5, dtype=torch.int64), r"images \[batch 1 28 28\] .* got token ids or"),
        (torch.zeros(2, 3, 28, 28), r"got numbers of shape \[2, 3, 28, 28\]"),
        (torch.zeros(2, 1, 28, 28, dtype=torch.uint8), "x / 127.5 - 1"),
        ("a text", "got a str"),
    ],
)
def test_what_is_no_image_is_refused(given: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        vit()(given)


@pytest.mark.parametrize(
    ("target", "reason"),
    [(None, "give a target"), ([1], "one class for each of 2"), ([0, 10], r"0\.\.9, got 10")],
)
def test_classes_that_do_not_fit_are_refused(target: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        vit()(torch.zeros(2, 1, 28, 28), return_type="loss", target=target)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"front": mi.Patches(image_size=28, patch_size=7, n_channels=1)}, "n_ctx must be .* 16"),
        ({"task": mi.Classes(names=("a", "b"))}, "expected d_vocab names of classes, 10, got 2"),
        ({"front": TokenInput()}, "tokens predict the next token, images have classes"),
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(values: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        mi.ModelConfig(**{**OF_FASHION, **values})
    with pytest.raises(ValueError, match="patch_size must divide"):
        mi.Patches(image_size=28, patch_size=5)
    with pytest.raises(ValueError, match="no front `pixels`"):
        mi.ModelConfig.from_dict(
            mi.ModelConfig(**OF_FASHION).to_dict() | {"front": {"kind": "pixels"}}
        )


def test_the_edge_that_is_shown_unasked_is_there():
    """Of three blocks the usual layer has no stream v; the usual source is read."""
    assert edge_place(study()) == (1, 1)
    assert edge_place(study(layer=0, source=0)) == (0, 0)
