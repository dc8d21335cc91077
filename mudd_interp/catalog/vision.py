"""What does a Vision Transformer see, and where?"""

from typing import Any

import pandas as pd

from mudd_interp.analysis import (
    PatchSimilarityAnalysis,
    PatchSinksAnalysis,
    RelativeOffsetsAnalysis,
    attention_rollout,
    class_attribution,
    counterpart,
    depth_frame,
    patch_similarity_difference,
    path_coefficients,
    token_weights,
)
from mudd_interp.analysis.class_attribution import OF_CLASSES
from mudd_interp.analysis.patches import OF_IMAGES, patch_columns, patch_front
from mudd_interp.catalog.attribution import NO_LAYER_AGAINST_LAYER
from mudd_interp.catalog.heads import NO_HEAD_AGAINST_HEAD
from mudd_interp.catalog.kind import PROMPT, SCOPED, Drawn, FigureKind, of_both, of_models, results
from mudd_interp.catalog.similarity import CURVES, curves
from mudd_interp.catalog.weights import edge_place
from mudd_interp.request import Role
from mudd_interp.study import Study
from mudd_interp.viz import (
    Picture,
    attention_over_image_figure,
    class_attribution_figure,
    patch_similarity_difference_figure,
    patch_similarity_figure,
    patch_similarity_limits,
    patch_sinks_figure,
    relative_offset_scores_figure,
    relative_offsets_figure,
    rollout_figure,
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
    frame: Any = pd.concat(tables, ignore_index=True).assign(layer=layer, query=position)
    return Drawn(figure, frame[["layer", "head", "query", *tables[0].columns[:3], "weight"]])


def _weights(study: Study) -> Drawn:
    request, role = study.request, study.request.of
    found, picture = study.of_prompt(role, token_weights), _picture(study, role)
    stream = counterpart(request.stream, found.streams)
    layer, source = edge_place(study, role)
    place: dict[str, Any] = {"stream": stream, "layer": layer, "source": source}
    how: dict[str, Any] = {**place, "rectified": not request.raw}
    added = study.models[role].wiring.between
    figure = weights_over_image_figure(found, picture, **how, added=added)
    columns = depth_frame(found, **how).drop(columns="position")
    return Drawn(figure, pd.concat([patch_columns(picture.side).assign(**place), columns], axis=1))


def _rollout(study: Study) -> Drawn:
    """Rollout, and the coefficients that it takes for 1: both by patch."""
    role = study.request.of
    picture = _picture(study, role)
    found = study.of_prompt(role, attention_rollout)
    exact = study.of_prompt(role, path_coefficients)
    figure = rollout_figure(found, exact, picture, as_baseline=role == "baseline")
    patches = patch_columns(picture.side)
    tables = [patches.assign(quantity="rollout", source=pd.NA, value=found.mean_row)]
    tables += [
        patches.assign(quantity="coefficient", source=source, value=values)
        for source, values in enumerate(exact.final)
    ]
    frame: Any = pd.concat(tables, ignore_index=True).astype({"source": "Int64"})
    return Drawn(figure, frame[["quantity", "source", *patches.columns, "value"]])


def _classes(study: Study) -> Drawn:
    """Both models on one class: if none is asked for, the one that the model finds likeliest.

    Raises:
        ValueError: If the two do not tell the same classes.
    """
    request = study.request
    options: dict[str, Any] = {"answer": request.answer, "against": request.against}
    found: dict[Role, Any] = {"model": study.of_prompt("model", class_attribution, **options)}
    if "baseline" in study.roles:
        _require_same_classes(study)
        options["answer"] = found["model"].answer_id
        found["baseline"] = study.of_prompt("baseline", class_attribution, **options)
    picture = _picture(study, "model")
    figure = class_attribution_figure(found["model"], picture, found.get("baseline"))
    return Drawn(figure, of_both(study, lambda role: found[role].frame))


def _require_same_classes(study: Study) -> None:
    models: list[Any] = list(study.models.values())
    if models[0].class_names != models[1].class_names:
        names = " and ".join(study.name(role) for role in study.roles)
        raise ValueError(f"{names} tell different classes: leave the baseline out.")


def _sinks(study: Study) -> Drawn:
    analysis = PatchSinksAnalysis()
    figure = patch_sinks_figure(*results(study, analysis))
    return Drawn(figure, of_both(study, lambda role: study.result(role, analysis).frame))


def _offsets(study: Study) -> Drawn:
    """The maps of one layer, and the numbers of each of its heads."""
    role = study.request.of
    found, layer = study.result(role, RelativeOffsetsAnalysis()), study.layer(role)
    frame = found.frame
    figure = relative_offsets_figure(found, layer)
    return Drawn(figure, frame[frame["layer"] == layer].reset_index(drop=True))


def _offset_scores(study: Study) -> Drawn:
    analysis = RelativeOffsetsAnalysis()
    figure = relative_offset_scores_figure(*results(study, analysis))
    return Drawn(figure, of_both(study, lambda role: study.result(role, analysis).strongest))


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
    FigureKind(
        name="attention_rollout",
        title="Rollout, which assumes a plain residual, beside exact path coefficients",
        draw=_rollout,
        uses=PROMPT,
        why_not=NO_LAYER_AGAINST_LAYER,
        single=True,
        requires=OF_IMAGES,
    ),
    FigureKind(
        name="class_attribution",
        title="What spoke for a class: patches and components",
        draw=_classes,
        uses=(*PROMPT, "answer", "against"),
        why_not=NO_LAYER_AGAINST_LAYER,
        requires=OF_CLASSES,
    ),
    FigureKind(
        name="patch_sinks",
        title="Where attention rests: outliers, blank patches, entropy and distance",
        draw=_sinks,
        needs=of_models(PatchSinksAnalysis()),
        uses=SCOPED,
        why_not=NO_HEAD_AGAINST_HEAD,
        requires=OF_IMAGES,
    ),
    FigureKind(
        name="relative_offsets",
        title="Where the heads of a layer look from where they stand",
        draw=_offsets,
        needs=of_models(RelativeOffsetsAnalysis()),
        uses=(*SCOPED, "layer"),
        why_not=NO_HEAD_AGAINST_HEAD,
        single=True,
        requires=OF_IMAGES,
    ),
    FigureKind(
        name="relative_offset_scores",
        title="The strongest offset of every head, and its score",
        draw=_offset_scores,
        needs=of_models(RelativeOffsetsAnalysis()),
        uses=SCOPED,
        why_not=NO_HEAD_AGAINST_HEAD,
        requires=OF_IMAGES,
    ),
)
