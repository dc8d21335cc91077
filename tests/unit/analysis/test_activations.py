"""Activations row by row: what the hooks show, in order, to the bit; on disk, and back."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import GPT2Config, GPT2LMHeadModel

import mudd_interp as mi
from mudd_interp import axes
from mudd_interp.analysis import activation_files
from mudd_interp.data import token_batches
from mudd_interp.model.bridge import BridgeModel
from mudd_interp.protocol import ModelInfo, Observer
from tests.parity.family import FAMILY, random_model, random_tokens

ROOT = Path(__file__).parents[3]
VALUES, OUTPUT = axes.stream_input(1, "v"), axes.resid_post(1)
SHAPES = [(2, 7), (2, 7), (3, 7), (2, 7), (1, 3)]


def work(name: str = "MUDDFormer") -> tuple[Any, list[torch.Tensor]]:
    model = random_model(FAMILY[name])
    return model, [random_tokens(model.config, *shape, seed=i) for i, shape in enumerate(SHAPES)]


def gpt2() -> BridgeModel:
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=29,
        n_embd=16,
        n_layer=3,
        n_head=2,
        n_positions=24,
        bos_token_id=0,
        eos_token_id=0,
    )
    return BridgeModel.from_module(GPT2LMHeadModel(config))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["MUDDFormer", "Transformer++", "PrePostDANorm, Eq. 10", "GPT-2"])
def test_the_rows_of_every_hook_are_those_of_the_cache(name: str):
    model = gpt2() if name == "GPT-2" else random_model(FAMILY[name])
    tokens = torch.stack([torch.arange(7), torch.arange(7, 14)])
    hooks = [hook for hook in model.hook_dict if not axes.of_pairs(hook)]
    assert len(hooks) > 30
    for hook in hooks:
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, names_filter=hook)
        (rows,) = mi.activations(model, [tokens], hook, flatten_heads=True)
        assert torch.equal(rows, cache[hook].reshape(14, -1)), hook


def test_a_row_is_a_token_sequence_by_sequence():
    model, batches = work()
    found = list(mi.activations(model, batches, VALUES))
    assert [len(rows) for rows in found] == [14, 14, 21, 14, 3]
    with torch.no_grad():
        _, cache = model.run_with_cache(batches[2], names_filter=VALUES)
    assert torch.equal(found[2][1 * 7 + 4], cache[VALUES][1, 4])
    assert not any(rows.requires_grad for rows in found)


def test_blocks_that_are_not_needed_are_not_run():
    model, batches = work()
    fired = []
    look = Observer(lambda _, hook: fired.append(hook.name))
    for hook, last in ((VALUES, 1), ("dense.0.hook_weights_v", 0), (axes.EMBED, 0)):
        fired.clear()
        with model.hooks([(name, look) for name in model.hook_dict]):
            next(mi.activations(model, batches, hook))
        blocks = {int(name.split(".")[1]) for name in fired if name.startswith("blocks.")}
        assert max(blocks, default=0) == last
        assert hook in fired
    assert not any(point.fwd_hooks for point in model.hook_dict.values())


def test_several_hooks_share_a_pass_and_it_goes_on_anywhere():
    model, batches = work()
    passes = []
    with model.hooks([(axes.EMBED, lambda x, hook: passes.append(len(x)))]):
        both = list(mi.activations(model, batches, [OUTPUT, VALUES]))
        assert passes == [2, 2, 3, 2, 1]
        later = list(mi.activations(model, batches, VALUES, start=3))
        assert passes[5:] == [2, 1]
    assert list(both[0]) == [OUTPUT, VALUES]
    assert all(torch.equal(a, b[VALUES]) for a, b in zip(later, both[3:], strict=True))


def test_edits_and_precision_are_those_asked_for():
    model, batches = work()
    plain = list(mi.activations(model, batches, VALUES))
    with mi.edited(model, "cut v 0<-0"):
        cut = list(mi.activations(model, batches, VALUES, dtype="float32"))
        _, cache = model.run_with_cache(batches[3], names_filter=VALUES)
    assert {rows.dtype for rows in cut} == {torch.float32}
    assert not any(torch.allclose(a.float(), b) for a, b in zip(plain, cut, strict=True))
    torch.testing.assert_close(cut[3], cache[VALUES].flatten(0, 1).float())
    with model.hooks([(VALUES, lambda x, hook: x * 1e6)]):
        with pytest.raises(ValueError, match=r"which torch\.float16 cannot hold: give dtype=torch"):
            next(mi.activations(model, batches, VALUES, dtype=torch.float16))
        next(mi.activations(model, batches, VALUES, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("hook", "options", "words"),
    [
        ("blocks.1.hook_v_inputs", {}, r"did you mean `blocks\.1\.hook_v_input`"),
        ([VALUES, "hook_embd"], {}, "did you mean `hook_embed`"),
        ([], {}, "expected at least one hook"),
        (axes.pattern(1), {"flatten_heads": True}, "a number for each query and key"),
        (VALUES, {"dtype": "int8"}, "dtype must be one of"),
        (VALUES, {"start": -1}, "start must be 0 or more"),
    ],
)
def test_what_cannot_be_read_is_refused_at_once(hook: Any, options: Any, words: str):
    model, batches = work()
    with pytest.raises(ValueError, match=words):
        mi.activations(model, batches, hook, **options)
    with pytest.raises(ValueError, match="training mode"):
        mi.activations(model.train(), batches, VALUES)


def test_a_vector_for_each_head_is_refused_unless_all_are_wanted_side_by_side():
    model, batches = work()
    with pytest.raises(ValueError, match=r"for each head, \[2, 8\]: give flatten_heads=True"):
        next(mi.activations(model, batches, axes.attn(1, "hook_z")))
    with pytest.raises(ValueError, match="wrap a tensor as"):
        next(mi.activations(model, batches[0], VALUES))


def test_hooks_that_stand_for_one_another_are_read_together():
    model, batches = work()
    norms = [f"blocks.0.{norm}.hook_scale" for norm in ("ln1", "ln1_q", "ln1_k", "ln1_v")]
    rows = next(mi.activations(model, batches, norms))
    assert list(rows) == norms
    assert all(torch.equal(rows[norm], rows[norms[0]]) for norm in norms)


# --- On disk ------------------------------------------------------------------------------------


def save(folder: Path, given: Any = None, hooks: Any = (VALUES, OUTPUT), **options: Any) -> Any:
    model, batches = work() if given is None else given
    return mi.save_activations(model, batches, list(hooks), folder, rows_per_file=20, **options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_folder_holds_the_rows_and_says_what_each_is_of(tmp_path: Path):
    model, batches = work()
    stored = save(tmp_path / "a")
    assert stored == mi.open_activations(tmp_path / "a")
    assert [shard.rows for shard in stored.shards] == [28, 21, 17]
    assert (len(stored), stored.provenance.tokens, stored.provenance.sequences) == (66, 66, 10)
    assert stored.widths == {VALUES: 16, OUTPUT: 16}
    expected = torch.cat(list(mi.activations(model, batches, VALUES)))
    for size in (1, 9, 20, 66, 100):
        parts = list(stored.rows(VALUES, size=size))
        assert {len(part) for part in parts[:-1]} <= {size}
        assert torch.equal(torch.cat(parts), expected)
    flat = np.concatenate([tokens.flatten().numpy() for tokens in batches])
    assert stored.places["token_id"].tolist() == flat.tolist()
    assert stored.places.iloc[28 + 7 + 3].tolist()[:2] == [5, 3]
    # Also without this library.
    file = load_file(tmp_path / "a" / "00001.safetensors")
    assert torch.equal(file[VALUES], expected[28:49])
    assert file["sequence"].tolist() == [4] * 7 + [5] * 7 + [6] * 7


def test_rows_in_a_random_order_are_all_there_once_and_belong_together(tmp_path: Path):
    stored = save(tmp_path / "a")
    expected = torch.cat(list(stored.rows(VALUES)))
    first, again, other = (torch.cat(list(stored.rows(VALUES, size=9, seed=s))) for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert not torch.equal(first, expected)
    assert torch.equal(first.sort(0).values, expected.sort(0).values)
    pairs = list(stored.rows([VALUES, OUTPUT], size=9, seed=1))
    assert torch.equal(torch.cat([pair[VALUES] for pair in pairs]), first)
    outputs = torch.cat(list(stored.rows(OUTPUT)))
    for pair in pairs:
        at = (expected[None] == pair[VALUES][:, None]).all(-1).int().argmax(1)
        assert torch.equal(outputs[at], pair[OUTPUT])
    for start in (0, 2, 3, 7):
        late = list(stored.rows(VALUES, size=9, seed=1, start=start))
        assert torch.equal(torch.cat(late), first[9 * start :])
    assert list(stored.rows(VALUES, size=9, start=8)) == []


@pytest.mark.parametrize("after", [0, 1, 2])
def test_an_interrupted_run_goes_on_and_gives_the_same_bits(after: int, tmp_path: Path):
    save(tmp_path / "whole")
    left = [after]

    def stop(*_: int) -> None:
        if left[0] == 0:
            raise KeyboardInterrupt
        left[0] -= 1

    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "part", progress=stop)
    assert sorted(contents(tmp_path / "part")) == [f"0000{i}.safetensors" for i in range(after + 1)]
    with pytest.raises(ValueError, match=r"is not complete: repeat the call of save_activations"):
        mi.open_activations(tmp_path / "part")
    (tmp_path / "part" / ".00002.safetensors.f00.tmp").touch()  # of a process that was killed
    passes, (model, batches) = [], work()
    with model.hooks([(axes.EMBED, lambda x, hook: passes.append(len(x)))]):
        save(tmp_path / "part", (model, batches))
    assert contents(tmp_path / "part") == contents(tmp_path / "whole")
    # The first batch is run once more, to see that the model is the same.
    assert passes == [2, *[[3, 2, 1], [2, 1], []][after]]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("name", "another model"),
        ("weights", "another model, or of one that was edited"),
        ("edit", "another model, or of one that was edited"),
        ("text", "another text"),
        ("shorter", r"a longer text \(00001"),
        ("hook", "another options"),
        ("dtype", "another options"),
        ("thesis", r"something else \(thesis\.txt\)"),
        ("damaged", r"00000\.safetensors is damaged"),
    ],
)
def test_what_is_there_of_something_else_is_refused_and_stays(
    change: str, words: str, tmp_path: Path
):
    (model, batches), folder = work(), tmp_path / "a"
    save(folder)
    options: dict[str, Any] = {}
    if change == "name":
        model.info = ModelInfo("another")
    if change == "weights":
        model.blocks[0].mlp.W_in.data.neg_()
    if change == "text":
        batches[4] = batches[4].flip(1)
    if change == "shorter":
        batches = batches[:2]
    if change == "hook":
        options["hooks"] = [OUTPUT]
    if change == "dtype":
        options["dtype"] = "float32"
    if change == "thesis":
        (folder / "thesis.txt").touch()
    if change == "damaged":
        (folder / "00000.safetensors").write_bytes(b"half")
    before = contents(folder)
    edits = "cut v 0<-0" if change == "edit" else ()
    with mi.edited(model, edits), pytest.raises(ValueError, match=words):
        save(folder, (model, batches), **options)
    assert contents(folder) == before


def test_a_file_that_was_changed_is_not_read_and_can_be_made_again(tmp_path: Path):
    stored = save(tmp_path / "a")
    before, path = contents(tmp_path / "a"), tmp_path / "a" / "00001.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    walk = stored.rows(VALUES, size=28)
    next(walk)
    with pytest.raises(ValueError, match=r"00001\.safetensors is missing, or is not what"):
        next(walk)
    path.unlink()
    save(tmp_path / "a")
    assert contents(tmp_path / "a") == before


def test_what_is_no_folder_of_activations_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match="no activations at"):
        mi.open_activations(tmp_path)
    stored = save(tmp_path / "a")
    with pytest.raises(ValueError, match=r"holds blocks.*: name one"):
        stored.rows()
    with pytest.raises(ValueError, match="did you mean"):
        stored.rows("blocks.1.hook_v_inputs")
    with pytest.raises(ValueError, match="size must be 1 or more"):
        stored.rows(VALUES, size=0)
    for damage in ("{", "[]", json.dumps({"files": []})):
        (tmp_path / "a" / "index.json").write_text(damage)
        with pytest.raises(ValueError, match=r"index\.json is damaged"):
            mi.open_activations(tmp_path / "a")
    with pytest.raises(ValueError, match="there are no batches"):
        save(tmp_path / "b", (work()[0], []))
    with pytest.raises(ValueError, match="rows_per_file must be at least 1"):
        mi.save_activations(*work(), VALUES, tmp_path / "b", rows_per_file=0)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file"):
        save(tmp_path / "file")
    assert not (tmp_path / "b").exists()


def test_half_precision_takes_half_the_room_and_one_hook_needs_no_name(tmp_path: Path):
    model, batches = work()
    stored = mi.save_activations(model, batches, VALUES, tmp_path / "a", dtype=torch.bfloat16)
    (rows,) = stored.rows()
    expected = torch.cat(list(mi.activations(model, batches, VALUES)))
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, expected.bfloat16())


def test_files_are_written_as_they_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Memory is flat: no more batches are held than one file takes."""
    model, _ = work()
    held, most = 0, []
    write = activation_files._Writer.shard

    def batches():
        nonlocal held
        for seed in range(12):
            held += 1
            most.append(held)
            yield random_tokens(model.config, 2, 10, seed=seed)

    def shard(self: Any, *arguments: Any) -> Any:
        nonlocal held
        held = 0
        return write(self, *arguments)

    monkeypatch.setattr(activation_files._Writer, "shard", shard)
    mi.save_activations(model, batches(), VALUES, tmp_path / "a", rows_per_file=40)
    assert max(most) == 2
    assert len(mi.open_activations(tmp_path / "a")) == 240


