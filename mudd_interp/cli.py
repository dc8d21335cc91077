"""The command line: one verb, one job. Anything wrong with the input is one message, exit 2."""

import importlib.util
import io
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mudd_interp.flags import of_flag, with_options
from mudd_interp.panics import is_failure
from mudd_interp.request import OPTIONS, Request

if TYPE_CHECKING:
    from mudd_interp.analysis import Progress
    from mudd_interp.evaluation.run import Evaluation
    from mudd_interp.figures import Manifest
    from mudd_interp.viz import ImageFormat

TRACEBACK = "MUDD_INTERP_TRACEBACK"
"""The environment variable that asks for the traceback of an unexpected error."""

# What is slow to import (torch, TransformerLens, plotly) is imported by the verb that needs it, so
# that --help and a mistyped verb answer at once.

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Open a MUDDFormer, look inside, and compare it with a Transformer.",
)


def _place(given: str) -> str:
    """The path of an option; an empty one, as from an unset shell variable, is refused."""
    if not given:
        raise typer.BadParameter("it is empty: give a path, or leave the option out.")
    return given


_path = partial(typer.Option, parser=_place, metavar="PATH")


def main() -> None:
    """Run the command line; bad input ends it with one message on stderr and exit code 2."""
    # A process that is told to stop cleans up first, as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    for stream in (sys.stdout, sys.stderr):
        # What the terminal's encoding lacks is shown by other characters, and stops nothing.
        if isinstance(stream, io.TextIOWrapper) and stream.errors in ("strict", "surrogateescape"):
            stream.reconfigure(errors="replace")
    try:
        _run()
    except BrokenPipeError:  # whoever read the output has enough
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (1, 2):
            os.dup2(nowhere, stream)
        raise SystemExit(1) from None


def _run() -> None:
    try:
        try:
            app()
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except BrokenPipeError:
        raise
    except (ValueError, OSError, NotImplementedError) as error:
        print(f"mudd-interp: {error}", file=sys.stderr)  # noqa: T201 (a command's message)
        raise SystemExit(1 if isinstance(error, ChildProcessError) else 2) from None
    except KeyboardInterrupt:
        print("mudd-interp: stopped.", file=sys.stderr)  # noqa: T201 (as above)
        raise SystemExit(130) from None
    except BaseException as error:
        if not is_failure(error):
            raise
        print(f"mudd-interp: {_unexpected(error)}", file=sys.stderr)  # noqa: T201 (as above)
        raise SystemExit(1) from None


def _unexpected(error: BaseException) -> str:
    """What is said of an unforeseen error; where it came from is in the log."""
    logging.getLogger(__name__).info("an unexpected error", exc_info=error)
    if os.environ.get(TRACEBACK):
        traceback.print_exception(error)
    said = str(error).strip().partition("\n")[0] or "without a message"
    return (
        f"an unexpected {type(error).__name__} ({said}): this is a fault of mudd-interp, or of a "
        f"library below it. Set {TRACEBACK}=1 to see where, and report it."
    )


@app.command()
@with_options
def figures(
    out: Annotated[str | None, _path(help="Folder to make.")] = None,
    format: Annotated[str | None, typer.Option(help="Pictures too: png,svg,pdf.")] = None,
    only: Annotated[str | None, typer.Option(help="Some figures, by name: a,b.")] = None,
    manifest: Annotated[str | None, _path(help="Make those figures again.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace old figures.")] = False,
    resume: Annotated[
        str | None, _path(help="Keep the sweeps here, and resume from what is there.")
    ] = None,
    list_names: Annotated[bool, typer.Option("--list", help="List the figures.")] = False,
    **values: Any,
) -> None:
    """Compute figures of two models, as pages, tables and pictures.

    Without options: the paper's figures of the bundled pair on bundled held-out text, offline.
    """
    from mudd_interp.catalog import FIGURES, choose
    from mudd_interp.figures import check_formats, check_target, check_texts, read_manifest
    from mudd_interp.files import exclusive

    if list_names:
        for kind in FIGURES.values():
            typer.echo(f"{kind.name:26}{kind.title}")
        return
    if out is None:
        raise ValueError("give --out DIR, the folder to make.")
    request, expected = _request(values), None
    names, formats = _names("only", only), _names("format", format)
    if manifest is not None:
        if names or replace(request, device=None) != Request():
            raise ValueError("--manifest says which models, text and figures: give no others.")
        expected = read_manifest(manifest)
        check_texts(expected)
        request = replace(expected.request, device=request.device)
        names, formats = expected.names, formats or expected.formats
    choose(names, request)
    pictures = check_formats(formats)
    if not _is_first_process():
        _draw(request, out, names, pictures, expected, resume, overwrite)
        return
    check_target(out, overwrite)
    if resume is not None:
        _check_writable(resume)
    with exclusive(out):
        _draw(request, out, names, pictures, expected, resume, overwrite)


