"""What the runs of the pair found, as a table of test images and the facts of a model card."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float64

from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.experiments.gaps import paired_gap
from mudd_interp.experiments.run import complete_runs
from mudd_interp.experiments.vision.plan import WIRINGS
from mudd_interp.experiments.vision.run import VisionResult, read_result
from mudd_interp.training.image_examples import SHIFT

MEASURES = ("loss", "accuracy")
MUDD, PLAIN = WIRINGS


def read_pair(place: Path) -> tuple[list[VisionResult], list[VisionResult]]:
    """The complete runs in a folder: those of the pair, by seed, and the trials of rates.

    Raises:
        ValueError: If a run of the pair is missing or diverged, there are fewer than two seeds, or
            runs differ in recipe or data.
    """
    found = [read_result(folder) for folder in complete_runs(place)]
    pair = [each for each in found if not each.run.trial]
    pair.sort(key=lambda each: (each.run.seed, [*WIRINGS].index(each.run.model)))
    seeds = Counter(each.run.seed for each in pair)
    if len(seeds) < 2 or {*seeds.values()} != {2} or any(each.loss is None for each in pair):
        raise ValueError(
            f"{place} has the runs {[each.run.name for each in pair]}: expected both models of two "
            "seeds or more, all of them complete; `mudd-interp train vit-pair` goes on there."
        )
    for name, values in {
        "steps": {each.run.steps for each in pair},
        "peak_lr": {each.run.peak_lr for each in pair},
        "images": {each.digests for each in found},
    }.items():
        if len(values) > 1:
            raise ValueError(f"the runs in {place} differ in {name}: give a folder of one plan.")
    return pair, [each for each in found if each.run.trial]


def image_table(pair: Sequence[VisionResult], labels: Sequence[int]) -> pd.DataFrame:
    """A row for each test image: its class, and what each run makes of it.

    Returns:
        Columns ``image`` (its place in the test set), ``label``, and for each run ``NAME seed N
        loss`` in nats, to five digits after the point, and ``NAME seed N class``.
    """
    columns: dict[str, Any] = {"image": np.arange(len(labels)), "label": np.asarray(labels)}
    for each in pair:
        of = f"{each.run.model} seed {each.run.seed}"
        columns[f"{of} loss"] = np.round(each.test_losses, 5)
        columns[f"{of} class"] = np.asarray(each.test_predicted)
    return pd.DataFrame(columns)


def measured(table: pd.DataFrame, model: str, measure: str) -> Float64[np.ndarray, "seed image"]:
    """What a model does with each image: its loss in nats, or 1 where it is right and 0 else."""
    kind = "loss" if measure == "loss" else "class"
    names = [name for name in table if name.startswith(f"{model} ") and name.endswith(f" {kind}")]
    values = table[names].to_numpy().T
    if measure == "accuracy":
        values = values == table["label"].to_numpy()
    return values.astype(np.float64)


def score_facts(table: pd.DataFrame) -> dict[str, Any]:
    """How good the two are, and how sure the difference is; all from :func:`image_table`.

    Returns:
        For ``loss`` (nats) and ``accuracy`` (0..1): ``models``, the values of each by seed, and
        ``difference``, MUDDViT minus its twin: the mean over seeds, ``images``, its 95% interval
        with test images drawn anew and the seeds as they are (percentiles of a bootstrap), and
        ``seeds``, its 95% interval over seeds with the images as they are (Student's t, paired),
        with ``p``.
    """
    return {measure: _difference(table, measure) for measure in MEASURES}


def _difference(table: pd.DataFrame, measure: str) -> dict[str, Any]:
    mudd, plain = (measured(table, model, measure) for model in WIRINGS)
    each = (mudd - plain).mean(0)
    mean, low, high = mean_and_interval(each[None], np.ones(len(each), np.int64))[:, 0]
    gap = paired_gap(mudd.mean(1) - plain.mean(1))
    return {
        "models": {MUDD: mudd.mean(1).tolist(), PLAIN: plain.mean(1).tolist()},
        "difference": {
            "mean": float(mean),
            "images": [float(low), float(high)],
            "seeds": [gap.mean - gap.half_width, gap.mean + gap.half_width],
            "p": gap.p,
        },
    }


def run_facts(
    pair: Sequence[VisionResult], trials: Sequence[VisionResult], held_out: int
) -> dict[str, Any]:
    """How the pair was trained: recipe, images, and the rates that were tried.

    Args:
        pair: The runs of the pair.
        trials: Those that tried a rate.
        held_out: How many images they chose the rate by.
    """
    first = pair[0]
    tried: dict[str, dict[str, float | None]] = {}
    for each in sorted(trials, key=lambda each: each.run.peak_lr):
        tried.setdefault(f"{each.run.peak_lr:g}", {})[each.run.model] = each.loss
    return {
        "parameters": {each.run.model: each.parameters for each in pair},
        "seeds": sorted({each.run.seed for each in pair}),
        "recipe": _shared(asdict(first.run.recipe)),
        "epochs": round(first.run.steps * first.run.batch / first.images, 3),
        "augmentation": {"shift": SHIFT, "mirrored": 0.5},
        "images": {
            "train": first.images,
            "held_out": held_out,
            "test": len(first.test_losses),
        },
        "digests": dict(zip(("train", "test"), first.digests, strict=True)),
        "trial": {
            "steps": trials[0].run.steps if trials else 0,
            "held_out_loss": tried,
        },
        "device": first.device,
        "bfloat16": first.bfloat16,
        "torch": first.torch,
    }


def _shared(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """A recipe without the seeds, which differ."""
    return {name: value for name, value in recipe.items() if not name.endswith("_seed")}
