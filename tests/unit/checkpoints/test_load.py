import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from mudd_interp.checkpoints import load_model, names, own, save_model, weight_files
from mudd_interp.checkpoints.checks import check_runs
from mudd_interp.checkpoints.digest import model_digest
from mudd_interp.checkpoints.released import released_layout
from mudd_interp.config import ModelConfig
from mudd_interp.model import HookedMUDDTransformer
from mudd_interp.model.wirings import Plain
from tests.parity.family import FAMILY, random_model
from tests.unit.checkpoints import released_folder
from tests.unit.checkpoints.released_folder import in_order
from tests.unit.command import full_beyond

TOKENS = torch.tensor([[5, 3, 28, 0, 7]])


def load(folder: Path, **kwargs: Any) -> HookedMUDDTransformer:
    model = load_model(folder, **kwargs)
    assert isinstance(model, HookedMUDDTransformer)
    return model


def same(a: HookedMUDDTransformer, b: HookedMUDDTransformer) -> bool:
    states = a.state_dict(), b.state_dict()
    assert states[0].keys() == states[1].keys()
    return a.config == b.config and all(torch.equal(states[0][k], states[1][k]) for k in states[0])


# --- The released layout ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden() -> HookedMUDDTransformer:
    return load(released_folder.GOLDEN)


def test_what_is_recorded(golden: HookedMUDDTransformer):
    info = golden.info
    assert info.name == str(released_folder.GOLDEN)
    assert info.digest is not None
    assert len(info.digest) == 64
    assert info.revision is None
    assert info.checks[0] == "parameters: all 69 found and used (70,872 numbers)"
    assert [check.partition(":")[0] for check in info.checks] == [
        "parameters",
        "shapes",
        "values",
        "attention",
        "hooks",
        "dense weights",
    ]
    assert golden.tokenizer is None
    assert not golden.training


@pytest.mark.parametrize(
    ("rung", "edited", "plain"),
    [
        ("MUDDFormer", "qkvr", []),
        ("MUDDFormer - K dense", "qvr", ["k"]),
        ("+ Dynamic Dense", "r", []),
        ("Transformer++", "", ["q, k, v, r"]),
    ],
)
def test_dense_weights_are_edited_where_there_are_any(rung: str, edited: str, plain: list[str]):
    inputs, *weights = check_runs(random_model(FAMILY[rung]))[1:]
    assert re.findall(r"blocks\.1\.hook_(\w+) \(by up to", inputs) == [
        *(f"{stream}_input" for stream in "qkv"),
        "resid_pre",
    ]
    found = "".join(weights)
    assert re.findall(r"dense\.0\.hook_weights_(.) \(by up to", found) == [*edited]
    assert re.findall("none on (.*), by design", found) == plain


def test_a_loaded_model_is_whole(golden: HookedMUDDTransformer):
    tensors = [*golden.parameters(), *golden.buffers()]
    assert not any(t.is_meta for t in tensors)
    assert all(p.requires_grad and p.is_leaf for p in golden.parameters())
    assert torch.equal(golden.unembed.b_U, torch.zeros(101))
    assert "unembed.b_U" not in golden.state_dict()


def test_the_digest_is_of_the_model_not_of_the_folder(tmp_path: Path):
    one = load(released_folder.copy(tmp_path / "one"), check=False)
    other = load(released_folder.copy(tmp_path / "other"), check=False)
    assert one.info.digest == other.info.digest
    shards = load(released_folder.write_shards(tmp_path / "three"), check=False)
    again = load(released_folder.write_shards(tmp_path / "four"), check=False)
    assert shards.info.digest == again.info.digest != one.info.digest


@pytest.mark.parametrize(
    ("changes", "is_another"),
    [
        ({"rope_base": 500000}, True),
        ({"norm_eps": 1e-6}, True),
        ({"rope_base": 10000.0}, False),  # as it was, spelt as another kind of number
        ({"architectures": ["Renamed"], "use_cache": False}, False),
    ],
)
def test_the_digest_is_of_the_configuration_too(
    tmp_path: Path, golden: HookedMUDDTransformer, changes: dict[str, Any], is_another: bool
):
    folder = released_folder.copy(tmp_path)
    values = dict(reversed((released_folder.config() | changes).items()))
    (folder / "config.json").write_text(json.dumps(values))
    assert (load(folder, check=False).info.digest != golden.info.digest) == is_another


