"""Hooks that are not TransformerLens' own count like its own: torch's, replaced parts, compiled."""

import subprocess
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import MethodType
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from transformer_lens.hook_points import HookPoint

from mudd_interp.protocol import Observer
from tests.parity.family import FAMILY, random_model, random_tokens

Change = Callable[[Tensor], Tensor | None]


def bend(x: Tensor) -> Tensor:
    """Changes direction too: a norm downstream hides a mere factor."""
    return x * (1 + 0.5 * torch.sin(torch.arange(x.numel(), dtype=x.dtype)).view(x.shape))


def bend_in_place(x: Tensor) -> None:
    x.copy_(bend(x))


@contextmanager
def forward_hook(point: nn.Module, change: Change) -> Generator[None]:
    with point.register_forward_hook(lambda module, given, x: change(cast(Tensor, x))):
        yield


@contextmanager
def pre_hook(point: nn.Module, change: Change) -> Generator[None]:
    with point.register_forward_pre_hook(lambda module, given: change(given[0])):
        yield


@contextmanager
def other_forward(point: nn.Module, change: Change) -> Generator[None]:
    """As nnsight does it: the instance has a ``forward`` of its own."""

    def forward(self: HookPoint, x: Tensor) -> Tensor:
        changed = change(x)
        return x if changed is None else changed

    point.forward = MethodType(forward, point)
    yield
    del point.forward


# Sequential and parallel, one norm and three, of every stream and of one, with norms of sources.
KINDS = ("Transformer++", "MUDDFormer as released", "MUDDPythia", "+ Dynamic Dense",
         "PrePostDANorm, R only")  # fmt: skip
WAYS = {"forward hook": forward_hook, "pre-hook": pre_hook, "other forward": other_forward}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(
    ("way", "change"),
    [*((way, bend) for way in WAYS), ("forward hook", bend_in_place)],
)
def test_every_edit_is_that_of_run_with_hooks(name: str, way: str, change: Change):
    model = random_model(FAMILY[name])
    tokens = random_tokens(model.config)
    with torch.no_grad():
        clean = model(tokens)
        for hook, point in model.hook_dict.items():
            expected = model.run_with_hooks(tokens, fwd_hooks=[(hook, lambda x, hook: change(x))])
            with WAYS[way](point, change):
                found = model(tokens)
            torch.testing.assert_close(found, expected, rtol=0, atol=0, msg=hook)
            assert not torch.allclose(found, clean, rtol=0, atol=1e-9), hook
        torch.testing.assert_close(model(tokens), clean, rtol=0, atol=0)


