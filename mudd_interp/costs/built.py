"""What a model costs as it is built: its modules counted, its FLOPs and activations by torch."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.flop_counter import FlopCounterMode

from mudd_interp.config import ModelConfig
from mudd_interp.model import FamilyModel, build_model

WEIGHT_MLPS, STATIC, NORMS = "weight MLPs", "static weights", "norms"
"""What dense connections consist of: what computes weights of the token, what is learned of them,
and the norms that a plain twin has not.
"""

PARTS = {
    "dense": {"W_1": WEIGHT_MLPS, "W_2": WEIGHT_MLPS, "a": STATIC},
    "hyper": {"W": WEIGHT_MLPS, "a": WEIGHT_MLPS, "b": STATIC},
    "scalars": {"resid_lambdas": STATIC, "x0_lambdas": STATIC, "backout_lambda": STATIC},
    "attnres": {"q": WEIGHT_MLPS, "b": WEIGHT_MLPS},
}
"""Which part a parameter belongs to, by its module's and its own name; others are norms."""


@dataclass(frozen=True, kw_only=True)
class Counts:
    """The numbers behind the ratios.

    Attributes:
        parameters: Of the whole model, embeddings included.
        dense: Those that the dense connections add, by part.
        twin_blocks: Parameters of the plain twin's blocks.
        flops: Of a forward pass of one sequence through the blocks and dense connections.
        twin_flops: The same of the plain twin.
        memory: Bytes, in float32, that autograd keeps of that pass for the backward pass; memory
            that is shared counts once, parameters do not.
        twin_memory: The same of the plain twin.
    """

    parameters: int
    dense: dict[str, int]
    twin_blocks: int
    flops: int
    twin_flops: int
    memory: int
    twin_memory: int


def count(config: ModelConfig, tokens: int) -> Counts:
    """Build a model and its plain twin without their numbers, and count.

    Args:
        config: The model.
        tokens: Length of the sequence.
    """
    # a table of positions that is longer than the context changes nothing that is counted
    long = replace(config, n_ctx=max(tokens, config.n_ctx))
    model, twin = empty(long), empty(long.plain())
    flops, memory = _pass(model, tokens)
    twin_flops, twin_memory = _pass(twin, tokens)
    return Counts(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        dense=dense_parameters(model, twin),
        twin_blocks=sum(parameter.numel() for parameter in twin.blocks.parameters()),
        flops=flops,
        twin_flops=twin_flops,
        memory=memory,
        twin_memory=twin_memory,
    )


def dense_parameters(model: nn.Module, twin: nn.Module) -> dict[str, int]:
    """How many parameters a model has that its plain twin has not, by part."""
    sizes = {name: parameter.numel() for name, parameter in model.named_parameters()}
    extra = sum(sizes.values()) - sum(parameter.numel() for parameter in twin.parameters())
    found = {WEIGHT_MLPS: 0, STATIC: 0}
    for name, size in sizes.items():
        part = PARTS.get(name.partition(".")[0], {}).get(name.rpartition(".")[2])
        if part is not None:
            found[part] += size
    return {**found, NORMS: extra - sum(found.values())}


def empty(config: ModelConfig) -> FamilyModel:
    """A model that has shapes and no numbers."""
    with torch.device("meta"):
        return build_model(config)


def _pass(model: FamilyModel, tokens: int) -> tuple[int, int]:
    """FLOPs of a forward pass, and the bytes that autograd keeps of it.

    On tensors without numbers that say that they are on the CPU: on the meta device attention would
    not be the fused kernel, which keeps no patterns.
    """
    kept: dict[StorageWeakRef, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        kept[_memory_of(tensor)] = tensor
        return tensor

    flops = FlopCounterMode(display=False, custom_mapping=PRODUCTS)
    with FakeTensorMode():
        _put_parameters(model)
        x: Float[Tensor, "batch pos d_model"] = torch.empty(1, tokens, model.config.d_model)
        saved = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
        with torch.enable_grad(), saved, flops:
            model.run_blocks([x], batch=torch.zeros(1, tokens, dtype=torch.int64))
        own = {_memory_of(parameter) for parameter in model.parameters()}
    held = sum(tensor.untyped_storage().nbytes() for at, tensor in kept.items() if at not in own)
    return flops.get_total_flops(), held


def _memory_of(tensor: Tensor) -> StorageWeakRef:
    """Which memory a tensor is a view of; without numbers it has no address."""
    return StorageWeakRef(tensor.untyped_storage())


def _put_parameters(model: nn.Module) -> None:
    """Put tensors of the present mode in the place of a model's parameters."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            like = torch.empty_strided(parameter.shape, parameter.stride())
            setattr(module, name, nn.Parameter(like))


def _attention_flops(
    query: tuple[int, ...],
    key: tuple[int, ...],
    value: tuple[int, ...],
    dropout: float = 0.0,  # noqa: ARG001 (the kernel's)
    is_causal: bool = False,
    *_: Any,
    **__: Any,
) -> int:
    """FLOPs of attention: scores and mix, two products; with a causal mask half of each.

    torch's own count has no entry for the CPU's kernel, and takes no account of a mask.
    """
    batch, heads, queries, width = query
    whole = 2 * batch * heads * queries * key[2] * (width + value[3])
    return whole // 2 if is_causal else whole


def _matrix_by_vector(matrix: tuple[int, ...], *_: Any, **__: Any) -> int:
    """FLOPs of a matrix times a vector, of which torch's own count has no entry either."""
    return 2 * matrix[0] * matrix[1]


PRODUCTS: dict[Any, Callable[..., int]] = {
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops,
    torch.ops.aten.mv: _matrix_by_vector,
}
