"""The model card of the bundled vision pair, and the notice of its images."""

from collections.abc import Mapping, Sequence
from typing import Any

CARD = """
# mudd-vit-tiny and vit-tiny

Two small Vision Transformers that tell clothes apart, trained from scratch by this project on
Fashion-MNIST with one recipe. They are for interpretability: to compare MUDDViT with its plain
twin. Nobody should sort clothes by them.

| | mudd-vit-tiny | vit-tiny |
|---|---|---|
| connections | multiway dynamic dense, PrePostDANorm ("residual") | plain residual |
| blocks × width × heads | {shape} | {shape} |
| FFN (GELU) width | {d_mlp} | {d_mlp} |
| patches | {patches} | {patches} |
| parameters | {mudd_parameters:,} | {plain_parameters:,} |
| test loss, nats per image ({n_seeds} seeds: mean) | {mudd_loss:.4f} | {plain_loss:.4f} |
| test accuracy ({n_seeds} seeds: mean) | {mudd_accuracy:.2f} % | {plain_accuracy:.2f} % |
| each seed: accuracy | {mudd_each} | {plain_each} |

Differences on the {n_test:,} test images (mudd-vit-tiny minus vit-tiny), 95 % intervals:

| | difference | test images drawn anew (bootstrap) | over seeds (Student's t, paired) |
|---|---|---|---|
| loss, nats per image | {loss_mean:+.4f} | {loss_images} | {loss_seeds}, p = {loss_p:.2g} |
| accuracy, points | {accuracy_mean:+.2f} | {accuracy_images} | {accuracy_seeds}, p = \
{accuracy_p:.2g} |

The first interval takes the {n_seeds} seeds as they are, the second the test images. Both can be
made again from `vit-images.csv.gz`: the loss and the class of each test image, for each model and
seed; `vit-card.json` has these numbers in full.

## Recipe

{n_train:,} of the training images, {steps:,} steps of {batch} (epochs: {epochs:g}). Each image is
moved by up to {shift} pixels and mirrored half of the time. AdamW (betas {betas}), weight decay of
{weight_decay} times the learning rate on kernels only (as in big_vision), gradient clipped at
{clip}, learning rate {peak_lr} after {warmup:.0%} warm-up and down a cosine to 0, {precision}, no
dropout and no label smoothing. The two see the same images in the same order with the same changes,
and start from the same weights wherever they have the same parameters; so they start as the same
function.

The rate is the best of a trial with {trial_steps} steps, by the mean of both models' losses on
{held_out:,} training images that nothing learns from ({tried}). The test images decided nothing.
The logs of the stored models are in `mudd-vit-tiny.log.csv` and `vit-tiny.log.csv`; `mudd-interp
train vit-pair --epochs {epochs:g} --out runs` makes all of them again.

The weights are those of seed {stored_seed}, the first, in half precision, which moves the test
losses by {mudd_shift:+.5f} and {plain_shift:+.5f} nats per image; run in float32 their accuracies
are {mudd_stored:.2f} and {plain_stored:.2f} %.

The recipe is much shorter than the paper's for ImageNet (300 epochs, RandAugment, Mixup, dropout),
and the data are smaller: the numbers say nothing about Tables 6 and 7.
"""

