"""Where attention rests in an image: four measures of every head, layer by head."""

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from mudd_interp.analysis import PatchSinks
from mudd_interp.viz.theme import (
    UNSIGNED,
    colorbar,
    escape,
    finish,
    integer_ticks,
    merged,
    source_line,
)

_MEASURES = {
    "to_outliers": "attention to outliers",
    "to_blanks": "attention to blank patches",
    "entropy": "entropy ÷ log(patches)",
    "distance": "distance, patches",
}
_ROW, _MARGINS = 260, 240  # pixels


def patch_sinks_figure(result: PatchSinks, baseline: PatchSinks | None = None) -> go.Figure:
    """Attention to outliers and to blank patches, its entropy and its distance, of every head.

    The first three share one scale, 0..1; distances have their own. A row of maps for each model.

    Args:
        result: Of the model in question.
        baseline: Of the Transformer beside it.
    """
    results = [result] if baseline is None else [result, baseline]
    figure = make_subplots(
        rows=len(results),
        cols=len(_MEASURES),
        shared_yaxes=True,
        column_titles=list(_MEASURES.values()),
        row_titles=[escape(each.provenance.model) for each in results],
        horizontal_spacing=0.03,
        vertical_spacing=0.1,
    )
    figure.update_annotations(font_size=12.5)
    for row, each in enumerate(results, start=1):
        for column, measure in enumerate(_MEASURES, start=1):
            figure.add_trace(_map(each, measure), row=row, col=column)
            heads = integer_ticks(each.outlier_sum.shape[1], 8)
            figure.update_xaxes(showgrid=False, **heads, row=row, col=column)
        layers = integer_ticks(len(each.outlier_sum), 12)
        figure.update_yaxes(showgrid=False, **layers, row=row)
        figure.update_yaxes(title="layer", row=row, col=1)
    figure.update_xaxes(title="head", row=len(results))
    far = max(float(np.max(each.frame["distance"].to_numpy())) for each in results)
    return finish(
        figure,
        "Where attention rests: outliers, blank patches, entropy and distance",
        "means over queries and images. Outlier: L2 norm of the block's output at the patch above "
        "the image's median + 5 median absolute deviations; blank: one value all over the patch, "
        f"in each channel. {'; '.join(map(_found, results))}",
        source_line([each.provenance for each in results]),
        height=_ROW * len(results) + _MARGINS,
        coloraxis=_scale("share or entropy", 1.0, 0),
        coloraxis2=_scale("distance", far or 1.0, 1),
        margin={"l": 70, "r": 240, "t": 130, "b": 60},
    )


def _found(result: PatchSinks) -> str:
    """How many patches are of each kind: what even attention would give them."""
    patches, counts = result.provenance.tokens, result.outliers
    low, high = int(counts.min()), int(counts.max())
    number = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    found = "no outlier in any layer" if not high else f"{number} outliers in a layer"
    share = f"{int(result.blanks[0]) / patches:.1%} blank"
    return f"{result.provenance.model}: of {patches:,} patches {found}, {share}"


def _map(result: PatchSinks, measure: str) -> go.Heatmap:
    name = escape(result.provenance.model)
    return go.Heatmap(
        z=result.frame[measure].to_numpy().reshape(result.outlier_sum.shape),
        coloraxis="coloraxis2" if measure == "distance" else "coloraxis",
        xgap=1,
        ygap=1,
        name=f"{name}, {_MEASURES[measure]}",
        hovertemplate=f"layer %{{y}}, head %{{x}}: %{{z:.4f}}<extra>{_MEASURES[measure]}</extra>",
    )


def _scale(title: str, end: float, place: int) -> dict[str, object]:
    bar = merged(colorbar(title), {"title": {"font": {"size": 11}}, "x": 1.05 + 0.16 * place})
    return {"colorscale": UNSIGNED, "cmin": 0, "cmax": end, "colorbar": bar}
