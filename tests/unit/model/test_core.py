"""A model has parts: what they do, it does too; a core that reads no text knows nothing of it."""

import inspect
from typing import Any

import pytest
import torch
from torch import nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.model.core import HookedCore
from mudd_interp.model.generate import Generator
from mudd_interp.model.language import LanguageModel
from mudd_interp.model.live_config import ConfigView
from mudd_interp.model.stacked import Weights
from mudd_interp.model.tokens import Tokens
from mudd_interp.protocol import DecomposableModel, HookedModel, ModelInfo, ModelShape
from tests.parity.family import FAMILY, letters_tokenizer, random_model, random_tokens
from tests.parity.test_neox import Pair

OF_LANGUAGE = (
    "generate",
    "generate_stream",
    "to_tokens",
    "to_string",
    "to_single_token",
    "set_tokenizer",
    "loss",
    "loss_fn",
    "W_U",
    "tokens_to_residual_directions",
)


class Sizes(ConfigView):
    n_layers = n_heads = 2
    dense = "none"


class Patches(HookedCore):
    """Two linear blocks that read vectors, and predict nothing."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList(self.block() for _ in range(2))
        self.info = ModelInfo("patches")
        self.hook_embed, self.hook_out = HookPoint(), HookPoint()
        self.setup()

    def block(self) -> nn.Module:
        made = nn.Module()
        made.attn, made.mlp = nn.Module(), nn.Module()
        for part, name in ((made.attn, "W_Q"), (made.attn, "W_K"), (made.mlp, "W_in")):
            part.register_parameter(name, nn.Parameter(torch.randn(2, 4, 3)))
        return made

    @property
    def cfg(self) -> ConfigView:
        return Sizes()

    @property
    def weights(self) -> Weights:
        return Weights(self.blocks, self.cfg)

    def on_request(self, name: str, incl_bwd: bool = False) -> bool:
        return False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.hook_out(2 * self.hook_embed(x))


def test_a_core_that_reads_no_text_has_hooks_and_weights():
    core, x = Patches(), torch.arange(4.0)
    with core.hooks([("hook_embed", lambda x, hook: x + 1)]):
        assert core(x).tolist() == [2, 4, 6, 8]
    found, kept = core.run_with_cache(x, return_cache_object=False)
    assert found.tolist() == kept["hook_out"].tolist() == [0, 2, 4, 6]
    assert core.W_Q.shape == (2, 2, 4, 3)
    assert core.QK.AB.shape == (2, 2, 4, 4)
    assert core.all_head_labels == ["L0H0", "L0H1", "L1H0", "L1H1"]
    assert core.tokenizer is None


@pytest.mark.parametrize("name", OF_LANGUAGE)
def test_it_has_nothing_that_would_need_tokens(name: str):
    core: Any = Patches()
    assert not hasattr(core, name)
    with pytest.raises(AttributeError, match=f"no attribute of Patches `{name}`"):
        getattr(core, name)


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("generate", Generator.generate),
        ("to_tokens", Tokens.to_tokens),
        ("all_composition_scores", Weights.all_composition_scores),
    ],
)
def test_a_method_of_a_part_keeps_its_arguments_and_documentation(name: str, method: Any):
    forwarded = getattr(LanguageModel, name)
    assert inspect.signature(forwarded) == inspect.signature(method)
    assert inspect.getdoc(forwarded) == inspect.getdoc(method)
    assert forwarded.__name__ == name


def test_parts_are_of_the_model_as_it_is_now():
    model = random_model(FAMILY["MUDDFormer"]).float()
    assert model.tokens.tokenizer is None
    model.tokenizer = letters_tokenizer()
    assert model.tokens.to_tokens("a b").tolist() == model.to_tokens("a b").tolist()
    tokens = random_tokens(model.config)
    given: Any = {"do_sample": False, "stop_at_eos": False, "verbose": False}
    by_part = model.generator.generate(tokens, 2, **given)
    assert torch.equal(model.generate(tokens, 2, **given), by_part)
    assert torch.equal(
        model.ends.decode_stream(model.embed(tokens)), model.decode_stream(model.embed(tokens))
    )


@pytest.mark.parametrize("kind", ["ours", "baseline"])
def test_both_kinds_of_model_are_what_an_analysis_asks_for(kind: str):
    model = getattr(Pair("llama"), kind)
    assert isinstance(model, LanguageModel)
    assert isinstance(model, HookedModel)
    assert isinstance(model, DecomposableModel)
    assert isinstance(model.cfg, ModelShape)
    assert model.cfg.d_head == model.W_Q.shape[-1]