def _check_writable(folder: str) -> None:
    """Refuse a folder that nothing can be kept in."""
    from mudd_interp.files import try_folder

    try:
        try_folder(folder)
    except OSError as error:
        raise ValueError(
            f"cannot write to {folder} ({error.strerror}): give another one."
        ) from error


def _request(values: Mapping[str, Any]) -> Request:
    """The request that the options of ``figures`` spell."""
    values = {name: of_flag(OPTIONS[name], value) for name, value in values.items()}
    places = {name: _absolute(values[name]) for name in ("model", "baseline", "text", "dataset")}
    return Request.of_values(values | places)


def _absolute(place: str | None) -> str | None:
    """A path that exists, spelled so that it holds from any folder; names as they are."""
    from mudd_interp.checkpoints.names import BUNDLED

    if not place or place in BUNDLED or not Path(place).exists():
        return place
    return str(Path(place).resolve())


def _names(option: str, listed: str | None) -> tuple[str, ...]:
    """The names of an option that may be left out, but not be empty."""
    names = _listed(listed or "")
    if listed is not None and not names:
        raise ValueError(f"--{option} is empty: give names with commas between, or leave it out.")
    return names


def _listed(names: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in names.split(",") if name.strip())


def _draw(
    request: Request,
    out: str,
    names: tuple[str, ...],
    formats: "tuple[ImageFormat, ...]",
    expected: "Manifest | None",
    resume: str | None,
    overwrite: bool,
) -> None:
    """Draw the figures and write them; the first process only, where there are several."""
    from mudd_interp.analysis import rank_and_world_size
    from mudd_interp.catalog import choose
    from mudd_interp.figures import check_same, draw_figures, write_figures
    from mudd_interp.study import Study
    from mudd_interp.viz import find_browser

    if formats:
        find_browser()
    with _progress("sweeping") as progress:
        study = Study(request, progress=progress, states=resume)
        drawn = draw_figures(study, choose(names, request, study))
    if expected is not None:
        check_same(study, expected)
    if rank_and_world_size()[0] == 0:
        written = write_figures(study, drawn, out, names, formats, overwrite)
        first = Path(out, f"{written['figures'][0]['name']}.html")
        _say_left_out(study.batches("model").left_out)
        typer.echo(f"{len(written['figures'])} figures in {out}: open {first}")


def _say_left_out(left_out: Mapping[Path, str], most: int = 10) -> None:
    """Name on stderr what is not read in a folder of texts; the figures say only how much."""
    for path, reason in islice(left_out.items(), most):
        typer.echo(f"left out: {path} ({reason})", err=True)
    if len(left_out) > most:
        typer.echo(f"left out: {len(left_out) - most} more", err=True)


def _is_first_process() -> bool:
    """Whether this is the only process, or the first of those that ``torchrun`` started."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def _progress(what: str) -> Generator["Progress"]:
    """A progress line for a sweep."""
    with _line(what) as say:

        def report(sequences: int, tokens: int) -> None:
            say(f"{sequences:,} sequences, {tokens:,} tokens")

        yield report


@contextmanager
def _line(what: str) -> Generator[Callable[[str], None]]:
    """A progress line on stderr, if it is a terminal; one for all processes together."""
    from rich.console import Console
    from rich.progress import Progress as Bar
    from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    # The stream as it is now: what silences a library by another one does not silence this line.
    console = Console(file=sys.stderr)
    shown = console.is_terminal and _is_first_process()
    with Bar(*columns, console=console, disable=not shown) as bar:
        task = bar.add_task(f"{what}: loading the models")
        yield lambda text: bar.update(task, description=f"{what}: {text}")


@app.command("app")
def dashboard(
    model: Annotated[str, typer.Option(help="Name, folder or hub id.")] = "mudd-tiny",
    baseline: Annotated[str, typer.Option(help="The same, or `none`.")] = "tfm-tiny",
    host: Annotated[str | None, typer.Option(help="Address to listen on [127.0.0.1].")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port [8501].")] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Open no browser.")] = False,
    allow_host: Annotated[
        list[str] | None, typer.Option(help="Another name it answers to, such as a proxy's.")
    ] = None,
    cache: Annotated[
        str | None, _path(help="Folder of kept runs and uploads [~/.cache/mudd-interp].")
    ] = None,
) -> None:
    """Open the dashboard, for this machine alone unless --host or --allow-host says otherwise."""
    from mudd_interp.dashboard import serve
    from mudd_interp.files import place_of

    for name, value in (("model", model), ("baseline", baseline), ("host", host)):
        if value == "":
            raise ValueError(f"--{name} is empty: give one, or leave the option out.")
    if cache is not None:
        _check_writable(cache)
        os.environ["MUDD_INTERP_CACHE"] = str(place_of(cache))
    arguments = [f"--model={model}", f"--baseline={baseline}"]
    script, names = _app_folder() / "main.py", allow_host or ()
    serve(script, arguments, host=host, port=port, headless=headless, names=names)


def _app_folder() -> Path:
    """Where the dashboard is: in the checkout, or else in the wheel's copy."""
    package = Path(__file__).parent
    checkout = package.parent
    return checkout / "app" if (checkout / "pyproject.toml").is_file() else package / "_app"


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="Name, folder or hub id.")],
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
) -> None:
    """Say what a model is: shapes, parameters of each part, streams, and the checks at load."""
    from mudd_interp.checkpoints import load_model
    from mudd_interp.inspection import describe_model, print_description

    description = describe_model(load_model(model))
    if as_json:
        typer.echo(json.dumps(description, indent=2))
    else:
        print_description(description)