def test_equal_configurations_have_one_digest():
    files = weight_files.open_weights(released_folder.GOLDEN)
    first = model_digest({"base": 10000, "widths": [1, 2], "norm": True}, files)
    assert model_digest({"norm": True, "widths": [1.0, 2.0], "base": 1e4}, files) == first
    assert model_digest({"norm": True, "widths": [2, 1], "base": 1e4}, files) != first


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_shards_with_an_index(tmp_path: Path, golden: HookedMUDDTransformer, kind: str):
    assert same(load(released_folder.write_shards(tmp_path, kind)), golden)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_torch_files(tmp_path: Path, golden: HookedMUDDTransformer, zipped: bool):
    released_folder.copy(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    path = tmp_path / "pytorch_model.bin"
    torch.save(released_folder.weights(), path, _use_new_zipfile_serialization=zipped)
    assert same(load(tmp_path), golden)


def test_a_torch_file_larger_than_the_window(
    tmp_path: Path, golden: HookedMUDDTransformer, monkeypatch: pytest.MonkeyPatch
):
    """The file is mapped again many times; nothing is lost."""
    monkeypatch.setattr(weight_files, "MAPPED_BYTES", 1000)
    assert same(load(released_folder.write_shards(tmp_path, "bin")), golden)


def test_weights_do_not_hang_on_the_file(tmp_path: Path, golden: HookedMUDDTransformer):
    """A model stays what it is when its file is written over in place."""
    model = load(released_folder.copy(tmp_path))
    size = (tmp_path / "model.safetensors").stat().st_size
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * size)
    assert same(model, golden)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, "float16"], ids=str)
def test_dtype(golden: HookedMUDDTransformer, dtype: torch.dtype | str):
    model = load(released_folder.GOLDEN, dtype=dtype)
    expected = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert {p.dtype for p in model.parameters()} == {expected}
    assert model.unembed.b_U.dtype == model.cfg.dtype == expected
    assert torch.equal(model.W_E, golden.W_E.to(expected))


def test_the_dtype_is_the_checkpoints_own(tmp_path: Path):
    """That of most numbers: norms in float32 do not make a bfloat16 checkpoint larger."""
    tensors = {
        name: tensor if "norm" in name else tensor.bfloat16()
        for name, tensor in released_folder.weights().items()
    }
    model = load(released_folder.write(tmp_path, tensors))
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_conversion_is_free():
    """Every view shares the released tensor's memory, and has our parameter's layout."""
    cfg = ModelConfig.from_released(released_folder.config())
    model, tensors = HookedMUDDTransformer(cfg), released_folder.weights()
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    sources = released_layout(cfg, shapes, tensors)
    assert {source.name for source in sources.values()} == tensors.keys()
    for name, source in sources.items():
        view = source.view(tensors[source.name])
        assert view.data_ptr() == tensors[source.name].data_ptr()
        assert view.stride() == model.get_parameter(name).stride()


def plain_weights() -> dict[str, Tensor]:
    """The golden weights as a plain model's: one norm per block, no dense connections."""
    tensors = {
        name.replace("attention_norms.0", "attention_norm"): tensor
        for name, tensor in released_folder.weights().items()
        if "attention_norms.1" not in name and "attention_norms.2" not in name
    }
    assert any(name.startswith("dense_bs") for name in tensors)
    return tensors


def test_plain_models_fused_or_not(tmp_path: Path):
    """``wqkv`` holds queries, keys and values; parameters that are never read may be there."""
    separate = plain_weights()
    fused = {
        name: t for name, t in separate.items() if ".attention.w" not in name or ".wo." in name
    }
    for layer in range(3):
        for kind in ("weight", "bias"):
            parts = [separate[f"layers.{layer}.attention.{w}.{kind}"] for w in ("wq", "wk", "wv")]
            fused[f"layers.{layer}.attention.wqkv.{kind}"] = torch.cat(parts)
    changes = {"dense": False, "sepln": False}
    one = load(released_folder.write(tmp_path / "separate", separate, **changes))
    other = load(released_folder.write(tmp_path / "fused", fused, **changes))
    assert one.config.wiring == Plain()
    assert same(one, other)
    assert torch.equal(
        one.get_parameter("blocks.1.attn.W_K")[1].T, separate["layers.1.attention.wk.weight"][16:]
    )


