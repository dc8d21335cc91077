"""From finished runs to the bundled vision pair: weights, results of each test image, and the card.

A maintainer runs ``python -m mudd_interp.experiments.vision.bundle RUNS [DATA]``.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pandas as pd

from mudd_interp.checkpoints import load_model, save_model
from mudd_interp.experiments.run import MODEL
from mudd_interp.experiments.vision.facts import image_table, read_pair, run_facts, score_facts
from mudd_interp.experiments.vision.plan import WIRINGS
from mudd_interp.experiments.vision.run import VisionResult, class_losses, learnt_from
from mudd_interp.files import csv_table, write_bytes, write_text
from mudd_interp.images import FASHION_MNIST, ImageSet, read_split
from mudd_interp.images.folders import FASHION_DIGEST
from mudd_interp.model import HookedViT
from mudd_interp.training.bundle import BUNDLED, LARGEST_SHIFT
from mudd_interp.training.card import VISION_CARD, write_readme
from mudd_interp.training.trainer import LOG

IMAGES = "vit-images.csv.gz"
"""The results of each test image, beside the card."""

STORED_SEED = 0
"""The seed whose models ship: the first, whatever the others found."""


def bundle(runs: Path, data: Path = FASHION_MNIST, target: Path = BUNDLED) -> dict[str, Any]:
    """Put the pair of ``runs`` into the package, with the facts of its model card.

    Args:
        runs: The folder that ``mudd-interp train vit-pair --out`` filled.
        data: The folder of Fashion-MNIST.
        target: Where the bundled files are.

    Returns:
        The facts, as written to ``vit-card.json``.

    Raises:
        ValueError: If a run is missing, they are not of one plan or not of Fashion-MNIST, or
            half-precision storage moves a loss too far.
    """
    pair, trials = read_pair(runs)
    split = read_split(data)
    test = split.test
    if {test.digest, pair[0].digests[1]} != {FASHION_DIGEST} or test.labels is None:
        raise ValueError(
            f"expected runs on Fashion-MNIST, and its images in {data}: only these are described "
            "by the bundled card."
        )
    table = image_table(pair, test.labels.tolist())
    first = {each.run.model: each for each in pair if each.run.seed == STORED_SEED}
    stored = {name: _store(first[name], runs, test, target) for name in WIRINGS}
    facts = run_facts(pair, trials, len(learnt_from(split)[1])) | {
        "scores": score_facts(table),
        "stored": stored,
    }
    for name, each in first.items():
        write_bytes(target / f"{name}.log.csv", (runs / each.run.name / LOG).read_bytes())
    write_bytes(target / IMAGES, gzip.compress(csv_table(table), mtime=0))
    write_text(target / VISION_CARD, json.dumps(facts, indent=2) + "\n")
    write_readme(target)
    return facts


def read_image_table(folder: Path = BUNDLED) -> pd.DataFrame:
    """The results of each test image, as :func:`bundle` wrote them."""
    return pd.read_csv(folder / IMAGES)


def _store(result: VisionResult, runs: Path, test: ImageSet, target: Path) -> dict[str, Any]:
    """Store a model in half precision, and measure what is stored in float32."""
    folder, name = runs / result.run.name / MODEL, result.run.model
    model = load_model(folder)
    assert isinstance(model, HookedViT)
    save_model(model.half(), target / name, overwrite=True)
    losses, predicted = class_losses(model.float(), test)
    before = sum(result.test_losses) / len(test)
    if abs(losses.mean() - before) > LARGEST_SHIFT:
        raise ValueError(
            f"storing {name} in half precision moves its loss from {before:.4f} to "
            f"{losses.mean():.4f}, more than {LARGEST_SHIFT}: store it in float32."
        )
    return {
        "seed": result.run.seed,
        "config": model.config.to_dict(),
        "loss": float(losses.mean()),
        "loss_before_storage": before,
        "accuracy": float((predicted == test.labels).mean()),
    }


if __name__ == "__main__":
    print(json.dumps(bundle(*map(Path, sys.argv[1:])), indent=2))  # noqa: T201 (a program's output)
