"""What `inspect` says about a model: each parameter once, under its own part; sizes as they are."""

from typing import Any

import pytest
import torch
import transformers
from rich.console import Console
from torch import nn

from mudd_interp.inspection import (
    describe_model,
    parameters_by_part,
    part_of,
    print_description,
)
from mudd_interp.model.bridge import BridgeModel
from tests.parity.family import FAMILY, random_model

V, D, F, T, L, H, KV, E = 50, 32, 48, 24, 2, 4, 2, 8
"""Vocabulary, width, FFN, context, layers, heads, key-value heads, width of a head."""

COMMON = {
    "vocab_size": V,
    "hidden_size": D,
    "num_hidden_layers": L,
    "num_attention_heads": H,
    "max_position_embeddings": T,
}
GROUPED = {**COMMON, "num_key_value_heads": KV, "intermediate_size": F}
GPT = {"vocab_size": V, "n_embd": D, "n_layer": L, "n_head": H, "n_positions": T}

ATTENTION = L * (2 * D * H * E + 2 * D * KV * E)
GATED = L * 3 * D * F
UNGATED = L * (2 * D * F + F + D)
LAYER_NORM = 2 * D
TIED = {"unembedding": "embedding"}

# Of each architecture its settings, and by hand: the counts, what is tied, and sizes worth a look.
CASES: dict[str, tuple[dict[str, Any], dict[str, int], dict[str, str], dict[str, int]]] = {
    "Llama": (
        GROUPED | {"tie_word_embeddings": True},
        {"embedding": V * D, "attention": ATTENTION, "FFN": GATED, "norms": (2 * L + 1) * D},
        TIED,
        {"n_heads": H, "n_key_value_heads": KV, "d_head": E, "d_mlp": F, "n_ctx": T},
    ),
    # Norms of queries and keys are attention's; a head is wider than its share.
    "Qwen3": (
        GROUPED | {"head_dim": 16},
        {
            "embedding": V * D,
            "attention": 2 * ATTENTION + L * 2 * 16,
            "FFN": GATED,
            "unembedding": V * D,
            "norms": (2 * L + 1) * D,
        },
        {},
        {"d_head": 16, "d_mlp": F},
    ),
    # One matrix for query, key and value, learned positions, and a bias wherever one can be.
    "GPT2": (
        GPT,
        {
            "embedding": (V + T) * D,
            "attention": L * (4 * D * D + 4 * D),
            "FFN": L * (8 * D * D + 5 * D),
            "norms": (2 * L + 1) * LAYER_NORM,
        },
        TIED,
        {"n_key_value_heads": H, "d_head": E, "d_mlp": 4 * D},
    ),
    "GPTNeoX": (
        COMMON | {"intermediate_size": F},
        {
            "embedding": V * D,
            "attention": L * (4 * D * D + 4 * D),
            "FFN": UNGATED,
            "unembedding": V * D,
            "norms": (2 * L + 1) * LAYER_NORM,
        },
        {},
        {"n_key_value_heads": H, "d_mlp": F},
    ),
    # Four norms per layer.
    "Gemma2": (
        GROUPED | {"head_dim": E},
        {"embedding": V * D, "attention": ATTENTION, "FFN": GATED, "norms": (4 * L + 1) * D},
        TIED,
        {"d_head": E},
    ),
    # Experts and their router are the FFN, and it has no one width.
    "Mixtral": (
        GROUPED | {"num_local_experts": 4},
        {
            "embedding": V * D,
            "attention": ATTENTION,
            "FFN": 4 * GATED + L * 4 * D,
            "unembedding": V * D,
            "norms": (2 * L + 1) * D,
        },
        {},
        {"n_heads": H},
    ),
    # Its FFN's width goes by another name, and two positions more than its context have a vector.
    "OPT": (
        COMMON | {"ffn_dim": F, "word_embed_proj_dim": D, "pad_token_id": 1},
        {
            "embedding": (V + T + 2) * D,
            "attention": L * (4 * D * D + 4 * D),
            "FFN": UNGATED,
            "norms": (2 * L + 1) * LAYER_NORM,
        },
        TIED,
        {"d_mlp": F},
    ),
    # A norm of the embedding; no bound on its context.
    "Bloom": (
        {"vocab_size": V, "hidden_size": D, "n_layer": L, "n_head": H},
        {
            "embedding": V * D,
            "attention": L * (4 * D * D + 4 * D),
            "FFN": L * (8 * D * D + 5 * D),
            "norms": (2 * L + 2) * LAYER_NORM,
        },
        TIED,
        {"d_mlp": 4 * D},
    ),
    # A convolution in place of attention is a part without a name.
    "Lfm2": (
        GROUPED | {"layer_types": ["conv", "full_attention"], "block_auto_adjust_ff_dim": False},
        {
            "embedding": V * D,
            "attention": ATTENTION // L + 2 * E,
            "FFN": GATED,
            "norms": (2 * L + 1) * D,
            "other": 4 * D * D + 3 * D,
        },
        TIED,
        {"d_mlp": F},
    ),
}
ABSENT = {"Mixtral": {"d_mlp"}, "Bloom": {"n_ctx"}, "Lfm2": {"n_heads", "d_head"}}


def made(name: str) -> nn.Module:
    settings: dict[str, Any] = dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"))
    config = getattr(transformers, f"{name}Config")(**settings | CASES[name][0])
    torch.manual_seed(0)
    kind = "LMHeadModel" if name == "GPT2" else "ForCausalLM"
    return getattr(transformers, name + kind)(config)


@pytest.mark.parametrize("name", CASES)
def test_a_baseline_of_another_architecture(name: str) -> None:
    _, expected, tied, sizes = CASES[name]
    module = made(name)
    total = sum(parameter.numel() for parameter in module.parameters())
    found = describe_model(BridgeModel.from_module(module))
    assert found["parameters"] == expected | {"total": total}
    assert sum(expected.values()) == total
    assert found["tied"] == tied
    shape = found["shape"]
    assert sizes.items() <= shape.items()
    assert not ABSENT.get(name, set()) & set(shape)
    assert (shape["n_layers"], shape["d_model"], shape["d_vocab"]) == (L, D, V)


@pytest.mark.parametrize("name", FAMILY)
def test_every_parameter_of_ours_has_a_part(name: str) -> None:
    model = random_model(FAMILY[name])
    counts, tied = parameters_by_part(model)
    assert sum(counts.values()) == sum(parameter.numel() for parameter in model.parameters())
    assert "other" not in counts
    assert tied == {}
    assert counts.get("dense connections", 0) == sum(
        parameter.numel()
        for n, parameter in model.named_parameters()
        if n.startswith(("dense", "scalars"))
    )


def test_what_has_no_name_of_ours_is_classed_by_its_module_or_is_other() -> None:
    assert part_of("model.final_layer_norm.weight", nn.LayerNorm(2)) == "norms"
    assert part_of("model.per_layer.weight", nn.Embedding(2, 2)) == "embedding"
    assert part_of("model.extra.weight", nn.RMSNorm(2)) == "norms"
    assert part_of("project_in.weight", nn.Linear(2, 2)) == "other"
    assert part_of("blocks.0.attn.q_norm.weight", nn.RMSNorm(2)) == "attention"


def test_what_is_tied_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    found = describe_model(BridgeModel.from_module(made("Llama")))
    print_description(found, Console(width=100))
    lines = capsys.readouterr().out.splitlines()
    assert [
        line for line in lines if "unembedding" in line and "tied, counted as embedding" in line
    ]
