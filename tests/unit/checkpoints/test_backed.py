"""Depth-routing models of transformers from folders: what is checked, and what is said of it."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers.models.deepseek_v4 import modeling_deepseek_v4 as deepseek

from mudd_interp.checkpoints import load_model
from mudd_interp.model.backed import BackedModel
from tests.relatives import BACKED, copied

TOKENS = torch.tensor([[3, 1, 4, 1, 5]])


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


@pytest.mark.parametrize("name", BACKED)
def test_what_was_checked_is_said(name: str, tmp_path: Path) -> None:
    model: Any = load_model(copied(name, tmp_path))
    assert isinstance(model, BackedModel)
    assert model.info.digest is not None
    assert model.cfg.dtype == torch.float32
    checks = "\n".join(model.info.checks)
    assert "an edit of any changes the logits" in checks
    assert "every read is what its gates say" in checks
    assert ("rows of T sum to one" in checks) == (name == "deepseek-v4-tiny")
    assert ("each stream holds the embedding once" in checks) == (name != "gemma3n-tiny")


@pytest.mark.parametrize(
    ("name", "changes", "words"),
    [
        (
            "deepseek-v4-tiny",
            {"hc_mult": 3},
            r"hc_mult is 3 in .*attn_hc\.fn` has shape \[15, 96\], but it has \[24, 128\]",
        ),
        (
            "hy-v4-tiny",
            {"hc_mult": 8},
            r"hc_mult is 8 in .*attn_hc\.fn` has shape \[16, 256\], but it has \[8, 128\]",
        ),
        (
            "gemma3n-tiny",
            {"altup_num_inputs": 3},
            r"altup_num_inputs is 3 in .*prediction_coefs\.weight` has shape \[9, 3\], but",
        ),
        ("hy-v4-tiny", {"vocab_size": 80}, r"parameter `.*` has shape \[83, 32\], expected \[80"),
        (
            "deepseek-v4-tiny",
            {"auto_map": {"AutoModelForCausalLM": "modeling_own.Own"}},
            r"comes with code of its own \(auto_map.*streams the other way round.*take auto_map",
        ),
        (
            "deepseek-v4-tiny",
            {"model_type": "deepseek_v41"},
            r"nor does mudd-interp\. The nearest .*deepseek_v4.*Give a .*denseformer.*gemma3n",
        ),
    ],
)
def test_a_configuration_of_other_weights_is_refused(
    name: str, changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = copied(name, tmp_path)
    change_config(folder, **changes)
    with pytest.raises(ValueError, match=words):
        load_model(folder)


def test_a_gate_with_nan_is_named(tmp_path: Path) -> None:
    folder = copied("deepseek-v4-tiny", tmp_path)
    name = "model.layers.1.ffn_hc.base"
    change_weights(folder, lambda weights: weights[name].__setitem__(3, float("nan")))
    with pytest.raises(ValueError, match=rf"parameter `{name}` in .* holds NaN or infinity"):
        load_model(folder)


def test_weights_without_a_gate_of_the_head_are_another_variant(tmp_path: Path) -> None:
    folder = copied("deepseek-v4-tiny", tmp_path)

    def drop(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if "hc_head" in name]:
            del weights[name]

    change_weights(folder, drop)
    with pytest.raises(ValueError, match=r"have no gate of the head .*DeepSeek-V4\.1 has none"):
        load_model(folder)


def test_a_parameter_of_another_variant_is_named(tmp_path: Path) -> None:
    folder = copied("hy-v4-tiny", tmp_path)
    change_weights(folder, lambda w: w.update({"model.layers.0.engram.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"`.*engram\.weight` is not expected"):
        load_model(folder)


Connection = deepseek.DeepseekV4HyperConnection


def test_mixing_the_other_way_round_is_refused_with_the_drift(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Code that uses ``comb`` as it is: its columns sum to one exactly, and not its rows."""
    forward = Connection.forward

    def turned(self: Any, streams: torch.Tensor) -> Any:
        post, comb, read = forward(self, streams)
        return post, comb.mT.contiguous(), read

    monkeypatch.setattr(Connection, "forward", turned)
    folder = copied("deepseek-v4-tiny", tmp_path)
    with pytest.raises(ValueError, match=r"rows of T sum to one only to 0\.0\d+, and it should to"):
        load_model(folder)
    assert load_model(folder, check=False).info.checks[-1] == "forward pass: not tried"


def test_gates_of_the_sublayer_before_are_refused_with_how_far_reads_are_off(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As DeepSeek-V4.1 reads: with the p of the sublayer before."""
    forward, before = Connection.forward, list[torch.Tensor]()

    def delayed(self: Any, streams: torch.Tensor) -> Any:
        post, comb, _ = forward(self, streams)
        normed = self.input_norm(streams.flatten(2))
        own = torch.sigmoid(normed @ self.fn[:4].T * self.scale[0] + self.base[:4])
        p = before[-1] if before and before[-1].shape == own.shape else own
        before.append(own)
        return post, comb, torch.einsum("bpn,bpnd->bpd", p, streams)

    monkeypatch.setattr(Connection, "forward", delayed)
    words = r"what `\w+\.\d` reads is not what its gates say, but \d\S* of its length away.*V4\.1"
    with pytest.raises(ValueError, match=words):
        load_model(copied("deepseek-v4-tiny", tmp_path))


@pytest.mark.parametrize(
    ("name", "gate", "words"),
    [
        ("deepseek-v4-tiny", "attn_hc.fn", "gates: stored in BF16, computed in float32"),
        (
            "gemma3n-tiny",
            "prediction_coefs.weight",
            "gates: stored in BF16, computed in the precision of the model",
        ),
    ],
)
def test_gates_in_half_precision_are_said_to_be(
    name: str, gate: str, words: str, tmp_path: Path
) -> None:
    folder = copied(name, tmp_path)

    def halve(weights: dict[str, torch.Tensor]) -> None:
        for each in [each for each in weights if each.endswith(gate)]:
            weights[each] = weights[each].bfloat16()

    change_weights(folder, halve)
    assert words in load_model(folder).info.checks


@pytest.mark.parametrize("name", BACKED)
def test_half_precision_is_rounding_away_from_it(name: str, tmp_path: Path) -> None:
    folder = copied(name, tmp_path)
    half = load_model(folder, dtype="bfloat16")
    gates = half.hook_dict.keys() & {"hyper.0.mlp.hook_post", "blocks.0.altup.hook_predict"}
    with torch.no_grad():
        _, cache = half.run_with_cache(TOKENS, names_filter=list(gates))
    (gate,) = cache.values()
    assert half.cfg.dtype == torch.bfloat16
    assert gate.dtype == (torch.bfloat16 if name == "gemma3n-tiny" else torch.float32)
