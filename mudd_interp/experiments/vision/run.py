"""The verb ``train vit-pair``: every run of the plan, each in a folder of its own."""

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float64, Int64
from torch import nn

from mudd_interp.config import ModelConfig
from mudd_interp.experiments.run import (
    How,
    check_place,
    complete,
    or_infinite,
    read_record,
    run_stages,
)
from mudd_interp.experiments.vision.plan import HELD_OUT, PairScale, VisionRun, config, pair_plan
from mudd_interp.files import place_of
from mudd_interp.images import ImageSet, Split, model_input, read_split
from mudd_interp.model import HookedViT
from mudd_interp.training.image_examples import ImageExamples
from mudd_interp.training.schedule import kernel_decays
from mudd_interp.training.trainer import DivergedError, Schedule, Trainer


@dataclass(frozen=True, kw_only=True)
class VisionResult:
    """What is kept of a run, beside its log and its weights.

    Attributes:
        run: What was trained.
        loss: On the images held out for choosing a rate, in nats; ``None`` if training diverged.
        test_losses: Of each test image, in nats; empty for a trial.
        test_predicted: The class that each test image is taken for; empty for a trial.
        parameters: All parameters of the model.
        images: How many the run could learn from.
        digests: Of the pixels to learn from, held-out ones included, and of those of the test set.
        device: On which it was trained.
        bfloat16: Whether matrix products were in bfloat16.
        torch: Version of torch.
    """

    run: VisionRun
    loss: float | None
    test_losses: tuple[float, ...]
    test_predicted: tuple[int, ...]
    parameters: int
    images: int
    digests: tuple[str, str]
    device: str
    bfloat16: bool
    torch: str


def run_pair(
    out_dir: str | os.PathLike[str], how: How, scale: PairScale | None = None, jobs: int = 1
) -> list[VisionRun]:
    """Train and test all runs of the pair that are not there yet; interrupted ones go on.

    Args:
        out_dir: Where each run gets a folder with ``log.csv``, ``model`` and, when it is complete,
            ``result.json``.
        how: Where and how; ``data`` is a folder of four idx files.
        scale: What to change of the plan.
        jobs: Runs at once, each in a process of its own if there are several.

    Returns:
        The runs in their order.

    Raises:
        ValueError: If the images cannot be read or do not fit, there is no such device, a folder
            cannot be written or another process is at work there, or a run cannot continue.
    """
    place, split = place_of(out_dir), read_split(how.data)
    config("vit-tiny", split)
    check_place(place, how)
    n_images = len(learnt_from(split)[0])
    stages = pair_plan(n_images, scale or PairScale(), partial(held_out_loss, place=place))
    return run_stages(stages, partial(train_run, place=place, how=how), jobs)


def learnt_from(split: Split) -> tuple[ImageSet, ImageSet]:
    """The training images, but the last 2,000 (at most a tenth); and these."""
    count = len(split.train)
    held = min(HELD_OUT, count // 10)
    train, rest = np.split(np.arange(count), [count - held])
    return split.train.chosen(train), split.train.chosen(rest)


def train_run(run: VisionRun, place: Path, how: How) -> None:
    """Train one run and test it, unless that was done."""
    complete(place / run.name, partial(_train, run=run, how=how))


def _train(folder: Path, run: VisionRun, how: How) -> tuple[nn.Module | None, VisionResult]:
    if how.threads is not None:
        torch.set_num_threads(how.threads)
    torch.compiler.reset()  # or the models of earlier runs count against the limit of recompiling
    split = read_split(how.data)
    train, held_out = learnt_from(split)
    model = fresh_vit(config(run.model, split), run.seed).to(how.device)
    trainer = Trainer(
        model,
        run.recipe,
        ImageExamples(run.recipe, train, held_out),
        folder,
        schedule=Schedule(
            log=50, validate=run.steps if run.trial else max(1, run.steps // 8), save=400
        ),
        compiled=how.compiled,
        bfloat16=how.bfloat16,
        decayed=kernel_decays,
    )
    nothing = VisionResult(
        run=run,
        loss=None,
        test_losses=(),
        test_predicted=(),
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        images=len(train),
        digests=(split.train.digest, split.test.digest),
        device=how.device,
        bfloat16=how.bfloat16,
        torch=torch.__version__,
    )
    try:
        trainer.run()
    except DivergedError:
        return None, nothing
    model.to("cpu")
    return model, _measured(nothing, model, held_out, split.test)


def fresh_vit(cfg: ModelConfig, seed: int) -> HookedViT:
    """A model with the weights of its seed, which gives a plain twin the same backbone.

    The map of patches has a variance of one over its inputs, as in flax and so in big_vision: else
    positions, which have an amplitude of one, drown what an image shows.
    """
    torch.manual_seed(seed)
    model = HookedViT(cfg)
    own = torch.Generator().manual_seed(seed)
    nn.init.normal_(model.embed.W_E, std=len(model.embed.W_E) ** -0.5, generator=own)
    return model


def _measured(
    found: VisionResult, model: nn.Module, held_out: ImageSet, test: ImageSet
) -> VisionResult:
    """A result with what the model does, on the CPU and in float32 everywhere."""
    found = replace(found, loss=float(class_losses(model, held_out)[0].mean()))
    if found.run.trial:
        return found
    losses, predicted = class_losses(model, test)
    return replace(
        found, test_losses=tuple(losses.tolist()), test_predicted=tuple(predicted.tolist())
    )


@torch.no_grad()
def class_losses(
    model: Callable[..., Any], images: ImageSet, batch: int = 250
) -> tuple[Float64[np.ndarray, " image"], Int64[np.ndarray, " image"]]:
    """The loss of each image in nats, and the class that a model takes it for.

    Args:
        model: In evaluation mode.
        images: With labels.
        batch: Images per forward pass.
    """
    assert images.labels is not None
    targets = torch.from_numpy(images.labels).split(batch)
    losses, predicted = [], []
    for given, target in zip(model_input(images.pixels).split(batch), targets, strict=True):
        logits = model(given, return_type="logits").float()
        losses.append(F.cross_entropy(logits, target, reduction="none").double())
        predicted.append(logits.argmax(-1))
    return torch.cat(losses).numpy(), torch.cat(predicted).numpy()


def read_result(folder: Path) -> VisionResult:
    """What a complete run left.

    Raises:
        ValueError: If it is not there, or not as it was written.
    """
    return read_record(folder, VisionResult)


def held_out_loss(run: VisionRun, place: Path) -> float:
    """The loss of a complete run on the held-out images, in nats; infinite if it diverged."""
    return or_infinite(read_result(place / run.name).loss)
