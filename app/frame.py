"""What every page has: the models and the prompt at the side, the tokens and the mode on top."""

from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import Any

import streamlit as st

import caches
import sessions
import state
import uploads
import widgets
from chips import chips
from mudd_interp.catalog.kind import USUAL_SOURCE
from mudd_interp.catalog.weights import edge_place
from mudd_interp.checkpoints.names import BUNDLED, PAIRS, PYTHIAS, RELEASED
from mudd_interp.pictures import image_set_of, patches_of, reads_images
from mudd_interp.request import OPTIONS
from mudd_interp.study import Study
from mudd_interp.values import LONGEST_PROMPT
from picture import picture

NO_BASELINE = "none"
CALLED = {
    "model": "the model",
    "baseline": "the baseline",
    "text": "the text",
    "dataset": "the dataset",
    "images": "the images",
    "device": "the device",
    "dtype": "the precision",
    "edits": "the edits",
}
LONGEST_SHOWN = 400
_TEXT, _IDS = "Text", "Token ids"
_DRAFT = ("model", "baseline", "prompt", "prompt_ids")


def sidebar(pages: Sequence[Any]) -> None:
    """The pair, the prompt, Run, and the way to the pages."""
    _draft_from_view()
    with st.sidebar:
        st.selectbox(
            "Example prompt",
            list(state.EXAMPLES),
            index=None,
            placeholder="Choose one, or write below",
            key="example",
            on_change=_use_example,
        )
        with st.form("run", border=False):
            _name_input("Model", "draft_model", (*BUNDLED, *RELEASED))
            baselines = (name for pair in PAIRS for name in pair[::-1])
            _name_input("Baseline", "draft_baseline", (*baselines, *PYTHIAS, NO_BASELINE))
            st.radio("Prompt as", [_TEXT, _IDS], key="draft_kind", horizontal=True)
            st.text_area("Prompt", key="draft_prompt", height=150)
            st.form_submit_button(
                "Run", key="press_run", type="primary", on_click=_run, width="stretch"
            )
        if error := st.session_state.get("draft_error"):
            st.error(state.plain(error))
        for page in pages:
            st.page_link(page)


def _name_input(label: str, key: str, known: tuple[str, ...]) -> None:
    current = st.session_state[key]
    options = known if current in known else (current, *known)
    note = "A bundled name, the path of a folder, or a hub id: type to add one."
    st.selectbox(label, options, key=key, accept_new_options=True, help=note)


def _draft_from_view() -> None:
    """Show the current view when something other than this form has changed it."""
    session, view = st.session_state, state.view()
    if session.get("drafted") == (drafted := tuple(view[name] for name in _DRAFT)):
        return
    ids = view["prompt_ids"]
    session["drafted"], session["draft_error"] = drafted, None
    session["draft_model"] = view["model"]
    session["draft_baseline"] = view["baseline"] or NO_BASELINE
    session["draft_kind"] = _TEXT if ids is None else _IDS
    session["draft_prompt"] = view["prompt"] if ids is None else ", ".join(map(str, ids))
    if state.wanted(state.PROMPT):
        session["draft_prompt"] = ""


def _use_example() -> None:
    session = st.session_state
    if session["example"] is not None:
        session["draft_kind"] = _TEXT
        session["draft_prompt"] = state.EXAMPLES[session["example"]]


def _run() -> None:
    """Take what the form says, or say what is wrong with it and leave everything as it was."""
    session = st.session_state
    try:
        prompt, ids = _prompt(session["draft_prompt"], session["draft_kind"] == _IDS)
        _check_wanted(prompt, ids)
        for name in (session["draft_model"], session["draft_baseline"]):
            state.check_name(name)
    except ValueError as error:
        session["draft_error"] = str(error)
        return
    baseline = session["draft_baseline"]
    changed = {
        "model": session["draft_model"],
        "baseline": None if baseline == NO_BASELINE else baseline,
        "prompt": prompt,
        "prompt_ids": ids,
    }
    if (prompt, ids) != (state.view()["prompt"], state.view()["prompt_ids"]):
        changed["position"] = None
    session["draft_error"] = None
    session["drafted"] = tuple(changed[name] for name in _DRAFT)
    state.put(**changed)


def _prompt(text: str, as_ids: bool) -> tuple[str | None, tuple[int, ...] | None]:
    """The prompt that was typed.

    Raises:
        ValueError: If it is empty, too long, or not a list of ids.
    """
    if not text:
        raise ValueError("The prompt is empty: give at least one token.")
    check_length("The prompt", text)
    if not as_ids:
        return text, None
    row = OPTIONS["prompt_ids"]
    try:
        return None, row.asked(row.of_text(text))
    except ValueError as error:
        raise ValueError(f"The prompt cannot be taken: {error}.") from error