@app.command()
def cost(
    model: Annotated[str, typer.Argument(help="Preset, name, folder, config.json or hub id.")],
    tokens: Annotated[int | None, typer.Option(help="Sequence length [its context].")] = None,
    json_file: Annotated[str | None, _path("--json", help="Write what was found here.")] = None,
) -> None:
    """Say what dense connections cost: parameters, FLOPs and memory, as in the paper's Table 1."""
    from mudd_interp.costs import cost, print_cost
    from mudd_interp.files import write_text

    if json_file is not None:
        _check_file(json_file)
    found = cost(model, tokens)
    if json_file is not None:
        write_text(json_file, json.dumps(found.to_dict(), indent=2) + "\n")
    print_cost(model, found)


@app.command()
def train(
    preset: Annotated[
        str,
        typer.Argument(
            help="tiny-pair, mudd-tiny, tfm-tiny; toy-pair; or vit-pair, ladder, scaling, zoo."
        ),
    ],
    out: Annotated[str, _path(help="Folder of the runs; one that is there continues.")],
    data: Annotated[
        str | None, _path(help="Folder of the prepared tokens; vit-pair: of four idx files.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Instead of the preset's.")] = None,
    peak_lr: Annotated[float | None, typer.Option(min=0.0, help="Likewise.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads per process.")] = None,
    compile: Annotated[bool, typer.Option(help="Use torch.compile.")] = False,
    parallel: Annotated[bool, typer.Option(help="All models of a group at once.")] = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Experiments: at most so many.")] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Experiments: runs at once.")] = 1,
    device: Annotated[str, typer.Option(help="Experiments: cpu, cuda, ...")] = "cpu",
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Experiments: products in bfloat16.")
    ] = False,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="vit-pair: how often each image is seen.")
    ] = None,
) -> None:
    """Train the bundled pairs, or an experiment of the paper.

    Text is that of the Python sources installed here; images are Fashion-MNIST. ``ladder`` (Table
    5), ``ladder-128`` (larger: for a GPU), ``scaling``, ``zoo`` (relatives of MUDDFormer) and
    ``vit-pair`` are many runs, each in a folder of its own; the same command continues where it was
    stopped.
    """
    from mudd_interp.experiments.plan import PLANS, Scale
    from mudd_interp.experiments.run import How, run_plan
    from mudd_interp.experiments.vision.plan import EPOCHS, SEEDS, VIT_PAIR, PairScale
    from mudd_interp.experiments.vision.run import run_pair
    from mudd_interp.files import place_of
    from mudd_interp.images import FASHION_MNIST
    from mudd_interp.training.run import RunOptions, run_preset

    place = None if data is None else place_of(data)
    if epochs is not None and (preset != VIT_PAIR or steps is not None):
        raise ValueError("--epochs is for vit-pair, in place of --steps: leave one out.")
    if parallel and preset in (*PLANS, VIT_PAIR):
        raise ValueError(
            f"{preset} trains several runs at once with --jobs N: leave out --parallel."
        )
    how = partial(How, device=device, bfloat16=bfloat16, compiled=compile, threads=threads)
    if preset == VIT_PAIR:
        scale = PairScale(
            epochs=epochs or EPOCHS, seeds=seeds or SEEDS, steps=steps, peak_lr=peak_lr
        )
        run_pair(out, how(data=place or FASHION_MNIST), scale, jobs)
        return
    if preset in PLANS:
        if peak_lr is not None:
            raise ValueError(f"{preset} sets its own learning rates: leave out --peak-lr.")
        default = place_of(out) / "data"
        run_plan(preset, out, how(data=place or default), Scale(steps=steps, seeds=seeds), jobs)
        return
    if seeds is not None or jobs > 1 or device != "cpu" or bfloat16:
        raise ValueError(
            f"--seeds, --jobs, --device and --bfloat16 are for {', '.join((*PLANS, VIT_PAIR))}: "
            "leave them out."
        )
    options = RunOptions(
        data=place,
        steps=steps,
        peak_lr=peak_lr,
        threads=threads,
        compiled=compile,
        parallel=parallel,
    )
    run_preset(preset, out, options)


