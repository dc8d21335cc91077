"""From finished runs to the bundled pair: half-precision weights, logs, and the model card."""

import json
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mudd_interp.checkpoints import save_model
from mudd_interp.files import write_bytes, write_text
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.training.card import LANGUAGE_CARD, write_readme
from mudd_interp.training.corpus import read_manifest
from mudd_interp.training.evaluate import FileLosses, file_losses, paired_bootstrap
from mudd_interp.training.presets import GROUPS, PRESETS
from mudd_interp.training.trainer import CHECKPOINT, LOG
from mudd_interp.training.validation import ValidationPack, load_pack

BUNDLED = Path(__file__).parent.parent / "bundled"
PAIR = "tiny-pair"
LARGEST_SHIFT = 0.002
"""How far half-precision storage may move the held-out loss, in nats per token."""


@dataclass(frozen=True)
class Trained:
    """A model as its run left it.

    Attributes:
        model: With the weights of the run's last checkpoint.
        step: Optimiser steps taken.
    """

    model: HookedMUDDTransformer
    step: int


def bundle(runs: Path, target: Path = BUNDLED) -> dict[str, Any]:
    """Put the pair of ``runs`` into the package, with the facts of its model card.

    Args:
        runs: The folder that ``mudd-interp train tiny-pair --out`` filled.
        target: Where the bundled files are.

    Returns:
        The facts, as written to ``card.json``.

    Raises:
        ValueError: If a run is missing, the two are not equally long, or half-precision storage
            moves a loss too far.
    """
    pack = load_pack()
    trained = {name: load_run(runs / name, name) for name in GROUPS[PAIR]}
    if len({each.step for each in trained.values()}) != 1:
        steps = {name: each.step for name, each in trained.items()}
        raise ValueError(f"the pair must have seen the same tokens, got steps {steps}: train on.")
    stored = {name: _store(name, each, pack, target) for name, each in trained.items()}
    facts = _facts(trained, stored, len(pack.tokens))
    for name in trained:
        write_bytes(target / f"{name}.log.csv", (runs / name / LOG).read_bytes())
    write_text(target / LANGUAGE_CARD, json.dumps(facts, indent=2) + "\n")
    write_readme(target)
    return facts


def load_run(folder: Path, name: str) -> Trained:
    """The model of a run's last checkpoint.

    Raises:
        ValueError: If there is none.
    """
    path = folder / CHECKPOINT
    if not path.is_file():
        raise ValueError(
            f"no checkpoint at {path}: run `mudd-interp train {name} --out ...` first."
        )
    state = torch.load(path, weights_only=True)
    model = HookedMUDDTransformer(PRESETS[name].cfg)
    model.load_state_dict(state["model"])
    return Trained(model, state["step"])


@dataclass(frozen=True)
class Stored:
    """Held-out losses of a model before and after it was stored in half precision."""

    losses: FileLosses
    full: float


def _store(name: str, trained: Trained, pack: ValidationPack, target: Path) -> Stored:
    full = file_losses(trained.model.logits, pack).mean
    trained.model.half()
    save_model(trained.model, target / name, overwrite=True)
    losses = file_losses(trained.model.float().logits, pack)
    if abs(losses.mean - full) > LARGEST_SHIFT:
        raise ValueError(
            f"storing {name} in half precision moves its loss from {full:.4f} to "
            f"{losses.mean:.4f}, more than {LARGEST_SHIFT}: store it in float32."
        )
    return Stored(losses, full)


def _facts(
    trained: Mapping[str, Trained], stored: Mapping[str, Stored], sequences: int
) -> dict[str, Any]:
    mudd, plain = GROUPS[PAIR]
    recipe = PRESETS[mudd].recipe
    step = trained[mudd].step
    difference = paired_bootstrap(stored[mudd].losses, stored[plain].losses)
    return {
        "models": {name: _model_facts(name, trained[name], stored[name]) for name in trained},
        "difference": asdict(difference),
        "recipe": asdict(recipe),
        "steps": step,
        "tokens": step * recipe.batch * PRESETS[mudd].cfg.n_ctx,
        "validation": {
            "sequences": sequences,
            "predicted_tokens": int(stored[mudd].losses.tokens.sum()),
            "files": len(stored[mudd].losses.files),
        },
        "packages": _packages(),
    }


def _model_facts(name: str, trained: Trained, stored: Stored) -> dict[str, Any]:
    return {
        "parameters": sum(parameter.numel() for parameter in trained.model.parameters()),
        "validation_loss": stored.losses.mean,
        "validation_loss_before_storage": stored.full,
        "config": PRESETS[name].cfg.to_dict(),
    }


def _packages() -> dict[str, dict[str, Any]]:
    """Version and number of files of each package in the corpus."""
    sources = read_manifest()
    counts = Counter(source.package for source in sources)
    versions = {source.package: source.version for source in sources}
    return {name: {"version": versions[name], "files": counts[name]} for name in sorted(counts)}


if __name__ == "__main__":
    print(json.dumps(bundle(Path(sys.argv[1])), indent=2))  # noqa: T201 (a program's output)