def check_length(what: str, text: str) -> None:
    """Refuse a prompt that is too long to be one.

    Raises:
        ValueError: If it is.
    """
    if len(text) > LONGEST_PROMPT:
        raise ValueError(
            f"{what} has {len(text):,} characters: at most {LONGEST_PROMPT:,} are read here."
        )


def _check_wanted(prompt: str | None, ids: tuple[int, ...] | None) -> None:
    wanted, given = state.wanted(state.PROMPT), state.digest([prompt, ids])
    if wanted not in (None, given):
        raise ValueError(
            f"This is a different prompt (sha256 {given[:12]}…) than the link means "
            f"({wanted[:12]}…). Paste that one, or go on without it."
        )


def open_page(
    question: str,
    reading: str,
    definition: str = "",
    *,
    tokens: bool = True,
    mode: bool = True,
    scope: bool = True,
) -> Study:
    """Begin a page: its question, how to read it, the tokens and the choices all pages share.

    Args:
        question: The title.
        reading: One sentence.
        definition: What is computed, in Markdown, with the paper's figure or equation.
        tokens: Whether a token of the prompt can be chosen.
        mode: Whether the page has figures in several modes.
        scope: Whether it averages over a text.

    Returns:
        The study of the view. Without one, because a model cannot be had, the page ends here
        with the reason.
    """
    st.title(question, anchor=False)
    st.markdown(reading)
    if definition:
        with st.expander("Definition"):
            st.markdown(definition)
    say_notices()
    _refuse_files()
    _ask_first()
    if missing := uploads.why_missing(state.view()["text"]):
        st.warning(state.plain(missing))
    _ask_for_prompt()
    study = _study()
    _choices(study if tokens else None, mode=mode, scope=scope)
    return study


def say_notices() -> None:
    """Say what was ignored in the link, or in what was typed."""
    for notice in state.notices():
        st.warning(state.plain(notice))


def _ask_for_prompt() -> None:
    """End the page if the link means a prompt that only its sender has."""
    wanted = state.wanted(state.PROMPT)
    if wanted is None:
        return
    st.warning(
        "This link was made with a prompt that is too long to carry. Paste it into the field at "
        f"the side and press Run; it is taken if its sha256 begins with `{wanted[:12]}`."
    )
    if st.button("Go on without it"):
        state.put(prompt=state.FIELDS["prompt"].default, prompt_ids=None)
        st.rerun()
    st.stop()


def _refuse_files() -> None:
    """End the page if others reach this dashboard, and the view would have it read files here."""
    reason = sessions.why_not_here(state.unnamed())
    if reason is None:
        return
    st.error(
        f"**Others reach this dashboard.** So it does not take {state.plain(reason)}. Choose a "
        "model of the hub at the side, and upload a text on the page Corpus."
    )
    _without(state.unnamed())
    st.stop()


def _ask_first() -> None:
    """End the page if a link means more than the dashboard was started for; nothing is done yet.

    What it names is not even looked up: a path may lead to another machine.
    """
    names = state.unasked()
    if not names:
        return
    said = "\n".join(f"- {CALLED[name]} {_named(value)}" for name, value in names.items())
    st.warning(
        f"This link means\n\n{said}\n\nNone of it has been read, loaded or computed yet. Files and "
        "folders would be read from this machine, and a model or a dataset that is not here would "
        "be downloaded from the Hugging Face hub, which may be gigabytes."
    )
    with st.container(horizontal=True):
        if st.button("Go on", key="agree"):
            state.trust(names)
            st.rerun()
        _without(names)
    st.stop()


def _without(names: Iterable[str]) -> None:
    """A button that replaces some values with what is bundled."""
    if st.button("Go on without", key="without"):
        state.put(**{name: state.FIELDS[name].default for name in names})
        st.rerun()


def _named(value: str) -> str:
    short = value if len(value) <= LONGEST_SHOWN else value[:LONGEST_SHOWN] + "…"
    return f"**{state.plain(short)}**"


def ask_for(key: str, what: str) -> None:
    """Say that only a link's sender has a text that it means, where there is a field for it."""
    if wanted := state.wanted(key):
        st.warning(
            f"This link was made with {what} too long to carry (sha256 `{wanted[:12]}`…): paste "
            "it below, or go on without."
        )


