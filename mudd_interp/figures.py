"""The figures of a study as files, their numbers, and a manifest from which to make them again."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mudd_interp
from mudd_interp.analysis import Provenance, Result
from mudd_interp.catalog import FIGURES, Drawn, FigureKind, draw_kind
from mudd_interp.files import (
    contents,
    csv_table,
    place_of,
    read_json,
    replacing_folder,
    sealed,
    sha256,
    try_folder,
    unsealed,
    write_text,
)
from mudd_interp.request import ROLES, Request, Role
from mudd_interp.schema import validated
from mudd_interp.study import Study
from mudd_interp.texts import text_files
from mudd_interp.viz import IMAGE_FORMATS, ImageFormat, figure_html, figure_images

MANIFEST = "manifest.json"
FORMAT = "mudd-interp figures 1"
VERSIONED = ("torch", "transformer-lens", "transformers", "numpy", "plotly")


def check_formats(formats: Sequence[str]) -> tuple[ImageFormat, ...]:
    """The picture formats of a list of names.

    Raises:
        ValueError: If one is unknown.
    """
    for name in formats:
        if name not in IMAGE_FORMATS:
            raise ValueError(f"format must be one of {', '.join(IMAGE_FORMATS)}, got {name!r}.")
    return tuple(each for each in IMAGE_FORMATS if each in formats)


def check_target(target: str | os.PathLike[str], overwrite: bool) -> None:
    """Refuse a folder that cannot be written, or whose contents are not ours to replace.

    Raises:
        ValueError: With what to do.
    """
    try:
        place = place_of(target)
        if place.exists() and not place.is_dir():
            what = "a file" if place.is_file() else "not a folder"
            raise ValueError(f"{target} is {what}: give the name of a folder to make.")
        refuse_contents(place, overwrite, target)
        try_folder(target)
    except OSError as error:
        raise ValueError(
            f"cannot make the folder {target} ({error.strerror}): give another one."
        ) from error


def refuse_contents(
    folder: Path, overwrite: bool, called: str | os.PathLike[str] | None = None
) -> None:
    """Refuse to replace anything but figures, and figures unless asked to.

    Args:
        folder: Where to look.
        overwrite: Whether figures may be replaced.
        called: What the folder is called in the message.

    Raises:
        ValueError: With what to do.
    """
    held, called = contents(folder), called or folder
    ours = {f"{name}.{suffix}" for name in FIGURES for suffix in ("html", "csv", *IMAGE_FORMATS)}
    ours.add(MANIFEST)
    other = [name for name in held if name not in ours or (folder / name).is_dir()]
    if other:
        raise ValueError(
            f"{called} holds {other[0]}, which is not a figure: give the name of a folder to make."
        )
    if held and not overwrite:
        raise ValueError(f"{called} holds figures already: give --overwrite to replace them.")


def draw_figures(study: Study, kinds: Sequence[FigureKind]) -> dict[FigureKind, Drawn]:
    """Draw several figures of a study, with one pass over the text for each model.

    Raises:
        ValueError: If one cannot be drawn from the study's request, or is not for its models.
    """
    for kind in kinds:
        kind.check_models(study)
    # Those of the prompt first: if something is wrong with it, that shows before a long walk.
    needs = {kind: kind.needs(study) for kind in kinds}
    drawn = {kind: draw_kind(kind, study) for kind in kinds if not needs[kind]}
    study.prepare([need for kind in kinds for need in needs[kind]])
    return {kind: drawn.get(kind) or draw_kind(kind, study) for kind in kinds}


def write_figures(
    study: Study,
    drawn: Mapping[FigureKind, Drawn],
    target: str | os.PathLike[str],
    names: Sequence[str] = (),
    formats: Sequence[ImageFormat] = (),
    overwrite: bool = True,
) -> dict[str, Any]:
    """Write figures, their numbers and the manifest into a folder, whole or not at all.

    Args:
        study: What they were drawn from.
        drawn: The figures.
        target: The folder; one that holds figures, and nothing else, is replaced.
        names: Which figures were asked for; none for the standard ones.
        formats: Pictures to write beside each page.
        overwrite: Whether figures that are there by then are replaced, or refused.

    Returns:
        The manifest.

    Raises:
        ValueError: If a text has changed since it was read, a picture is wanted and there is no
            browser to draw it, or the folder cannot be written or holds other things than figures.
    """
    study.require_same_text()
    jobs: list[tuple[Any, ImageFormat]] = [
        (found.figure, each) for found in drawn.values() for each in formats
    ]
    pictures = iter(figure_images(jobs) if jobs else [])
    entries: list[dict[str, Any]] = []
    manifest = make_manifest(study, names, formats, entries)
    try:
        with replacing_folder(
            target, lambda held: refuse_contents(held, overwrite, target)
        ) as folder:
            for kind, found in drawn.items():
                files = {
                    "html": figure_html(found.figure, kind.name).encode(
                        "utf-8", "backslashreplace"
                    ),
                    "csv": csv_bytes(found),
                } | {each: next(pictures) for each in formats}
                for suffix, data in files.items():
                    (folder / f"{kind.name}.{suffix}").write_bytes(data)
                digests = {suffix: sha256(data) for suffix, data in files.items()}
                texts = {
                    role: [source.text for source in sources]
                    for role, sources in found.computed_on.items()
                }
                entries.append(
                    {
                        "name": kind.name,
                        "title": kind.title,
                        "computed_on": texts,
                        "sha256": digests,
                    }
                )
            write_text(folder / MANIFEST, json.dumps(sealed(manifest), indent=2) + "\n")
    except OSError as error:
        raise ValueError(
            f"cannot write the figures to {target} ({error.strerror}): it is as it was. Make room, "
            "or give another folder."
        ) from error
    return manifest


def csv_bytes(drawn: Drawn) -> bytes:
    """The numbers behind a figure, as they are written to its CSV file; see ``files.tables``."""
    return csv_table(drawn.frame)


def make_manifest(
    study: Study,
    names: Sequence[str],
    formats: Sequence[str],
    entries: list[dict[str, Any]],
) -> dict[str, Any]:
    """What was drawn, from what, and with which versions; ``entries`` may still be filled."""
    return {
        "format": FORMAT,
        "versions": {"python": platform.python_version(), "mudd-interp": mudd_interp.__version__}
        | {name: version(name) for name in VERSIONED},
        "request": asdict(study.request),
        "texts": text_files(study.request) if study.reads_text() else {},
        "figures_asked": list(names),
        "formats_asked": list(formats),
        **{role: study.provenance(role).to_dict() for role in study.roles},
        "options": {role: _options(study.swept[role]) for role in study.roles},
        "figures": entries,
    }


def _options(swept: Mapping[str, Result]) -> dict[str, Any]:
    options = {name: dict(result.provenance.options) for name, result in swept.items()}
    return {name: values for name, values in options.items() if values}


@dataclass(frozen=True)
class Manifest:
    """What a manifest says.

    Attributes:
        request: What was computed.
        names: Which figures were asked for; none for all.
        formats: Which pictures were asked for.
        texts: The text files by path, each with its sha256; none for a text of another kind.
        provenance: That of the model's results, and of the baseline's if there was one.
    """

    request: Request
    names: tuple[str, ...]
    formats: tuple[str, ...]
    texts: dict[str, str]
    provenance: dict[Role, Provenance]


def read_manifest(path: str | os.PathLike[str]) -> Manifest:
    """Read what :func:`write_figures` wrote.

    Raises:
        ValueError: If the file is not a manifest of ours.
    """
    try:
        values = read_json(place_of(path))
    except ValueError as error:
        raise ValueError(f"cannot read a manifest from {path}: {error}") from error
    if not isinstance(values, dict) or values.get("format") != FORMAT:
        raise ValueError(f"{path} is not a manifest of figures: expected the format {FORMAT!r}.")
    for name in _READ:
        if name not in values:
            raise ValueError(
                f"{path} is not a complete manifest of figures (look at {name!r}): make the "
                "figures again."
            )
    values = unsealed(values, str(path))
    request, names, formats, texts = (
        validated(kind, values[name], f"`{name}` of {path}") for name, kind in _READ.items()
    )
    roles: dict[Role, Any] = {role: values[role] for role in ROLES if role in values}
    sources: dict[Role, Provenance] = {
        role: Provenance.from_dict(found, f"`{role}` of {path}") for role, found in roles.items()
    }
    return Manifest(request, tuple(names), tuple(formats), texts, sources)


_READ: dict[str, Any] = {
    "request": Request,
    "figures_asked": list[str],
    "formats_asked": list[str],
    "texts": dict[str, str],
}
"""What is read of a manifest, besides the provenances."""


def check_texts(manifest: Manifest) -> None:
    """Refuse text files that are not those of a manifest; called before anything is computed.

    Raises:
        ValueError: With the first file that has changed, is missing, or is new.
    """
    then = manifest.texts
    # Where no text was read, it may be any.
    now = text_files(manifest.request) if then else {}
    for path in sorted({**then, **now}):
        if then.get(path) != now.get(path):
            what = "is new" if path not in then else "has changed" if path in now else "is missing"
            raise ValueError(
                f"{path} {what}: the figures would not be the same. Make it what it was when the "
                "manifest was written, or run without --manifest."
            )


def check_same(study: Study, manifest: Manifest) -> None:
    """Refuse to call figures the same when model, text or library are not.

    Raises:
        ValueError: With what differs.
    """
    for role, then in manifest.provenance.items():
        now = study.provenance(role) if role in study.roles else None
        for name in ("digest", "dtype", "token_digest", "version"):
            if getattr(now, name, None) != getattr(then, name):
                raise ValueError(
                    f"the {role}'s {name} is {getattr(now, name, None)}, but the manifest has "
                    f"{getattr(then, name)}: the figures would not be the same. Get back what it "
                    f"was made with (mudd-interp {then.version}, {then.model}), or run without "
                    "--manifest."
                )
