"""How exact the decompositions are, by backbone: ``python -m tests.identities.errors``.

Every error is the largest absolute difference over the largest magnitude of what is decomposed,
in float64, on models whose every parameter is random.
"""

from collections.abc import Callable
from typing import Any, cast

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from transformer_lens.tools.analysis import direct_logit_attribution
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
)

from mudd_interp import axes
from mudd_interp.axes import STREAMS, Stream
from mudd_interp.model.bridge import BridgeModel
from tests.parity.family import APART, ATTNRES, FAMILY, HYPER, NANOCHAT, random_model

TOKENS = torch.tensor([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 5, 8, 9, 7]])
EXACT = 1e-9
"""Largest relative error in float64: a wrong term shows at 1e-2, rounding at 1e-14."""


def neox() -> Any:
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            vocab_size=29,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=2,
            intermediate_size=24,
            max_position_embeddings=24,
        )
    )


def llama() -> Any:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=29,
            hidden_size=16,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=24,
            max_position_embeddings=24,
        )
    )


def gpt2() -> Any:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=29, n_embd=16, n_layer=3, n_head=2, n_positions=24)
    )


BRIDGED: dict[str, Callable[[], Any]] = {
    "bridge: GPT-NeoX": neox,
    "bridge: Llama": llama,
    "bridge: GPT-2": gpt2,
}
OWN = FAMILY | NANOCHAT | HYPER | ATTNRES | APART
MODELS = [*OWN, *BRIDGED]


def random_bridged(name: str) -> BridgeModel:
    """A Hugging Face model in float64 whose every parameter is random."""
    torch.manual_seed(3)
    module = BRIDGED[name]().double().eval()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return BridgeModel.from_module(module)


def model_of(name: str) -> Any:
    """A random model of a backbone, in float64."""
    return random_bridged(name) if name in BRIDGED else random_model(OWN[name])


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over largest magnitude."""
    return float((found - expected).abs().max() / expected.abs().max())


def places(model: Any) -> list[tuple[int, Stream]]:
    """Every stream of every block, and the final one."""
    inner: list[tuple[int, Stream]] = [(b, s) for b in range(model.cfg.n_layers) for s in STREAMS]
    return [*inner, (model.cfg.n_layers, "r")]


def target(model: Any, layer: int, stream: Stream) -> str:
    """The hook on a stream; with ``layer`` n_layers on the final one."""
    last = layer == model.cfg.n_layers
    return axes.RESID_FINAL if last else axes.stream_input(layer, stream)


def components(model: Any, logits: Tensor, cache: Any) -> float:
    """The embedding, attention and FFN layers, and the constant, against the logits."""
    shares = cache.logit_attrs(cache.decompose_resid(), TOKENS).sum(0)
    return relative(
        shares + model.logit_constant(TOKENS), logits.gather(2, TOKENS[..., None])[..., 0]
    )


def neurons(model: Any, logits: Tensor, cache: Any) -> float:
    """Heads, neurons, embedding, biases and the constant against the logit of token 5."""
    direction = model.tokens_to_residual_directions(5)
    shares = cache.get_full_resid_decomposition(apply_ln=True, project_output_onto=direction)
    return relative(shares.sum(0) + model.logit_constant(5), logits[..., 5])


def streams(model: Any, logits: Tensor, cache: Any) -> float:
    """Components against every stream of every block."""
    return max(
        relative(cache.decompose_resid(layer, stream=s).sum(0), cache[target(model, layer, s)])
        for layer, s in places(model)
    )


def stream_neurons(model: Any, logits: Tensor, cache: Any) -> float:
    """Heads, neurons, embedding and biases against every stream of every block."""
    return max(
        relative(
            cache.get_full_resid_decomposition(layer, stream=s).sum(0),
            cache[target(model, layer, s)],
        )
        for layer, s in places(model)
    )


def norms(model: Any, logits: Tensor, cache: Any) -> float:
    """Normed components against what each norm of each block gives, before its gain."""
    found: list[float] = []
    for layer in range(1, model.cfg.n_layers):
        split = len(model.wiring.streams) > 1
        for s in STREAMS[:3]:
            name = axes.block(layer, f"ln1_{s}" if split else "ln1")
            stack = cache.decompose_resid(layer, apply_ln=True, stream=s)
            found.append(relative(stack.sum(0), cache[f"{name}.hook_normalized"]))
        stack = cache.get_full_resid_decomposition(layer, mlp_input=True, apply_ln=True)
        found.append(relative(stack.sum(0), cache[axes.block(layer, "ln2.hook_normalized")]))
    return max(found)


def tool(model: Any, logits: Tensor, cache: Any) -> float:
    """TransformerLens' own direct logit attribution of a pair of tokens, by head and component."""
    pair = cast(Any, (torch.tensor(5), torch.tensor(7)))
    constant = model.logit_constant(5) - model.logit_constant(7)
    expected = logits[:, -1, 5] - logits[:, -1, 7]
    found: list[float] = []
    for unit in ("component", "head"):
        result = direct_logit_attribution(model, TOKENS, *pair, unit=unit, cache=cache)
        found.append(relative(result.attribution.sum(0) + constant, expected))
    return max(found)


CHECKS: dict[str, Callable[[Any, Tensor, Any], float]] = {
    "logits by component": components,
    "logits by neuron": neurons,
    "streams by component": streams,
    "streams by neuron": stream_neurons,
    "norms": norms,
    "TransformerLens' tool": tool,
}


def errors(name: str) -> dict[str, float]:
    """The error of every check on one backbone."""
    model = model_of(name)  # with gradients: a bridged model is tried when it is made
    with torch.no_grad():
        logits, cache = model.run_with_cache(TOKENS)
        return {check: function(model, logits, cache) for check, function in CHECKS.items()}


def main() -> None:
    """Print the table."""
    table = Table("largest relative error", *CHECKS)
    for name in MODELS:
        table.add_row(name, *(f"{error:.0e}" for error in errors(name).values()))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
