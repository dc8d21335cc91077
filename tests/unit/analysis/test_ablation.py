"""Sweeps over edits: against one pass for each, resumed, merged, and what is refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import mudd_interp as mi
from mudd_interp.analysis import AblationSweep, Result, ablation_sweep, dense_weights
from mudd_interp.analysis.bootstrap import mean_and_interval
from mudd_interp.edits import every_edge
from mudd_interp.model.bridge import BridgeModel
from mudd_interp.protocol import ModelInfo
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit.model.test_bridge import neox

EDITS = ["cut v 1<-0", "cut r *<-*; cut head 2.1", "mean * 1<-* @1-2", "cut mlp 0"]
ARRAYS = ("loss_sum", "loss_change", "kl_sum", "logit_change")


def made(name="MUDDFormer", digest="1" * 64):
    model = random_model(FAMILY[name])
    model.info = ModelInfo(name="made", digest=digest)
    config = model.config
    return model, [random_tokens(config, 3, 7), random_tokens(config, 1, 4, seed=2)]


def naive(model, batches, edits, means, pair):
    """Each effect straight from its definition, with a forward pass of its own."""
    for tokens in batches:
        before = model(tokens).detach()
        following = F.one_hot(tokens[:, 1:], model.cfg.d_vocab).bool()
        rival = before[:, :-1].masked_fill(following, -torch.inf).argmax(-1)
        rival = F.one_hot(rival, model.cfg.d_vocab).bool()
        for edit in edits:
            both = before, mi.run(model, edit, tokens, means=means).detach()
            losses = [model.loss_fn(each, tokens, per_token=True).sum(1) for each in both]
            logs = [each.log_softmax(-1) for each in both]
            kl = F.kl_div(logs[1], logs[0], log_target=True, reduction="none").sum((1, 2))
            margins = [
                (each[:, :-1] * following - each[:, :-1] * rival).sum((1, 2))
                if pair is None
                else each[:, -1, pair[0]] - each[:, -1, pair[1]]
                for each in both
            ]
            yield torch.stack([losses[1] - losses[0], kl, margins[1] - margins[0]]).numpy()


@pytest.mark.parametrize(
    ("name", "pair"),
    [("MUDDFormer", None), ("MUDDPythia", (3, 5)), ("PrePostDANorm, Eq. 10", None)],
)
def test_the_fast_sweep_is_the_naive_one(name, pair):
    model, batches = made(name)
    means = dense_weights(model, batches)
    edits = [*EDITS, *every_edge(model)]
    found = ablation_sweep(model, batches, edits, means=means, pair=pair)
    rows = list(naive(model, batches, edits, means, pair))
    half = len(edits)
    for row in range(half):
        expected = np.concatenate([rows[row], rows[half + row]], axis=1)
        mine = np.stack([found.loss_change[row], found.kl_sum[row], found.logit_change[row]])
        np.testing.assert_allclose(mine, expected, rtol=1e-12, atol=1e-11)
    assert found.frame["edits"].tolist() == [str(edit) for edit in edits]
    assert found.loss == pytest.approx(
        np.average([model.loss(tokens).item() for tokens in batches], weights=[18, 3])
    )


def test_a_bridge_is_swept_pass_by_pass():
    torch.manual_seed(0)
    model = BridgeModel.from_module(neox().double())
    batches = [torch.randint(50, (2, 6))]
    edits = ["cut head 1.2", "cut r 0<-1", "cut mlp 1"]
    found = ablation_sweep(model, batches, edits)
    expected = np.stack(list(naive(model, batches, edits, None, None)), axis=1)
    mine = np.stack([found.loss_change, found.kl_sum, found.logit_change])
    np.testing.assert_allclose(mine, expected, rtol=1e-9, atol=1e-12)


def test_labels_and_intervals_of_the_table():
    model, batches = made()
    sweep = ablation_sweep(model, batches, ["cut v 1<-0", "cut head 2.1", "cut r *<-*; cut mlp 0"])
    frame = sweep.frame
    assert frame["action"].tolist() == ["cut", "cut", None]
    assert frame["stream"].tolist() == ["v", None, None]
    assert frame["layer"].tolist()[:2] == [1, 2]
    assert frame["layer"].isna().tolist() == [False, False, True]
    assert frame["head"].tolist()[1] == 1
    low, loss, high = frame[["loss_low", "loss", "loss_high"]].to_numpy().T
    assert np.all((low < loss) & (loss < high))


def test_the_interval_of_a_mean_by_hand():
    # Two sequences: means 0, 1/2 and 1 are drawn with probabilities 1/4, 1/2, 1/4.
    mean, low, high = mean_and_interval(np.array([[0.0, 3.0]]), np.array([3, 3]))
    assert (mean[0], low[0], high[0]) == (0.5, 0.0, 1.0)
    one = mean_and_interval(np.array([[2.0]]), np.array([4]))[:, 0]
    assert one[0] == 0.5
    assert np.isnan(one[1:]).all()


def test_saved_loaded_and_merged(tmp_path):
    model, batches = made()
    whole = ablation_sweep(model, batches, EDITS[:2])
    parts = [ablation_sweep(model, [tokens], EDITS[:2]) for tokens in batches]
    parts[0].save(tmp_path / "part")
    merged = Result.load(tmp_path / "part").merge(parts[1])
    assert isinstance(merged, AblationSweep)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(merged, name), getattr(whole, name))
    assert merged.provenance == whole.provenance
    with pytest.raises(ValueError, match="options differs"):
        merged.merge(ablation_sweep(model, batches, EDITS[:1]))


def test_a_stopped_sweep_goes_on_where_it_was(tmp_path):
    model, batches = made()
    path = tmp_path / "sweep"

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablation_sweep(model, batches, EDITS[:2], path=path, progress=stop)
    assert Result.load(path).provenance.sequences == 3
    seen: list[tuple[int, int]] = []

    def count(sequences, tokens):
        seen.append((sequences, tokens))

    resumed = ablation_sweep(model, batches, EDITS[:2], path=path, progress=count)
    assert seen == [(4, 25)]
    whole = ablation_sweep(model, batches, EDITS[:2])
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(resumed, name), getattr(whole, name))
    assert resumed.provenance == whole.provenance == Result.load(path).provenance


def test_a_sweep_goes_on_in_the_middle_of_a_batch(tmp_path):
    model, batches = made()
    first = [batches[0][:2]]
    ablation_sweep(model, first, EDITS[:2], path=tmp_path / "sweep")
    resumed = ablation_sweep(model, batches, EDITS[:2], path=tmp_path / "sweep")
    whole = ablation_sweep(model, batches, EDITS[:2])
    np.testing.assert_allclose(resumed.loss_change, whole.loss_change, rtol=1e-12, atol=1e-12)


def test_a_file_of_something_else_is_not_gone_on_with(tmp_path):
    model, batches = made()
    path = tmp_path / "sweep"
    ablation_sweep(model, batches, EDITS[:1], path=path)
    other = made(digest="2" * 64)[0]
    shorter, changed = [batches[0][:1]], [1 - batches[0].clamp(0, 1), batches[1]]
    for this, text, edits, message in (
        (model, batches, EDITS[:2], "other options: edits"),
        (other, batches, EDITS[:1], "another digest"),
        (model, changed, EDITS[:1], "a sweep of another text"),
        (model, shorter, EDITS[:1], "a sweep of another text"),
    ):
        with pytest.raises(ValueError, match=message):
            ablation_sweep(this, text, edits, path=path)
    unknown = random_model(FAMILY["MUDDFormer"])
    with pytest.raises(ValueError, match="needs a model with a digest"):
        ablation_sweep(unknown, batches, EDITS[:1], path=path)


def test_what_cannot_be_swept_is_refused():
    model, batches = made()
    for edits, message in (
        ([], "at least one edit"),
        (["cut mlp 0", ""], "at least one edit"),
        (["cut mlp 9"], "layer must lie in 0..2"),
        (["mean v 1<-0"], "needs mean weights"),
    ):
        with pytest.raises(ValueError, match=message):
            ablation_sweep(model, batches, edits)
    with pytest.raises(ValueError, match=r"pair must lie in 0..28"):
        ablation_sweep(model, batches, EDITS[:1], pair=(0, 29))
    with pytest.raises(ValueError, match="there are no batches"):
        ablation_sweep(model, [], EDITS[:1])