def test_a_module_in_the_place_of_a_hook_point_counts():
    class Bend(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return bend(x)

    tokens = random_tokens(FAMILY["MUDDFormer"])
    for hook in ("blocks.0.hook_k_input", "blocks.1.attn.hook_pattern", "dense.1.hook_weights_v"):
        model = random_model(FAMILY["MUDDFormer"])
        expected = model.run_with_hooks(tokens, fwd_hooks=[(hook, lambda x, hook: bend(x))])
        parent, _, child = hook.rpartition(".")
        setattr(model.get_submodule(parent), child, Bend())
        torch.testing.assert_close(model(tokens), expected, rtol=0, atol=0, msg=hook)


@pytest.mark.parametrize("norm", ["ln1", "ln1_q", "ln2", "attn"])
def test_a_hook_on_a_part_counts_where_the_part_runs_on_request(norm: str):
    model = random_model(FAMILY["Transformer++"])
    tokens = random_tokens(model.config)
    clean, part = model(tokens), model.get_submodule(f"blocks.1.{norm}")
    with part.register_forward_hook(lambda module, given, out: bend(cast(Tensor, out))):
        assert not torch.allclose(model(tokens), clean, rtol=0, atol=1e-9)


@pytest.mark.parametrize("name", KINDS)
def test_what_only_looks_changes_nothing_wherever_it_looks(name: str):
    model = random_model(FAMILY[name])
    tokens, seen = random_tokens(model.config), dict[str, Tensor]()

    def look(at: str) -> Any:
        return lambda module, given, out: seen.__setitem__(at, out)

    clean = model(tokens)
    handles = [m.register_forward_hook(look(at)) for at, m in model.named_modules() if at]
    torch.testing.assert_close(model(tokens), clean, rtol=0, atol=1e-9)
    for handle in handles:
        handle.remove()
    assert set(model.hook_dict) <= set(seen)
    assert not model.is_hooked


@pytest.mark.parametrize("name", ["Transformer++", "MUDDFormer", "GPT-NeoX"])
@pytest.mark.parametrize("call", ["add_caching_hooks", "cache_all"])
def test_transformer_lens_caching_hooks_fill_a_cache_of_everything(name: str, call: str):
    model = random_model(FAMILY[name])
    tokens, cache = random_tokens(model.config), dict[str, Tensor]()
    clean, expected = model.run_with_cache(tokens, names_filter=lambda _: True)
    getattr(model, call)(cache=cache)
    torch.testing.assert_close(model(tokens), clean, rtol=0, atol=1e-9)
    model.reset_hooks()
    assert set(expected) <= set(cache)
    for hook in expected:
        torch.testing.assert_close(cache[hook], expected[hook], rtol=0, atol=1e-9, msg=hook)


def test_an_edit_of_the_shared_norm_reaches_a_stream_that_is_looked_at():
    model = random_model(FAMILY["Transformer++"])
    tokens = random_tokens(model.config)
    edit = ("blocks.1.ln1.hook_normalized", lambda x, hook: bend(x))
    expected, seen = model.run_with_hooks(tokens, fwd_hooks=[edit]), list[Tensor]()
    look = ("blocks.1.hook_k_input", lambda x, hook: seen.append(x))
    found = model.run_with_hooks(tokens, fwd_hooks=[edit, look])
    torch.testing.assert_close(found, expected, rtol=0, atol=0)
    assert len(seen) == 1
    # The gradient of that stream alone is not defined: it bypasses its own input.
    with pytest.raises(ValueError, match="ln1_k run by themselves"):
        model.run_with_hooks(tokens, fwd_hooks=[edit], bwd_hooks=[look])
    model.reset_hooks()


def test_an_observer_of_every_norm_sees_all_of_them():
    model = random_model(FAMILY["Transformer++"])
    seen: list[str] = []
    names = [n for n in model.hook_dict if n.startswith("blocks.1.ln1") and "scale" in n]
    watch = Observer(lambda x, hook: seen.append(hook.name))
    model.run_with_hooks(random_tokens(model.config), fwd_hooks=[(name, watch) for name in names])
    assert seen == names


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_without_fused_kernels_logits_are_the_same_whatever_is_cached(
    name: str, dtype: torch.dtype
):
    model = random_model(FAMILY[name]).to(dtype)
    tokens = random_tokens(model.config, pos=20)
    assert model.fused_kernels
    model.fused_kernels = False
    for names in (None, lambda _: True, ["blocks.1.attn.hook_result", "blocks.2.ln2.hook_scale"]):
        clean, (cached, _) = model(tokens), model.run_with_cache(tokens, names_filter=names)
        torch.testing.assert_close(cached, clean, rtol=0, atol=0)
    model.fused_kernels = True
    assert model.fused_kernels


def test_a_copy_of_a_model_knows_its_own_hooks():
    model = random_model(FAMILY["MUDDFormer"])
    twin = deepcopy(model)
    with forward_hook(twin.hook_dict["hook_embed"], bend):
        assert twin.is_hooked
        assert not model.is_hooked
    assert not twin.is_hooked


COMPILED = """
import torch
from tests.parity.family import FAMILY, random_model, random_tokens

model = random_model(FAMILY["MUDDFormer"])
tokens = random_tokens(model.config)
compiled = torch.compile(model, backend="eager")
names = ("hook_embed", "blocks.1.hook_attn_out", "blocks.2.attn.hook_pattern",
         "dense.1.hook_weights_v")
with torch.no_grad():
    clean = compiled(tokens)
    for name in names:
        edits = [(name, lambda x, hook: torch.zeros_like(x))]
        right = model.run_with_hooks(tokens, fwd_hooks=edits)
        assert not torch.allclose(right, clean, rtol=0, atol=1e-9), name
        with compiled.hooks(fwd_hooks=edits):
            torch.testing.assert_close(compiled(tokens), right, rtol=0, atol=1e-12)
        with model.hook_dict[name].register_forward_hook(lambda m, i, x: torch.zeros_like(x)):
            torch.testing.assert_close(compiled(tokens), right, rtol=0, atol=1e-12)
        torch.testing.assert_close(compiled(tokens), clean, rtol=0, atol=1e-12)
print(len(names), "hooks count")
"""


@pytest.mark.slow
def test_hooks_count_after_the_first_compiled_call():
    # in a process without the checks of types that the tests add, which do not compile
    root = Path(__file__).parents[3]
    run = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, cwd=root)
    assert run.stdout == "4 hooks count\n", run.stderr
