"""What does a Vision Transformer see, and where?"""

import pandas as pd

from mudd_interp.analysis import (
    PatchSimilarityAnalysis,
    counterpart,
    depth_frame,
    patch_similarity_difference,
    token_weights,
)
from mudd_interp.analysis.patches import OF_IMAGES, patch_columns, patch_front
from mudd_interp.catalog.heads import NO_HEAD_AGAINST_HEAD
from mudd_interp.catalog.kind import PROMPT, SCOPED, Drawn, FigureKind, of_models
from mudd_interp.catalog.similarity import CURVES, curves
from mudd_interp.request import Role
from mudd_interp.study import Study
from mudd_interp.viz import (
    Picture,
    attention_over_image_figure,
    patch_similarity_difference_figure,
    patch_similarity_figure,
    patch_similarity_limits,
    source_line,
    weights_over_image_figure,
)


def _picture(study: Study, role: Role) -> Picture:
    """The image that is looked at, and how the model cuts it."""
    seen = study.picture(role)
    name = ""
    if seen.labels is not None:
        label = int(seen.labels[0])
        name = str(label) if seen.class_names is None else seen.class_names[label]
    return Picture(seen.pixels[0], name, patch_front(study.models[role], "a picture").side)


def _attention(study: Study) -> Drawn:
    role = study.request.of
    picture, position, layer = _picture(study, role), study.position(role), study.layer(role)
    pattern = study.pattern(role).float().numpy()
    figure = attention_over_image_figure(
        pattern,
        picture,
        position,
        layer=layer,
        model=study.name(role),
        source=source_line([study.prompt_provenance(role)]),
    )
    tables = [
        patch_columns(picture.side).assign(head=head, weight=rows[position])
        for head, rows in enumerate(pattern)
    ]
    frame = pd.concat(tables, ignore_index=True).assign(layer=layer, query=position)
    return Drawn(figure, frame[["layer", "head", "query", *tables[0].columns[:3], "weight"]])


def _weights(study: Study) -> Drawn:
    request, role = study.request, study.request.of
    found, picture = study.of_prompt(role, token_weights), _picture(study, role)
    stream = counterpart(request.stream, found.streams)
    place, rectified = (stream, _row(study, role), request.source), not request.raw
    added = study.models[role].wiring.between
    figure = weights_over_image_figure(found, picture, *place, rectified, added)
    columns = depth_frame(found, *place, rectified).drop(columns="position")
    labels = dict(zip(("stream", "layer", "source"), place, strict=True))
    return Drawn(figure, pd.concat([patch_columns(picture.side).assign(**labels), columns], axis=1))


def _row(study: Study, role: Role) -> int:
    """The aggregation that is looked at: the last one feeds the final norm, and has stream r only.

    So where no layer is asked for it is one that feeds a block.
    """
    last = study.models[role].cfg.n_layers - 1
    asked = study.request.layer is not None or study.request.stream == "r"
    return study.layer(role) if asked else max(0, min(study.layer(role), last - 1))


KINDS = (
    FigureKind(
        name="patch_similarity",
        title="Do the patches of an image stay distinct?",
        draw=curves(
            PatchSimilarityAnalysis(),
            patch_similarity_figure,
            patch_similarity_limits,
            patch_similarity_difference,
            patch_similarity_difference_figure,
        ),
        needs=of_models(PatchSimilarityAnalysis()),
        uses=SCOPED,
        modes=CURVES,
        single=True,
        requires=OF_IMAGES,
    ),
    FigureKind(
        name="weights_over_image",
        title="Which depth does each patch read? The dense weights over the image",
        draw=_weights,
        uses=(*PROMPT, "stream", "layer", "source", "raw"),
        why_not={
            "difference": "a plain Transformer reads the newest output at every patch",
            "overlay": "one picture would hide the other",
        },
        single=True,
        requires=OF_IMAGES,
    ),
    FigureKind(
        name="attention_over_image",
        title="Where a patch looks: the heads of a layer over the image",
        draw=_attention,
        uses=(*PROMPT, "position", "layer"),
        why_not=NO_HEAD_AGAINST_HEAD,
        single=True,
        requires=OF_IMAGES,
    ),
)
