"""Which vision models are trained, by which recipe."""

from collections.abc import Generator, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType

from mudd_interp.config import Classes, ModelConfig, Patches, WiringConfig, wiring
from mudd_interp.experiments.plan import Losses, Stage, best_rate, try_rates
from mudd_interp.images import Split
from mudd_interp.training.schedule import Recipe

VIT_PAIR = "vit-pair"
"""The name of the experiment."""

WIRINGS: Mapping[str, WiringConfig] = MappingProxyType(
    {
        "mudd-vit-tiny": wiring("prepost", variant="residual", expand_last=True),
        "vit-tiny": wiring("plain"),
    }
)
"""The pair, wired as the presets MUDDViT-S/16 and ViT-S/16."""

EPOCHS, SEEDS, BATCH = 1, 3, 16
RATES = (1e-3, 2e-3, 4e-3)
"""The peak rates that are tried, to begin with."""
TRIAL_STEPS = 600
HELD_OUT = 2000
"""Training images that nothing learns from: rates are chosen by them, never by the test set."""


def config(model: str, split: Split) -> ModelConfig:
    """A model of the pair for some images: 12 × 64, 4 heads, patches of 4 × 4, a linear head.

    Raises:
        ValueError: If patches do not fill the images.
    """
    _, rows, columns, channels = split.train.pixels.shape
    if rows != columns:
        raise ValueError(f"expected square images, got {rows} × {columns} pixels.")
    front = Patches(image_size=rows, patch_size=4, n_channels=channels)
    return ModelConfig(
        n_layers=12,
        d_model=64,
        n_heads=4,
        d_mlp=256,
        d_vocab=split.n_classes,
        n_ctx=front.n_patches,
        normalization_type="LN",
        gated_mlp=False,
        act_fn="gelu_pytorch_tanh",
        attn_bias=True,
        mlp_bias=True,
        attention_dir="bidirectional",
        rotary_dim=0,
        wiring=WIRINGS[model],
        front=front,
        task=Classes(names=split.test.class_names),
    )


@dataclass(frozen=True)
class VisionRun:
    """One training run.

    Attributes:
        model: One of the pair.
        seed: Of the weights, and of the order and the changes of images.
        steps: Optimiser steps.
        peak_lr: Peak learning rate.
        trial: Whether it only tries a rate, and so never sees the test set.
        batch: Images per step.
    """

    model: str
    seed: int
    steps: int
    peak_lr: float
    trial: bool = False
    batch: int = BATCH

    @property
    def name(self) -> str:
        """The name of its folder; everything that decides the weights is in it."""
        prefix = "trial_" if self.trial else ""
        return f"{prefix}{self.model}_{self.steps}x{self.batch}_lr{self.peak_lr:g}_seed{self.seed}"

    @property
    def recipe(self) -> Recipe:
        """How it is trained: big_vision's optimiser; the decay is 0.3 times the rate."""
        return Recipe(
            steps=self.steps,
            batch=self.batch,
            micro_batch=self.batch,
            peak_lr=self.peak_lr,
            warmup=0.1,
            final_lr=0.0,
            betas=(0.9, 0.999),
            weight_decay=0.3,
            model_seed=self.seed,
            data_seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class PairScale:
    """What can be changed of the plan.

    Attributes:
        epochs: How often each image is seen.
        seeds: How many.
        steps: Optimiser steps of every run instead, to try the whole out.
        peak_lr: The rate; then none is tried.
    """

    epochs: int = EPOCHS
    seeds: int = SEEDS
    steps: int | None = None
    peak_lr: float | None = None


def pair_plan(
    n_images: int, scale: PairScale, losses: Losses[VisionRun]
) -> Generator[Stage[VisionRun]]:
    """A short trial of rates with both models, then the pair, seed by seed, at the best.

    Args:
        n_images: How many there are to learn from.
        scale: What to change.
        losses: Of complete runs.
    """
    steps, peak_lr = scale.steps or scale.epochs * n_images // BATCH, scale.peak_lr
    if peak_lr is None:
        trial = partial(_both, 0, min(TRIAL_STEPS, steps), trial=True)
        peak_lr = best_rate((yield from try_rates(trial, losses, RATES)))
    for seed in range(scale.seeds):
        yield Stage(_both(seed, steps, peak_lr))


def _both(seed: int, steps: int, peak_lr: float, trial: bool = False) -> list[VisionRun]:
    return [VisionRun(model, seed, steps, peak_lr, trial) for model in WIRINGS]
