"""Which depth a row of weights reads, by hand and against the sums written out."""

import numpy as np
import pytest

from mudd_interp.analysis import depth_frame, depth_read, token_weights
from tests.parity.family import FAMILY, random_model, random_tokens
from tests.unit import seeing


@pytest.mark.parametrize("rectified", [False, True])
@pytest.mark.parametrize("name", seeing.NAMES)
def test_the_depth_is_the_sum_written_out(name: str, rectified: bool):
    model = seeing.vision_model(name)
    found = token_weights(model, seeing.seen(1)[0])
    for stream in model.wiring.streams:
        for layer in range(model.cfg.n_layers - (stream != "r")):
            depth = depth_read(found, stream, layer, rectified)
            row = found.weights[model.wiring.streams.index(stream), layer]
            for patch in range(16):
                top = bottom = 0.0
                for source in range(layer + 2):
                    size = 0.0 if np.isnan(row[source, patch]) else abs(row[source, patch])
                    size *= found.source_norm[source, patch] if rectified else 1
                    top, bottom = top + source * size, bottom + size
                assert depth[patch] == pytest.approx(top / bottom, abs=1e-12)


def test_a_plain_transformer_reads_the_newest_output():
    found = token_weights(seeing.vision_model("see-plain"), seeing.seen(1)[0])
    for layer in range(found.n_layers):
        assert depth_read(found, "r", layer, rectified=True) == pytest.approx(layer + 1, abs=1e-12)


def test_it_is_of_texts_too_and_places_that_are_not_there_are_named():
    model = random_model(FAMILY["MUDDFormer"])
    found = token_weights(model, random_tokens(model.config)[0])
    frame = depth_frame(found, "v", 1, 0)
    assert list(frame.columns) == ["position", "weight", "depth"]
    expected = found.edge_frame("v", 1, 0)["total"]
    np.testing.assert_array_equal(frame["weight"], expected)
    assert frame["depth"].between(0, 2).all()
    with pytest.raises(ValueError, match=r"layer of stream v must lie in 0\.\.1 \(the last"):
        depth_read(found, "v", 2)
    with pytest.raises(ValueError, match=r"source of layer 1 must lie in 0\.\.2, got 3"):
        depth_frame(found, "v", 1, 3)
