"""The figures of a study as files, with their numbers and a manifest to make them again from."""

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import mudd_interp
from mudd_interp.analysis import Provenance
from mudd_interp.axes import unknown_name
from mudd_interp.files import replacing_folder, sha256, write_text
from mudd_interp.study import ModelStudy, Request, Study
from mudd_interp.viz import (
    IMAGE_FORMATS,
    ImageFormat,
    attention_figure,
    figure_html,
    figure_images,
    head_activity_figure,
    head_heatmap_figure,
    similarity_figure,
    weights_figure,
    weights_limit,
)

MANIFEST = "manifest.json"
FORMAT = "mudd-interp figures 1"
VERSIONED = ("torch", "transformer-lens", "transformers", "numpy", "plotly")


@dataclass(frozen=True)
class Drawn:
    """A figure and the numbers behind it."""

    figure: Any
    frame: pd.DataFrame


@dataclass(frozen=True)
class FigureKind:
    """One figure of a study.

    Attributes:
        name: The stem of its files.
        title: What it shows, with the paper's figure.
        draw: Makes it; ``None`` where the study has nothing to draw it from.
    """

    name: str
    title: str
    draw: Callable[[Study], Drawn | None]


def _both(
    study: Study, frame: Callable[[ModelStudy], pd.DataFrame], names: Callable[[ModelStudy], str]
) -> pd.DataFrame:
    """One table of both models, the model's name in front."""
    parts = [study.model] + ([] if study.baseline is None else [study.baseline])
    tables = [frame(part).assign(model=names(part)) for part in parts]
    table = pd.concat(tables, ignore_index=True)
    return table.reindex(columns=["model", *tables[0].columns.drop("model")])


def _model_name(part: ModelStudy) -> str:
    return part.similarity.provenance.model


def _similarity(study: Study) -> Drawn:
    baseline = study.baseline.similarity if study.baseline else None
    figure = similarity_figure(study.model.similarity, baseline)
    return Drawn(figure, _both(study, lambda part: part.similarity.frame, _model_name))


def _weights(rectified: bool) -> Callable[[Study], Drawn]:
    def draw(study: Study) -> Drawn:
        return Drawn(weights_figure(study.model.weights, rectified), study.model.weights.frame)

    return draw


def _baseline_weights(study: Study) -> Drawn | None:
    if study.baseline is None:
        return None
    limit = weights_limit([study.model.weights])
    figure = weights_figure(study.baseline.weights, limit=limit)
    return Drawn(figure, study.baseline.weights.frame)


def _activity(study: Study) -> Drawn:
    baseline = study.baseline.activity if study.baseline else None
    figure = head_activity_figure(study.model.activity, baseline)
    return Drawn(figure, _both(study, lambda part: part.activity.layer_frame, _model_name))


def _heads(study: Study) -> Drawn:
    baseline = study.baseline.activity if study.baseline else None
    figure = head_heatmap_figure(study.model.activity, baseline)
    return Drawn(figure, _both(study, lambda part: part.activity.frame, _model_name))


def _maps(part: ModelStudy | None) -> Drawn | None:
    if part is None:
        return None
    maps = part.maps
    figure = attention_figure(maps.pattern, maps.tokens, layer=maps.layer, model=_model_name(part))
    pattern = maps.pattern.float().numpy()
    head, query, key = np.nonzero(np.tril(np.ones_like(pattern)))
    weight = pattern[head, query, key]
    columns = {"layer": maps.layer, "head": head, "query": query, "key": key, "weight": weight}
    return Drawn(figure, pd.DataFrame(columns))


FIGURES: dict[str, FigureKind] = {
    kind.name: kind
    for kind in (
        FigureKind("layer_similarity", "Do the inputs stay distinct? (Fig. 6)", _similarity),
        FigureKind(
            "dense_weights", "What each stream reads, rectified (Figs. 12, 13)", _weights(True)
        ),
        FigureKind("dense_weights_raw", "The dense weights as they are", _weights(False)),
        FigureKind(
            "dense_weights_baseline", "The baseline as the degenerate case", _baseline_weights
        ),
        FigureKind("head_activity", "Which heads are awake? (Fig. 8)", _activity),
        FigureKind("head_activity_by_head", "The same for each head", _heads),
        FigureKind(
            "attention_maps",
            "All heads of a layer on one sequence (Fig. 11)",
            lambda study: _maps(study.model),
        ),
        FigureKind(
            "attention_maps_baseline",
            "The same in the baseline (Fig. 10)",
            lambda study: _maps(study.baseline),
        ),
    )
}
"""Every figure by name, in the order in which they are listed."""


def check_formats(formats: Sequence[str]) -> tuple[ImageFormat, ...]:
    """The picture formats of a list of names.

    Raises:
        ValueError: If one is unknown.
    """
    for name in formats:
        if name not in IMAGE_FORMATS:
            raise ValueError(f"format must be one of {', '.join(IMAGE_FORMATS)}, got {name!r}.")
    return tuple(each for each in IMAGE_FORMATS if each in formats)


