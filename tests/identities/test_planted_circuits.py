"""Circuits that were put there are found, and nothing else."""

from typing import Any

import numpy as np
import pytest

from mudd_interp.analysis import (
    ablation_sweep,
    composition,
    composition_table,
    direct_logit_attribution,
    head_scores,
    path_coefficients,
    routes,
    stream_decomposition,
)
from mudd_interp.data import repeated_batches
from tests.identities.circuits import induction_head, planted
from tests.identities.errors import EXACT, TOKENS

SEQUENCE = TOKENS[:1]
REPEATED: Any = {"length": 12, "repeats": 2, "n_sequences": 4}


def test_a_value_stream_that_reads_the_embedding_only():
    model = planted({(2, "v"): [1.0, 0, 0, 0]})
    found = stream_decomposition(model, SEQUENCE, layer=3, stream="v")
    assert found.components[0] == "embed"
    np.testing.assert_allclose(found.share[0], 1, rtol=0, atol=EXACT)
    assert not found.share[1:].any()
    assert not found.head_share.any()
    (route,) = routes(model, SEQUENCE, source=0, layer=3, stream="v").routes
    assert (route.sources, route.coefficient) == ((0,), 1.0)
    assert routes(model, SEQUENCE, source=2, layer=3, stream="v").routes == ()
    table = composition_table(model, SEQUENCE, stream="v").frame
    assert not table.loc[table["to_layer"] == 3, "total"].any()
    assert table.loc[table["to_layer"] == 2, "total"].all()


def test_a_route_of_two_hops():
    """What block 0 wrote reaches the end by X_1, X_3 and by no other route."""
    model = planted({(1, "r"): [0, 2.0, 0], (3, "r"): [0, 0, 0, 0.5, 0]})
    found = routes(model, SEQUENCE, source=1)
    assert [(route.sources, route.coefficient) for route in found.routes] == [((1, 3), 1.0)]
    assert (found.explained, found.remainder) == (1.0, 0.0)
    assert found.plain_route == (1, 2, 3, 4)
    assert found.frame["route"].tolist() == ["X1 > X3 > final", "all others"]
    last = path_coefficients(model, SEQUENCE).coefficient[3, 3, :, 0]
    assert last.tolist() == [1.0, 1.0, 0.0, 0.5, 0.0]
    shares = direct_logit_attribution(model, SEQUENCE, answer=5)
    assert shares.attn[[1, 3]].tolist() == [0, 0]
    assert shares.attn[[0, 2]].all()


def test_a_head_read_by_a_dense_edge_and_by_the_chain():
    """The keys of block 2 read X_1 twice by an edge, and once in X_2, which contains it."""
    model = planted({(1, "k"): [0, 2.0, 1.0]})
    found = composition(model, SEQUENCE, (0, 1), (2, 0), stream="k")
    np.testing.assert_allclose(found.direct, 2 * found.chain)
    assert found.chain.all()
    table = composition_table(model, SEQUENCE, stream="k")
    assert table.total[0, 1, 2, 0] == pytest.approx(found.total.mean(), abs=EXACT)
    assert table.direct[0, 1, 2, 0] == pytest.approx(found.direct.mean(), abs=EXACT)


@pytest.mark.parametrize(
    ("keys", "direct", "chain", "route"),
    [("edge", True, False, (1,)), ("chain", False, True, (1, 2)), ("nothing", False, False, None)],
)
def test_an_induction_head_and_the_way_its_keys_come(keys, direct, chain, route):
    model = induction_head(keys)
    sequence = next(iter(repeated_batches(model, **REPEATED)))[:1]
    scores: Any = head_scores(model, **REPEATED).frame.set_index(["layer", "head"])
    # The first token has none before it; where it repeats, half of the attention goes astray.
    expected = 1 - 0.5 / 12
    found = scores["induction"] > 0.9
    assert found.index[found].tolist() == ([(2, 0)] if direct or chain else [])
    if direct or chain:
        assert scores["induction"][2, 0] == pytest.approx(expected)
    assert scores["previous_token"].idxmax() == (0, 0)
    assert scores["previous_token"][0, 0] == pytest.approx(1)
    table = composition_table(model, sequence, stream="k")
    by_edge = table.direct[0, 0, 2, 0]
    assert (by_edge > 0.9, table.total[0, 0, 2, 0] - by_edge > 0.9) == (direct, chain)
    others = np.delete(table.total[:2, :, 2, 0].ravel(), 0)
    assert not others.any()
    ways = routes(model, sequence, source=1, layer=2, stream="k").routes
    assert [way.sources for way in ways] == ([] if route is None else [route])


@pytest.mark.parametrize(
    ("keys", "carriers"),
    [
        ("edge", {"r 0<-0", "k 1<-1"}),
        ("chain", {"r 0<-1", "k 1<-2"}),
        ("nothing", {"r 0<-0"}),
    ],
)
def test_a_sweep_finds_the_edges_of_an_induction_head_and_no_other(keys, carriers):
    """Queries and values read the token in X_2, the output is X_3, its scale that of X_2 too."""
    model = induction_head(keys)
    frame: Any = ablation_sweep(model, repeated_batches(model, **REPEATED)).frame
    effects = frame.set_index(frame["edits"].str.removeprefix("cut "))["kl"]
    found = set(effects.index[effects.abs() > 1e-9])
    silent = {"q 1<-2"} if keys == "nothing" else set()
    assert found == carriers | {"q 1<-2", "v 1<-2", "r 1<-2", "r 2<-3"} - silent
    if keys != "nothing":
        assert effects[min(carriers)] > 1  # of the keys