SCRIPT = """
import sys
from datetime import timedelta
import torch
import torch.distributed as dist
import mudd_interp as mi
from tests.unit.analysis import test_activations as here

dist.init_process_group("gloo", timeout=timedelta(seconds=200))
rank = dist.get_rank()
stored = here.save(here.Path(sys.argv[1]) / "stored")
assert len(stored) == 66
rows = list(mi.activations(*here.work(), here.VALUES))
torch.save(rows, f"{sys.argv[1]}/rows.{rank}")
dist.destroy_process_group()
"""


@pytest.mark.slow
def test_two_processes_write_what_one_does_and_share_the_batches(tmp_path: Path):
    save(tmp_path / "one")
    # One file of an interrupted run in one process is there already.
    (tmp_path / "stored").mkdir()
    first = tmp_path / "one" / "00001.safetensors"
    (tmp_path / "stored" / first.name).write_bytes(first.read_bytes())
    (tmp_path / "script.py").write_text(SCRIPT)
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    run = subprocess.run(
        [sys.executable, *command, tmp_path / "script.py", tmp_path],
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        timeout=300,
    )
    assert run.returncode == 0
    assert contents(tmp_path / "stored") == contents(tmp_path / "one")
    whole = list(mi.activations(*work(), VALUES))
    for rank in (0, 1):
        share = torch.load(tmp_path / f"rows.{rank}", weights_only=True)
        assert all(map(torch.equal, share, whole[rank::2]))
        assert len(share) == len(whole[rank::2])


def test_batches_with_a_description_are_named(tmp_path: Path):
    model, batches = work()
    stored = save(tmp_path / "a", (model, token_batches(batches[0], description="two lines")))
    assert stored.provenance.data == ("two lines",)
    assert stored.provenance.model == "random weights"