@app.command()
def bench(
    names: Annotated[
        list[str] | None,
        typer.Argument(
            help="forward decode cache sweep load train startup figures; "
            "also compile large growth paper wirings."
        ),
    ] = None,
    size: Annotated[str, typer.Option(help="small (12 x 768), 410m, toy.")] = "small",
    device: Annotated[str, typer.Option(help="cpu, cuda, ...")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, ...")] = "float32",
    repeats: Annotated[int, typer.Option(min=1, help="Of each measurement.")] = 5,
    json_file: Annotated[str | None, _path("--json", help="Write what was found here.")] = None,
    figure: Annotated[
        str | None,
        _path(help="Draw `growth` here: .html, .png, .svg or .pdf."),
    ] = None,
) -> None:
    """Measure speed and memory on this machine, beside what one would use instead."""
    from mudd_interp.bench import check_figure, measure, print_report, write_growth
    from mudd_interp.files import is_stream, write_text

    if figure is not None:
        if "growth" not in (names or ()):
            raise ValueError("--figure draws the bench `growth`: name it.")
        check_figure(figure)
    for path in (json_file, figure):
        if path is not None:
            _check_file(path)

    def keep(found: dict[str, Any], whole: bool = False) -> None:
        # A file is replaced each time; what goes through a pipe comes once.
        if json_file is not None and (whole or not is_stream(json_file)):
            write_text(json_file, json.dumps(found, indent=2) + "\n")

    report = partial(typer.echo, err=True)
    found = measure(names or (), size, device, dtype, repeats, report, keep)
    keep(found, whole=True)
    print_report(found)
    if figure is not None:
        write_growth(found, figure)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Name, folder or hub id.")],
    baseline: Annotated[
        str | None, typer.Option(help="The same, to hold it against on the same items.")
    ] = None,
    tasks: Annotated[
        str, typer.Option(help="a,b: tasks of lm-eval, or `local`, or `paper` (Table 3).")
    ] = "local",
    edits: Annotated[
        list[str] | None,
        typer.Option(help="What to change in the model, such as `cut v *<-*`; again for others."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="The first so many items.")] = None,
    shots: Annotated[int | None, typer.Option(min=0, help="Examples before a question.")] = None,
    prefix: Annotated[
        str, typer.Option(help="Where to put <|endoftext|>: document, always, never.")
    ] = "document",
    max_length: Annotated[
        int | None, typer.Option(min=2, help="Tokens read at once, where fewer than the context.")
    ] = None,
    truncate: Annotated[
        bool, typer.Option("--truncate", help="Drop the beginning of a context that is too long.")
    ] = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Rows in a pass.")] = 16,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, ...")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16, ...")] = None,
    json_file: Annotated[
        str | None, _path("--json", "--output", help="Write what was found here.")
    ] = None,
) -> None:
    """Score a model on tasks, by lm-evaluation-harness, and say what an edit costs.

    Without --tasks: the local ones, of held-out Python source, which need no network.
    """
    from mudd_interp.checkpoints import load_model
    from mudd_interp.files import is_stream, write_text

    if importlib.util.find_spec("lm_eval") is None:
        raise ValueError(
            "evaluating on tasks needs lm-evaluation-harness: pip install 'mudd-interp[eval]'."
        )
    if json_file is not None:
        _check_file(json_file)
    from mudd_interp.evaluation.report import print_report, to_json
    from mudd_interp.evaluation.run import Settings, plan
    from mudd_interp.evaluation.run import evaluate as run_tasks
    from mudd_interp.evaluation.tasks import check_names, names_of

    names = names_of(_names("tasks", tasks))
    check_names(names)
    settings = Settings(limit, shots, prefix, max_length, truncate, batch_size)
    loaded = load_model(model, device, dtype)
    other = None if baseline is None else load_model(baseline, device, dtype)
    with _line("scoring") as say:

        def report(label: str, rows: int, of: int) -> None:
            say(f"{label}, {rows:,} of {of:,} passes")

        def keep(found: "Evaluation", whole: bool = False) -> None:
            # A file is replaced after each task; what goes through a pipe comes once.
            if json_file is not None and (whole or not is_stream(json_file)):
                write_text(json_file, json.dumps(to_json(found), indent=2) + "\n")

        found = run_tasks(plan(loaded, other, edits or ()), names, settings, report, keep)
    keep(found, whole=True)
    print_report(found)


def _check_file(path: str) -> None:
    """Refuse a file that cannot be written."""
    from mudd_interp.files import try_file

    try:
        try_file(path)
    except OSError as error:
        raise ValueError(f"cannot write {path} ({error.strerror}): give another file.") from error
