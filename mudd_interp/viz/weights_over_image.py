"""Which depth does each patch read? A row of dense weights over the picture."""

import numpy as np
import plotly.graph_objects as go

from mudd_interp.analysis import TokenWeights, depth_frame
from mudd_interp.axes import STREAMS, Stream
from mudd_interp.viz.picture import Map, Panels, Picture, Scale, check_patches
from mudd_interp.viz.theme import ROBUST_QUANTILE, finish, robust_limit, source_line, stream_title


def weights_over_image_figure(
    result: TokenWeights,
    picture: Picture,
    stream: Stream,
    layer: int,
    source: int,
    rectified: bool = False,
    added: str | None = None,
) -> go.Figure:
    """The weight of one edge at each patch, and the mean depth that its row reads there.

    Args:
        result: The weights of one image.
        picture: The image.
        stream: Of the row.
        layer: The aggregation i, which feeds block i + 1.
        source: The output whose weight is drawn: 0 is the embedding.
        rectified: Multiply each weight by the norm of its source at that patch.
        added: The norm after which the newest output is added besides, where there is one.

    Raises:
        ValueError: If there is no such edge, or the weights are not of the picture's patches.
    """
    check_patches(len(result.token_ids), picture)
    frame = depth_frame(result, stream, layer, source, rectified)
    weight, depth = frame["weight"].to_numpy(), frame["depth"].to_numpy()
    end, unit = robust_limit(weight), "weight × norm" if rectified else "weight"
    titles = {each: f"{stream_title(each)} of block {layer + 1}" for each in STREAMS}
    reader = "the final norm" if layer == result.n_layers - 1 else titles[stream]
    panels = Panels(
        picture,
        [
            Map(f"weight on X<sub>{source}</sub>", weight, 0),
            Map("mean depth read", depth, 1),
        ],
        [Scale(unit, -end, end, signed=True), Scale("depth, blocks", 0.0, layer + 1.0)],
    )
    weighed = "|weight| × norm of the source" if rectified else "|weight|"
    besides = f"; {added} adds X_{layer + 1} to what comes of them" if added else ""
    spread = f"{np.nanmin(depth):.3g} to {np.nanmax(depth):.3g}"
    return finish(
        panels.figure(),
        f"What {reader} reads of the image, {result.provenance.model}",
        f"left: dense weight of layer {layer} on X_{source}"
        f"{' × its norm at the patch' if rectified else ', dimensionless'}, colours end at "
        f"±{end:.3g} ({ROBUST_QUANTILE:.0%} of non-zero values); right: mean index j of the "
        f"sources X_0..X_{layer + 1}, each by its {weighed}: 0 is the embedding, {layer + 1} the "
        f"newest output, here {spread}{besides}",
        source_line([result.provenance]),
        **panels.layout(),
    )
