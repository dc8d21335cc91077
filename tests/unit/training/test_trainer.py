"""The trainer on a stand-in model: to the bit, by hand, and with errors that name the fix."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mudd_interp.training.examples import TextExamples
from mudd_interp.training.schedule import Recipe, decays, learning_rate, make_optimizer
from mudd_interp.training.trainer import CHECKPOINT, LOG, Schedule, Trainer
from tests.unit.command import full_beyond

N_CTX, D_VOCAB = 8, 32
RECIPE = Recipe(steps=12, batch=4, peak_lr=1e-2)


class StandIn(nn.Module):
    """Next token from a causal mean of embeddings; the weights are strided, as the models' are."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.W_E = nn.Parameter(torch.randn(D_VOCAB, 16))
        self.W_U = nn.Parameter(torch.randn(D_VOCAB, 16).T)
        self.b_U = nn.Parameter(torch.zeros(D_VOCAB))

    def forward(self, tokens, return_type="logits"):
        assert return_type == "logits"
        mean = self.W_E[tokens].cumsum(1) / torch.arange(1, tokens.shape[1] + 1)[:, None]
        return F.dropout(mean, 0.1, self.training) @ self.W_U + self.b_U


def stream(n_tokens: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, D_VOCAB, n_tokens).astype(np.uint16)


def trainer(folder: Path, recipe: Recipe = RECIPE, schedule: Schedule | None = None) -> Trainer:
    schedule = schedule or Schedule(log=2, validate=4, save=3)
    return Trainer(StandIn(), recipe, examples(recipe), folder, schedule=schedule)


def examples(recipe: Recipe) -> TextExamples:
    return TextExamples(recipe, stream(48 * N_CTX + 1), stream(100, 1), N_CTX, validation_rows=4)


def log_lines(folder: Path) -> list[list[str]]:
    lines = (folder / LOG).read_text().splitlines()[1:]
    return [[c for i, c in enumerate(line.split(",")) if i != 5] for line in lines]  # not the speed


@pytest.mark.parametrize("stop", [3, 5])
def test_a_resumed_run_equals_an_unbroken_one_to_the_bit(tmp_path, stop):
    straight = trainer(tmp_path / "straight")
    straight.run()
    trainer(tmp_path / "broken").run(until=stop)
    torch.manual_seed(99)
    resumed = trainer(tmp_path / "broken")
    assert resumed.step == stop
    resumed.run()
    for name, value in straight.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name
    last = [torch.load(tmp_path / run / CHECKPOINT) for run in ("straight", "broken")]
    for old, new in zip(*(s["optimizer"]["state"].values() for s in last), strict=True):
        assert all(torch.equal(old[key], new[key]) for key in old)
    assert log_lines(tmp_path / "broken") == log_lines(tmp_path / "straight")


def test_steps_after_the_last_checkpoint_are_run_again(tmp_path):
    trainer(tmp_path / "killed").run(until=6)
    saved = (tmp_path / "killed" / CHECKPOINT).read_bytes()
    trainer(tmp_path / "killed").run(until=10)
    (tmp_path / "killed" / CHECKPOINT).write_bytes(saved)  # as if killed after step 10, unsaved
    trainer(tmp_path / "killed").run()
    trainer(tmp_path / "straight").run()
    assert log_lines(tmp_path / "killed") == log_lines(tmp_path / "straight")


def test_every_row_is_seen_once():
    given = examples(Recipe(steps=12, batch=4, micro_batch=3))
    seen = torch.cat([ids for step in range(12) for ids, _ in given.batches(step)])
    expected = torch.from_numpy(stream(48 * N_CTX + 1)[:-1].astype(np.int64)).view(-1, N_CTX)
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, expected.tolist()))


def test_training_lowers_the_loss_of_a_learnable_stream(tmp_path):
    periodic = np.tile(np.arange(4, dtype=np.uint16), 400)
    recipe = Recipe(steps=40, batch=4, peak_lr=0.1)
    given = TextExamples(recipe, periodic, periodic, N_CTX)
    run = Trainer(StandIn(), recipe, given, tmp_path)
    before = run.validation_loss()
    run.run()
    assert run.validation_loss() < 0.3 * before


def test_more_steps_than_rows_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected at least 52 training rows .* got 48"):
        trainer(tmp_path, Recipe(steps=13, batch=4))


def test_another_recipe_does_not_resume(tmp_path):
    trainer(tmp_path).run(until=3)
    with pytest.raises(ValueError, match=r"peak_lr=0.01, this run wants 0.5: choose another"):
        trainer(tmp_path, Recipe(steps=12, batch=4, peak_lr=0.5))