def test_code_in_a_folder_is_not_run(tmp_path: Path, golden: HookedMUDDTransformer):
    """What transformers would import with ``trust_remote_code`` is not even looked at."""
    marker = tmp_path / "was_run"
    auto_map = {
        "AutoConfig": "configuration_muddpythia.MUDDPythiaConfig",
        "AutoModelForCausalLM": "modeling_muddpythia.MUDDPythia",
    }
    folder = released_folder.write(tmp_path / "m", released_folder.weights(), auto_map=auto_map)
    for name in ("configuration_muddpythia", "modeling_muddpythia"):
        (folder / f"{name}.py").write_text(f"open({str(marker)!r}, 'w')")
    assert same(load(folder), golden)
    assert not marker.exists()
    assert "modeling_muddpythia" not in sys.modules


# --- Our own folders ----------------------------------------------------------------------------


@pytest.mark.parametrize("rung", FAMILY)
def test_saved_and_loaded(tmp_path: Path, rung: str):
    model = random_model(FAMILY[rung])
    back = load(save_model(model, tmp_path / "m"))
    assert same(back, model)
    for name, parameter in model.named_parameters():
        assert back.get_parameter(name).stride() == parameter.stride(), name
    with torch.no_grad():
        assert torch.equal(back(TOKENS), model(TOKENS))


def test_saved_files_are_as_readable_as_any_other(tmp_path: Path):
    folder = save_model(random_model(FAMILY["MUDDFormer"]), tmp_path / "m")
    (tmp_path / "other").touch()
    usual = (tmp_path / "other").stat().st_mode
    assert {path.stat().st_mode for path in folder.iterdir()} == {usual}


def test_half_precision_storage(tmp_path: Path):
    model = random_model(FAMILY["MUDDFormer"]).half()
    save_model(model, tmp_path / "m")
    assert load(tmp_path / "m").cfg.dtype == torch.float16
    wide = load(tmp_path / "m", dtype=torch.float32)
    assert torch.equal(wide.W_U, model.W_U.float())


def word_tokenizer(words: list[str]) -> object:
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token=words[0]))
    tokenizer.pre_tokenizer = Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=words[0])


@pytest.mark.parametrize("end", ["<|endoftext|>", "</s>"])
def test_the_tokenizer_comes_with_the_model(tmp_path: Path, end: str):
    model = random_model(FAMILY["MUDDFormer"])
    model.tokenizer = word_tokenizer([end, "a", "rose", "is"])
    back = load(save_model(model, tmp_path / "m"))
    assert back.to_tokens("a rose is a rose").tolist() == [[1, 2, 3, 1, 2]]
    assert (back.tokenizer.eos_token, back.tokenizer.bos_token_id) == (end, 0)


def test_saving_again_needs_overwrite(tmp_path: Path):
    first, second = random_model(FAMILY["MUDDFormer"]), random_model(FAMILY["GPT-NeoX"])
    save_model(first, tmp_path / "m")
    with pytest.raises(ValueError, match=r"already holds a model.*overwrite=True"):
        save_model(second, tmp_path / "m")
    assert same(load(tmp_path / "m"), first)
    save_model(second, tmp_path / "m", overwrite=True)
    assert same(load(tmp_path / "m"), second)
    assert [path.name for path in tmp_path.iterdir()] == ["m"]


@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_not_a_model_is_never_replaced(tmp_path: Path, overwrite: bool):
    model = random_model(FAMILY["MUDDFormer"])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.tex, which is not part"):
        save_model(model, tmp_path / "notes", overwrite)
    with pytest.raises(ValueError, match="is a file"):
        save_model(model, tmp_path / "notes" / "thesis.tex", overwrite)
    assert (tmp_path / "notes" / "thesis.tex").read_text() == "years of work"