def choose(names: Sequence[str]) -> tuple[FigureKind, ...]:
    """The figures of a list of names; all of them for an empty list.

    Raises:
        ValueError: If one is unknown, with the nearest.
    """
    for name in names:
        if name not in FIGURES:
            raise ValueError(unknown_name("figure", name, FIGURES))
    return tuple(kind for kind in FIGURES.values() if not names or kind.name in names)


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or that holds what is not ours to replace.

    Raises:
        ValueError: With what to do.
    """
    if target.exists() and not target.is_dir():
        raise ValueError(f"{target} is a file: give the name of a folder to make.")
    held = sorted(path.name for path in target.iterdir()) if target.is_dir() else []
    ours = {f"{name}.{suffix}" for name in FIGURES for suffix in ("html", "csv", *IMAGE_FORMATS)}
    other = [name for name in held if name not in ours | {MANIFEST}]
    if other:
        raise ValueError(
            f"{target} holds {other[0]}, which is no figure: give the name of a folder to make."
        )
    if held and not overwrite:
        raise ValueError(f"{target} holds figures already: give --overwrite to replace them.")
    parent = next(path for path in target.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise ValueError(f"cannot write into {parent}: give another folder.")


def write_figures(
    study: Study,
    request: Request,
    target: Path,
    names: Sequence[str] = (),
    formats: Sequence[ImageFormat] = (),
) -> dict[str, Any]:
    """Write figures, their numbers and the manifest into a folder, whole or not at all.

    Args:
        study: What to draw.
        request: What the study was made from; it goes into the manifest.
        target: The folder; one that is there is replaced.
        names: Which figures; none for all.
        formats: Pictures to write beside each page.

    Returns:
        The manifest.

    Raises:
        ValueError: If a picture is wanted and there is no browser to draw it.
    """
    drawn = {kind: found for kind in choose(names) if (found := kind.draw(study)) is not None}
    jobs: list[tuple[Any, ImageFormat]] = [
        (found.figure, each) for found in drawn.values() for each in formats
    ]
    pictures = iter(figure_images(jobs) if jobs else [])
    entries: list[dict[str, Any]] = []
    with replacing_folder(target) as folder:
        for kind, found in drawn.items():
            files = {
                "html": figure_html(found.figure, kind.name).encode(),
                "csv": found.frame.to_csv(index=False, lineterminator="\n").encode(),
            } | {each: next(pictures) for each in formats}
            for suffix, data in files.items():
                (folder / f"{kind.name}.{suffix}").write_bytes(data)
            digests = {suffix: sha256(data) for suffix, data in files.items()}
            entries.append({"name": kind.name, "title": kind.title, "sha256": digests})
        manifest = make_manifest(study, request, names, formats, entries)
        write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")
    return manifest


def make_manifest(
    study: Study,
    request: Request,
    names: Sequence[str],
    formats: Sequence[str],
    entries: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What was drawn, from what, and with which versions."""
    baseline = None if study.baseline is None else study.baseline.similarity.provenance.to_dict()
    return {
        "format": FORMAT,
        "versions": {"python": platform.python_version(), "mudd-interp": mudd_interp.__version__}
        | {name: version(name) for name in VERSIONED},
        "request": asdict(request),
        "figures_asked": list(names),
        "formats_asked": list(formats),
        "model": study.model.similarity.provenance.to_dict(),
        "baseline": baseline,
        "head_activity": {
            part.activity.provenance.model: dict(part.activity.provenance.options)
            for part in (study.model, study.baseline)
            if part is not None
        },
        "figures": list(entries),
    }


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        request: What was computed.
        names: Which figures were asked for; none for all.
        formats: Which pictures were asked for.
        provenance: Of the model's results, and of the baseline's if there was one.
    """

    request: Request
    names: tuple[str, ...]
    formats: tuple[str, ...]
    provenance: dict[str, Provenance]


def read_manifest(path: Path) -> Manifest:
    """Read what :func:`write_figures` wrote.

    Raises:
        ValueError: If the file is no manifest of ours.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"cannot read a manifest from {path}: {error}.") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path} is no manifest of figures: expected the format {FORMAT!r}.")
    try:
        parts = {part: values[part] for part in ("model", "baseline") if values[part] is not None}
        return Manifest(
            Request(**values["request"]),
            tuple(values["figures_asked"]),
            tuple(values["formats_asked"]),
            {part: Provenance.from_dict(found) for part, found in parts.items()},
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is no whole manifest of figures: {error}.") from error


def check_same(study: Study, manifest: Manifest) -> None:
    """Refuse to call figures the same when model, text or library are not.

    Raises:
        ValueError: With what differs.
    """
    parts = {"model": study.model, "baseline": study.baseline}
    for part, then in manifest.provenance.items():
        found = parts[part]
        now = None if found is None else found.similarity.provenance
        for name in ("digest", "dtype", "token_digest", "version"):
            if getattr(now, name, None) != getattr(then, name):
                raise ValueError(
                    f"the {part}'s {name} is {getattr(now, name, None)}, but the manifest has "
                    f"{getattr(then, name)}: the figures would not be the same. Get back what it "
                    f"was made with (mudd-interp {then.version}, {then.model}), or run without "
                    "--manifest."
                )