@pytest.mark.parametrize("kept", [-50, 100, 0])
def test_a_damaged_checkpoint_is_named_and_stays(tmp_path, kept):
    trainer(tmp_path).run(until=3)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:kept])
    before = path.read_bytes()
    with pytest.raises(ValueError, match=r"damaged or not a checkpoint: .* remove the file"):
        trainer(tmp_path)
    assert path.read_bytes() == before


def test_a_loss_that_is_not_finite_stops_and_keeps_the_checkpoint(tmp_path):
    run = trainer(tmp_path)
    run.run(until=3)
    saved = (tmp_path / CHECKPOINT).read_bytes()
    with torch.no_grad():
        run.model.get_parameter("W_U").fill_(torch.nan)
    with pytest.raises(ValueError, match="expected a finite loss, got nan at step 3"):
        run.run()
    assert (tmp_path / CHECKPOINT).read_bytes() == saved


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    trainer(tmp_path).run(until=3)
    saved = (tmp_path / CHECKPOINT).read_bytes()
    with full_beyond(len(saved) // 2), pytest.raises(ValueError, match="the disk may be full"):
        trainer(tmp_path).run()
    assert {path.name for path in tmp_path.iterdir()} == {CHECKPOINT, LOG}
    assert (tmp_path / CHECKPOINT).read_bytes() == saved
    resumed = trainer(tmp_path)
    assert resumed.step == 3
    resumed.run()


class Wider(StandIn):
    """The same recipe for another model."""

    def __init__(self):
        super().__init__()
        self.b_U = nn.Parameter(torch.zeros(D_VOCAB + 1))


def test_the_checkpoint_of_another_model_is_refused_in_words(tmp_path):
    trainer(tmp_path).run(until=3)
    saved = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match=r"of another model: its `b_U` is \[32\], .* \[33\]"):
        Trainer(Wider(), RECIPE, examples(RECIPE), tmp_path)
    assert (tmp_path / CHECKPOINT).read_bytes() == saved


def test_a_checkpoint_that_was_changed_is_refused(tmp_path):
    trainer(tmp_path).run(until=3)
    state = torch.load(tmp_path / CHECKPOINT)
    old = {name: value for name, value in state.items() if name != "sha256"}
    torch.save(old, tmp_path / CHECKPOINT)
    assert trainer(tmp_path).step == 3  # as in version 0.1
    for change in ({"step": 4}, {"step": True}, {"rng": 1}, {"model": []}, {"more": 1}):
        torch.save(state | change, tmp_path / CHECKPOINT)
        with pytest.raises(ValueError, match=r"checkpoint\.pt is damaged"):
            trainer(tmp_path)


def test_a_full_disk_at_the_first_line_leaves_a_log_that_gets_its_header(tmp_path):
    run = trainer(tmp_path, schedule=Schedule(log=1, validate=4, save=3))
    with full_beyond(10), pytest.raises(ValueError, match=r"cannot write .*log\.csv"):
        run.run(until=1)
    assert not (tmp_path / LOG).read_bytes()
    trainer(tmp_path).run(until=4)
    assert (tmp_path / LOG).read_text().startswith('"step","tokens",')
    assert [line[0] for line in log_lines(tmp_path)] == ["2", "4"]


@pytest.mark.parametrize("text", ["something\n", "step,tokens\n1,2\n"])
def test_what_is_no_log_is_refused(tmp_path, text):
    (tmp_path / LOG).write_text(text)
    with pytest.raises(ValueError, match=r"log\.csv is not the log of a run"):
        trainer(tmp_path)


def test_half_a_line_of_a_log_is_dropped(tmp_path):
    trainer(tmp_path).run(until=6)
    whole = (tmp_path / LOG).read_bytes()
    (tmp_path / LOG).write_bytes(whole + b"1")
    trainer(tmp_path)
    assert (tmp_path / LOG).read_bytes() == whole


def test_learning_rate_by_hand():
    recipe = Recipe(steps=200, peak_lr=1.0, warmup=0.01, final_lr=0.1)  # 2 steps up, 198 down
    assert learning_rate(recipe, 0) == 0.5
    assert learning_rate(recipe, 1) == 1.0
    assert learning_rate(recipe, 100) == pytest.approx(0.55)  # half-way: (1 + 0.1) / 2
    assert learning_rate(recipe, 199) == pytest.approx(0.1)


def test_only_projections_decay():
    names = ("embed.W_E", "blocks.0.attn.W_Q", "blocks.0.attn.b_Q", "ln_final.w", "dense.0.a")
    matrix = nn.Parameter(torch.ones(2, 2))
    assert [name for name in names if decays(name, matrix)] == ["blocks.0.attn.W_Q"]
    groups = make_optimizer(StandIn().named_parameters(), RECIPE).param_groups
    assert [len(group["params"]) for group in groups] == [1, 2]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0]