def test_a_save_that_fails_leaves_things_as_they_were(tmp_path: Path):
    model = random_model(FAMILY["MUDDFormer"])
    save_model(model, tmp_path / "old")
    for name in ("old", "new"):
        words = f"cannot write the model to {tmp_path / name}", "too large", "Make room"
        with full_beyond(5_000), pytest.raises(ValueError, match=in_order(*words)):
            save_model(random_model(FAMILY["GPT-NeoX"]), tmp_path / name, overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["old"]
    assert same(load(tmp_path / "old"), model)


def test_models_keep_the_digest_that_they_had_when_flags_were_the_wiring():
    """Older results, manifests and links are of the same models."""
    assert {name: load_model(name).info.digest for name in ("mudd-tiny", "tfm-tiny")} == {
        "mudd-tiny": "29fe3d3e69f0d56d60303804bde8a5a8193d644afcb98d7aeb87c95675055787",
        "tfm-tiny": "80c95d412bc9d4529757d7a7ead6b8efc94b04f3c9cb93be8a10b861819f4fe8",
    }


def test_only_models_of_this_project_are_saved(tmp_path: Path):
    with pytest.raises(ValueError, match="cannot save a Linear: expected a HookedMUDDTransformer"):
        save_model(torch.nn.Linear(2, 2), tmp_path / "m")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format_version": 3}, ["format_version must be 1 or 2, got 3", "upgrade"]),
        ({"d_modle": 16}, ["`d_modle`", "did you mean `d_model`"]),
        ({"rotary_dim": 3}, ["rotary_dim must be even"]),
    ],
)
def test_bad_configurations_of_our_own(tmp_path: Path, change: dict[str, object], words: list[str]):
    folder = save_model(random_model(FAMILY["MUDDFormer"]), tmp_path / "m")
    values = json.loads((folder / "config.json").read_text()) | change
    (folder / "config.json").write_text(json.dumps(values))
    with pytest.raises(ValueError, match=in_order(str(folder / "config.json"), *words)):
        load_model(folder)


# --- The bundled pair ---------------------------------------------------------------------------


def test_bundled_models_are_float32_and_have_the_tokenizer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = random_model(FAMILY["MUDDFormer"])
    save_model(model.half(), tmp_path / "mudd-tiny")
    bundled = names.BUNDLED_FOLDER
    (tmp_path / "tokenizer.json").write_bytes((bundled / "tokenizer.json").read_bytes())
    monkeypatch.setattr(names, "BUNDLED_FOLDER", tmp_path)
    loaded = load_model("mudd-tiny")
    assert loaded.info.name == "mudd-tiny"
    assert loaded.cfg.dtype == torch.float32
    assert loaded.tokenizer.decode(loaded.tokenizer("def area(r):")["input_ids"]) == "def area(r):"
    assert loaded.tokenizer.eos_token == "<|endoftext|>"
    half = load_model("mudd-tiny", dtype="float16", check=False)
    assert half.cfg.dtype == torch.float16
    with pytest.raises(ValueError, match=r"tfm-tiny is not in this installation.*train tiny-pair"):
        load_model("tfm-tiny")


PEAKS = """
import gc
import sys
from pathlib import Path
from mudd_interp.checkpoints import load_model, weight_files

def memory(field):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(field + ":")[2].split()[0])

weight_files.MAPPED_BYTES = 2**22
load_model(sys.argv[1])  # what is imported on the way is not counted
for folder in sys.argv[2:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak is counted from here
    before = memory("VmRSS")
    model = load_model(folder, dtype="float32", check=False)
    print(memory("VmHWM") - before)
    del model
    gc.collect()
"""


@pytest.mark.slow
@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="needs Linux")
def test_memory_is_that_of_the_weights(tmp_path: Path):
    """At the peak the weights are there once; of the file, one tensor or one window at a time."""
    cfg = ModelConfig(n_layers=24, d_model=256, n_heads=8, d_vocab=1024, d_mlp=768, wiring=Plain())
    with torch.device("meta"):
        state = HookedMUDDTransformer(cfg).state_dict()
    weights = {name: torch.ones(weight.shape).bfloat16() for name, weight in state.items()}
    folders = [tmp_path / "safetensors", tmp_path / "bin"]
    for folder in folders:
        folder.mkdir()
        (folder / "config.json").write_text(own.own_config_text(cfg))
    save_file(weights, folders[0] / "model.safetensors")
    torch.save(weights, folders[1] / "pytorch_model.bin")
    program = [sys.executable, "-c", PEAKS, str(released_folder.GOLDEN), *map(str, folders)]
    freed_at_once = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}
    run = subprocess.run(program, capture_output=True, text=True, check=True, env=freed_at_once)
    size = 4 * sum(weight.numel() for weight in weights.values())
    peaks = [int(line) / size for line in run.stdout.split()]
    assert all(0.95 < peak < 1.25 for peak in peaks), peaks
