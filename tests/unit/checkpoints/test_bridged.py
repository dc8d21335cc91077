"""Loading a bridged model from a folder: what comes with it, and what is refused."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    PreTrainedTokenizerFast,
)

from mudd_interp.checkpoints import load_model
from mudd_interp.model.bridge import BridgeModel

WORDS = ["<|endoftext|>", "the", "cat", "sat", "on", "a", "mat"]
CONTEXT = 16
QKV = "gpt_neox.layers.1.attention.query_key_value.weight"


def load_bridged(*given: Any, **options: Any) -> BridgeModel:
    model = load_model(*given, **options)
    assert isinstance(model, BridgeModel)
    return model


def tiny_pythia() -> GPTNeoXForCausalLM:
    torch.manual_seed(3)
    config = GPTNeoXConfig(
        vocab_size=len(WORDS),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=0,
    )
    return GPTNeoXForCausalLM(config).eval()


def tokenizer() -> PreTrainedTokenizerFast:
    words = models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="a")
    backend = Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tiny_pythia().save_pretrained(tmp_path)
    return tmp_path


def change_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    path = folder / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, metadata={"format": "pt"})


def test_the_model_comes_with_its_tokenizer_and_where_it_is_from(folder: Path) -> None:
    tokenizer().save_pretrained(folder)
    model = load_bridged(folder)
    assert model.info.name == str(folder)
    assert model.info.revision is None
    assert model.info.digest is not None
    assert len(model.info.digest) == 64
    assert any("parameters" in check for check in model.info.checks)
    tokens = model.to_tokens("the cat sat")
    assert tokens.tolist() == [[1, 2, 3]]  # no token is put in front
    assert model.to_tokens("the cat", prepend_bos=True).tolist() == [[0, 1, 2]]
    with torch.no_grad():
        expected = tiny_pythia()(tokens).logits
        assert torch.allclose(model("the cat sat"), expected, rtol=0, atol=1e-6)
    continued = model.generate("the cat", 2, do_sample=False, stop_at_eos=False)
    assert str(continued).startswith("the cat ")
    gain = model.ln_final.original_component.weight
    assert torch.equal(model.tokens_to_residual_directions("sat"), model.W_U[:, 3] * gain)


def test_the_digest_is_of_the_configuration_too(folder: Path) -> None:
    first = load_bridged(folder, check=False).info.digest
    assert load_bridged(folder, dtype=torch.bfloat16, check=False).info.digest == first
    config = json.loads((folder / "config.json").read_text())
    change_config(folder, rope_parameters={**config["rope_parameters"], "rope_theta": 500.0})
    assert load_bridged(folder, check=False).info.digest != first


def test_a_model_that_is_not_tried(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = load_bridged(folder)
    monkeypatch.setattr(GPTNeoXForCausalLM, "forward", None)  # whoever runs it fails
    model = load_bridged(folder, check=False)
    monkeypatch.undo()
    assert model.info.checks[-1] == "forward pass: not tried"
    assert "blocks.0.attn.hook_rot_q" in model.hook_dict.keys() - tried.hook_dict.keys()
    tokens = torch.tensor([[1, 2, 3]])
    assert torch.equal(model(tokens), tried(tokens))
    with pytest.raises(ValueError, match="was not tried, since the model was loaded with check="):
        model.tokens_to_residual_directions(tokens)


def test_a_model_without_a_tokenizer_works_on_ids(folder: Path) -> None:
    model = load_bridged(str(folder), dtype=torch.bfloat16, device="cpu")
    assert model.tokenizer is None
    assert model.cfg.dtype == torch.bfloat16
    assert model(torch.tensor([1, 2, 3])).shape == (1, 3, len(WORDS))


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    config = GPT2Config(vocab_size=9, n_embd=16, n_layer=1, n_head=2, n_positions=8)
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    model = load_bridged(tmp_path)
    assert torch.equal(model.W_U, model.W_E.T)


def test_a_missing_parameter_is_named(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.pop(QKV))
    with pytest.raises(ValueError, match=r"layers\.1.*query_key_value\.weight` is missing"):
        load_bridged(folder)


def test_an_unexpected_parameter_is_named(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update(surprise=torch.zeros(2)))
    with pytest.raises(ValueError, match="`surprise` is not expected"):
        load_bridged(folder)


def test_a_wrong_shape_is_named(folder: Path) -> None:
    change_weights(folder, lambda weights: weights.update({QKV: torch.zeros(2, 2)}))
    with pytest.raises(ValueError, match=r"value\.weight` has shape \[2, 2\], expected \[48, 16\]"):
        load_bridged(folder)


def test_nan_is_named(folder: Path) -> None:
    change_weights(folder, lambda weights: weights[QKV].fill_(torch.nan))
    with pytest.raises(ValueError, match=r"layers\.1.*query_key_value\.weight` .*holds NaN"):
        load_bridged(folder)


def test_a_truncated_file_is_refused(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match="not a whole safetensors file"):
        load_bridged(folder)


class Evil:
    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


def test_a_pickle_with_code_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").unlink()
    marker = tmp_path / "ran"
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Evil(marker)))
    with pytest.raises(ValueError, match=r"pytorch_model\.bin is refused"):
        load_bridged(folder)
    assert not marker.exists()


def test_code_that_comes_with_a_model_is_refused(folder: Path) -> None:
    marker = folder / "ran"
    (folder / "modeling_own.py").write_text(f"open({str(marker)!r}, 'w')\n")
    own = {"AutoConfig": "modeling_own.OwnConfig", "AutoModelForCausalLM": "modeling_own.Own"}
    change_config(folder, model_type="own_model", auto_map=own)
    with pytest.raises(ValueError, match="needs code that comes with it"):
        load_bridged(folder)
    assert not marker.exists()


def test_an_unknown_kind_of_model_is_refused(folder: Path) -> None:
    change_config(folder, model_type="warp_drive")
    with pytest.raises(ValueError, match="'warp_drive', which neither mudd-interp nor the"):
        load_bridged(folder)


def test_a_kind_that_does_not_decode_is_refused(folder: Path) -> None:
    change_config(folder, model_type="dinov2")
    with pytest.raises(ValueError, match="cannot be read"):
        load_bridged(folder)


def test_a_contradictory_config_is_refused(folder: Path) -> None:
    change_config(folder, num_attention_heads=3)
    with pytest.raises(ValueError, match=r"cannot be read|do not belong together"):
        load_bridged(folder)


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config\.json"):
        load_bridged(tmp_path)


def test_what_is_not_on_this_machine_is_said_to_be_missing() -> None:
    with pytest.raises(ValueError, match="EleutherAI/pythia-99t is not in the hub's cache"):
        load_bridged("EleutherAI/pythia-99t", local_files_only=True)
