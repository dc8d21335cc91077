"""A model that reads vectors and tells classes: another front and another task, for the tests."""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mudd_interp.config import ModelConfig
from mudd_interp.model.stack import HookedStack
from mudd_interp.model.wirings import Plain
from mudd_interp.protocol import ModelInfo, Trait
from tests.parity.family import PYTHIA, WIDER

FEATURES, CLASSES = 6, 5

READS_ALL = ModelConfig(**WIDER, rotary_dim=0, attention_dir="bidirectional")
"""The blocks of an encoder: no position is masked, and none is told to attention."""

READS_ALL_PLAIN = replace(
    ModelConfig(**WIDER, **PYTHIA, attention_dir="bidirectional", wiring=Plain()), rotary_dim=0
)


class Project(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()
        self.W_E = nn.Parameter(torch.empty(FEATURES, d_model))

    def forward(self, vectors: Tensor) -> Tensor:
        return vectors @ self.W_E


class MeanClass(nn.Module):
    def __init__(self, d_model: int):
        super().__init__()
        self.W_C = nn.Parameter(torch.empty(d_model, CLASSES))

    def forward(self, final: Tensor) -> Tensor:
        return final.mean(1) @ self.W_C


class VectorFront:
    """Vectors ``[batch pos feature]``; a position is called by its number."""

    traits: frozenset[Trait] = frozenset()

    def __init__(self, embed: nn.Module):
        self.embed = embed

    def batch(self, given: Any) -> Tensor:
        shape = list(getattr(given, "shape", []))
        if len(shape) != 3 or shape[2] != FEATURES or not given.is_floating_point():
            raise ValueError(f"expected vectors [batch pos {FEATURES}], got {shape}.")
        return given

    def one(self, given: Any) -> Tensor:
        batch = self.batch(given[None] if given.ndim == 2 else given)
        if len(batch) != 1:
            raise ValueError(f"expected one input, got {len(batch)}.")
        return batch

    def example(self) -> Tensor:
        return torch.ones(1, 3, FEATURES)

    def refuse_padding(self, batch: Tensor) -> None:
        pass

    def positions(self, batch: Tensor) -> int:
        return batch.shape[1]

    def labels(self, row: Tensor) -> tuple[str, ...]:
        return tuple(f"place {i}" for i in range(len(row)))

    def ids(self, row: Tensor) -> Tensor:
        return torch.arange(len(row))

    def contents(self, batch: Tensor) -> list[bytes]:
        return [row.tobytes() for row in batch.cpu().numpy().astype("<f8")]


class ClassTask:
    """The class of an input, from the mean over its positions."""

    traits: frozenset[Trait] = frozenset()

    def __init__(self, head: nn.Module):
        self.head = head

    def loss(self, output: Tensor, batch: Tensor, target: Any = None, each: bool = False) -> Tensor:
        if target is None:
            raise ValueError("a loss of classes needs the class of each input: give a target.")
        return F.cross_entropy(output, target, reduction="none" if each else "mean")


def vector_model(cfg: ModelConfig = READS_ALL, seed: int = 0) -> HookedStack:
    """A model in float64 whose every parameter is random."""
    torch.manual_seed(seed)
    front = VectorFront(Project(cfg.d_model))
    task = ClassTask(MeanClass(cfg.d_model))
    info = ModelInfo("vectors")
    model = HookedStack(cfg, front, task, info, dtype=torch.float64)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def random_vectors(batch: int = 3, pos: int = 7, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, pos, FEATURES, dtype=torch.float64, generator=generator)