IMAGES = """
# images.safetensors

200 test images of Fashion-MNIST (Han Xiao, Kashif Rasul, Roland Vollgraf, 2017), 28 × 28 and grey:
the first 20 of each of the ten classes, in the order of the test set, unchanged. `images` holds
bytes `[image row column channel]`, `labels` the classes, the metadata `class_names` their names.

Fashion-MNIST is under the MIT licence:

> Copyright © 2017 Zalando SE, https://tech.zalando.com
>
> Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
> associated documentation files (the "Software"), to deal in the Software without restriction,
> including without limitation the rights to use, copy, modify, merge, publish, distribute,
> sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
> furnished to do so, subject to the following conditions:
>
> The above copyright notice and this permission notice shall be included in all copies or
> substantial portions of the Software.
>
> THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING
> BUT NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
> NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
> DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM,
> OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def vision_card(facts: Mapping[str, Any]) -> str:
    """The card as Markdown, from what ``experiments.vision.bundle`` measured."""
    recipe, scores, stored = facts["recipe"], facts["scores"], facts["stored"]
    mudd, plain = stored["mudd-vit-tiny"], stored["vit-tiny"]
    cfg, front = plain["config"], plain["config"]["front"]
    side = front["image_size"] // front["patch_size"]
    loss, accuracy = (_score(scores[name], scale) for name, scale in _SCALES.items())
    return CARD.format(
        shape=f"{cfg['n_layers']} × {cfg['d_model']} × {cfg['n_heads']}",
        d_mlp=cfg["d_mlp"] if isinstance(cfg["d_mlp"], int) else cfg["d_mlp"][0],
        patches=f"{side} × {side} of {front['patch_size']} × {front['patch_size']} pixels",
        mudd_parameters=facts["parameters"]["mudd-vit-tiny"],
        plain_parameters=facts["parameters"]["vit-tiny"],
        n_seeds=len(facts["seeds"]),
        **{f"loss_{name}": value for name, value in loss.items()},
        **{f"accuracy_{name}": value for name, value in accuracy.items()},
        mudd_loss=_mean(scores["loss"]["models"]["mudd-vit-tiny"]),
        plain_loss=_mean(scores["loss"]["models"]["vit-tiny"]),
        mudd_accuracy=100 * _mean(scores["accuracy"]["models"]["mudd-vit-tiny"]),
        plain_accuracy=100 * _mean(scores["accuracy"]["models"]["vit-tiny"]),
        mudd_each=_percent(scores["accuracy"]["models"]["mudd-vit-tiny"]),
        plain_each=_percent(scores["accuracy"]["models"]["vit-tiny"]),
        n_test=facts["images"]["test"],
        n_train=facts["images"]["train"],
        held_out=facts["images"]["held_out"],
        epochs=facts["epochs"],
        shift=facts["augmentation"]["shift"],
        **{name: recipe[name] for name in _FROM_RECIPE},
        betas=" and ".join(map(str, recipe["betas"])),
        precision="products in bfloat16" if facts["bfloat16"] else "float32",
        trial_steps=facts["trial"]["steps"],
        tried=_tried(facts["trial"]["held_out_loss"]),
        stored_seed=mudd["seed"],
        mudd_shift=mudd["loss"] - mudd["loss_before_storage"],
        plain_shift=plain["loss"] - plain["loss_before_storage"],
        mudd_stored=100 * mudd["accuracy"],
        plain_stored=100 * plain["accuracy"],
    )


_FROM_RECIPE = ("steps", "batch", "weight_decay", "clip", "peak_lr", "warmup")
_SCALES = {"loss": 1, "accuracy": 100}


def _score(score: Mapping[str, Any], scale: int) -> dict[str, Any]:
    difference, digits = score["difference"], 4 if scale == 1 else 2
    ends = {name: [scale * end for end in difference[name]] for name in ("images", "seeds")}
    spans = {name: f"{low:+.{digits}f} to {high:+.{digits}f}" for name, (low, high) in ends.items()}
    return {"mean": scale * difference["mean"], "p": difference["p"], **spans}


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def _percent(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * value:.2f} %" for value in values)


def _tried(trial: Mapping[str, Mapping[str, float | None]]) -> str:
    """Each rate and its mean loss, as it is spelled in the card."""
    words: list[str] = []
    for rate, losses in trial.items():
        found = [loss for loss in losses.values() if loss is not None]
        mean = f"{_mean(found):.4f}" if len(found) == len(losses) else "diverged"
        words.append(f"{rate}: {mean}")
    return ", ".join(words) if words else "none was made: the rate was given"
