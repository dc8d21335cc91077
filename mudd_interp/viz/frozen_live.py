"""Does an edge act by what it carries, or by what it makes later weights do?"""

from typing import Any

import plotly.graph_objects as go

from mudd_interp.analysis import AblationSweep, EdgeSizes, rank_correlations
from mudd_interp.analysis import weight_contribution_cause as side_by_side
from mudd_interp.analysis.causes import Effect
from mudd_interp.viz.interventions import (
    EFFECTS,
    LEGEND_BELOW,
    LOG_AXIS,
    edge_points,
    equal_line,
)
from mudd_interp.viz.theme import finish, source_line, stream_title


def frozen_live_figure(
    sizes: EdgeSizes, live: AblationSweep, frozen: AblationSweep, effect: Effect = "kl"
) -> go.Figure:
    """What cutting each edge does with later weights held, against what it does live.

    Args:
        sizes: Of the edges.
        live: A sweep over single edges.
        frozen: The same with weights held, on the same tokens.
        effect: Which effect; its magnitude is drawn.

    Raises:
        ValueError: As for :func:`mudd_interp.analysis.weight_contribution_cause`.
    """
    table: Any = side_by_side(sizes, live, frozen=frozen)
    ranks: Any = rank_correlations(table, effect).set_index("stream")["frozen_live"]
    held, moved = table[f"{effect}_frozen"].abs(), table[effect].abs()
    figure = go.Figure()
    for stream in dict.fromkeys(table["stream"]):
        rows = table[table["stream"] == stream]
        name = f"{stream_title(stream)} (ρ = {ranks[stream]:.2f})"
        figure.add_trace(edge_points(rows, held[rows.index], moved[rows.index], stream, name, ""))
    both = table[[effect, f"{effect}_frozen"]].abs().to_numpy()
    figure.add_trace(equal_line(both))
    share = float((moved > held).mean())
    unit = "KL, nats" if effect == "kl" else "|change of loss|, nats"
    return finish(
        figure,
        f"Frozen and live: every edge of {live.provenance.model}, ρ = {ranks['all']:.2f}",
        f"{EFFECTS[effect]}; frozen: the weights of later reads as they are without the cut, live: "
        f"computed anew; live is larger for {share:.0%} of the edges",
        source_line([live.provenance]),
        xaxis={"title": f"frozen: {unit} (log scale)", **LOG_AXIS},
        yaxis={"title": f"live: {unit} (log scale)", **LOG_AXIS},
        legend=LEGEND_BELOW,
        margin={"l": 80, "r": 40, "t": 115, "b": 110},
    )