def _study() -> Study:
    found = list[Study]()
    with (
        caches.failing(lambda reason: _say("No figure yet: a model cannot be loaded.", reason)),
        st.spinner("Loading the models", show_time=True),
    ):
        found.append(caches.study(state.request()))
    if not found:
        st.stop()
    return found[0]


def _say(what: str, reason: str) -> None:
    st.error(f"**{what}** {state.plain(reason)}")


def guarded(body: Callable[[], object]) -> None:
    """Run a page, or a part of it; if that fails, a sentence takes the place of the rest."""
    with caches.failing(lambda reason: _say("The rest cannot be shown:", reason)):
        body()


def _choices(study: Study | None, *, mode: bool, scope: bool) -> None:
    length = None if study is None else _cursor(study)
    with st.container(horizontal=True):
        if study is not None and length is not None:
            called = "Patch" if reads_images(study.models["model"]) else None
            widgets.number("position", length - 1, _place(study, length), called)
        if mode and state.view()["baseline"] is not None:
            widgets.choice("mode")
        if scope:
            widgets.choice("scope")


def _cursor(study: Study) -> int | None:
    """The tokens of the prompt, or the patches of the image, one of them chosen.

    Returns:
        How many there are, if they can be read.
    """
    is_image = reads_images(study.models["model"])
    try:
        texts = study.token_texts("model")
        at = _place(study, len(texts))
        if is_image:
            _choose_patch(study, at)
        else:
            chips(texts, at, "tokens", _pick)
    except ValueError as error:
        what = "image" if is_image else "prompt"
        st.error(f"**The {what} cannot be read.** {state.plain(str(error))}")
        return None
    return len(texts)


def _place(study: Study, length: int) -> int:
    """The position that is chosen, or the one that figures choose if none is."""
    at = state.view()["position"]
    if at is not None:
        return min(at, length - 1)
    return study.with_request(replace(study.request, position=None)).position("model")


def _choose_patch(study: Study, at: int) -> None:
    """The image, one of its patches chosen, and which of the images it is."""
    model = study.models["model"]
    with st.container(horizontal=True):
        place = st.container(width="content")
        with st.container():
            widgets.number("image", len(image_set_of(study.request, model)) - 1)
            shown = study.picture("model")
            label = shown.label_of(0)
            what = f"Image {study.request.image} of {shown.source}"
            st.caption(state.plain(what if label is None else f"{what}: {label}"))
        with place:
            patches = patches_of(model)
            first = patches.n_prefix  # the position of the first patch
            picture(shown, patches.side, at - first, "patches", lambda n: _pick(n + first))


def _pick(position: int) -> None:
    state.put(position=position)


def section(body: Callable[[], object]) -> None:
    """A part of a page that is drawn at once, and redrawn by itself when its choices change.

    Args:
        body: Draws it; no other part may depend on what is chosen in it.
    """

    @st.fragment
    def part() -> None:
        guarded(body)
        state.write_link()

    part()


def choose_edge(study: Study) -> None:
    """A stream, a layer as for :func:`choose_layer`, and a source."""
    with st.container(horizontal=True):
        widgets.choice("stream")
        usual = replace(study.request, stream=state.view()["stream"], layer=None, source=None)
        choose_row(study, edge_place(study.with_request(usual))[0])
        asked = replace(usual, layer=state.view()["layer"])
        _, source = edge_place(study.with_request(asked))
        widgets.number("source", len(study.models["model"].wiring.sources) - 1, source)


def choose_read(study: Study) -> None:
    """A stream of a block that both models have, or the final norm, and a source of it."""
    last = min(model.cfg.n_layers for model in study.models.values())
    with st.container(horizontal=True):
        widgets.choice("stream")
        widgets.number("block", last, min(study.block("model"), last))
        widgets.number("source", last, USUAL_SOURCE)


def choose_layer(study: Study) -> None:
    """A layer that both models have."""
    default = study.with_request(replace(study.request, layer=None)).layer("model")
    _choose_layer({model.cfg.n_layers for model in study.models.values()}, default)


def choose_row(study: Study, default: int) -> None:
    """A row of the tables of weights that both models have."""
    _choose_layer({model.wiring.n_rows for model in study.models.values()}, default)


def _choose_layer(depths: Set[int], default: int) -> None:
    last = min(depths) - 1
    if len(depths) > 1 and state.view()["layer"] is None:
        state.view()["layer"] = min(default, last)  # a figure would choose one for each depth
    widgets.number("layer", last, min(default, last))
