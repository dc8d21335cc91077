"""Corpus."""

from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

import caches
import charts
import frame
import runs
import sessions
import state
from mudd_interp.analysis import LossComparison, ranked_texts
from mudd_interp.analysis.ranking import RankedToken
from mudd_interp.catalog import FIGURES
from mudd_interp.data import Batches
from mudd_interp.viz import shown
from runs import Run
from shelf import RUNS_LIMIT, VARIABLE
from text_choice import choose_text

LONGEST_CONTEXT = 200  # tokens of a ranked token's context that a link can carry
LONGEST_TEXT = 60  # characters of that context in the table

FINDINGS = ("better", "rank", "difference", "before", "token", "after", "loss", "baseline_loss")


def ask(title: str) -> None:
    """Called when a run is asked for: it begins in the script that follows."""
    st.session_state["corpus_run"] = Run(title, besides=tuple(st.session_state["besides"]))


def control(place: Any, text: Batches) -> None:
    """What there is of this text, and the buttons that start a run and stop it."""
    todo = runs.missing(study, plan)
    can_be_kept = runs.can_be_kept(study)
    place.text(f"{text.description}: {sequences_of(text)}")
    if run is not None and not begins:
        with place:
            say_run(run, [each.name for each in plan if each not in todo])
    if todo:
        place.text(f"Not there yet: {'; '.join(each.name for each in todo)}.")
    else:
        place.text("All of it is there: no page has to compute an average over this text.")
    if not can_be_kept:
        place.text("Not kept on disk: these weights have no digest to recognise them by.")
    place.multiselect(
        "Also, if chosen",
        runs.costly(study),
        key="besides",
        format_func=lambda name: FIGURES[name].title,
        help="These run a model many times for each sequence: it takes long.",
        disabled=begins,
    )
    buttons = place.container(horizontal=True)
    buttons.button(
        "Run",
        key="start_run",
        type="primary",
        icon=":material/play_arrow:",
        disabled=begins or (not todo and (runs.are_kept(plan) or not can_be_kept)),
        on_click=ask,
        args=(text.description,),
    )
    if begins:
        buttons.button("Stop", key="stop_run", icon=":material/stop:")
        place.caption("Anything else that is clicked stops the run too.")


def sequences_of(text: Batches) -> str:
    """How many sequences are taken, as far as is known beforehand."""
    if text.n_sequences is not None:
        return f"{text.n_sequences:,} sequences"
    wanted = state.view()["sequences"]
    return "all sequences" if wanted is None else f"at most {wanted:,} sequences"


def say_run(run: Run, finished: list[str]) -> None:
    """How a run of this session ended.

    Args:
        run: One that is over.
        finished: What there is of the view's text now.
    """
    title = f"{state.plain(run.title)}, {run.sequences:,} of {run.total:,} sequences"
    if run.message:
        st.error(f"**Something went wrong.** {state.plain(run.message)}")
    elif run.stage == "done":
        st.success(f"**Finished**: {title}.")
    else:
        there = f"Finished, and used by all pages: {'; '.join(finished)}." if finished else ""
        st.warning(
            f"**Stopped**: {title}. {state.plain(there)} A pass that was not finished leaves "
            "nothing behind. Run continues with what is missing."
        )


def say_losses(comparison: LossComparison, names: list[str]) -> None:
    """The numbers of a comparison, and what its interval does not say."""
    summary = comparison.summary
    low, high = summary.interval
    rows = {
        f"Mean loss of {names[0]}": f"{summary.loss:.4f} nats per token",
        f"Mean loss of {names[1]}": f"{summary.baseline_loss:.4f} nats per token",
        f"{names[0]} − {names[1]}": f"{summary.difference:+.4f} nats per token",
        "95% interval of that, over sequences": f"{low:+.4f} to {high:+.4f}",
        f"Tokens on which {names[0]} is better": f"{summary.model_better:.1%}",
        f"Tokens on which {names[1]} is better": f"{summary.baseline_better:.1%}",
        "Predicted tokens": f"{summary.tokens:,}",
        "Sequences": f"{summary.sequences:,}",
    }
    values = pd.Series(rows, name="value").str.replace("-", "−")
    st.table(values.rename(state.plain))
    st.caption(
        "The interval assumes that sequences are independent. They are not: a document runs over "
        "several sequences, and so the interval is narrower than one over files would be. It says "
        "nothing about other training seeds."
    )


def choose_token(comparison: LossComparison) -> None:
    """The ranked tokens, each of which can be opened in its context."""
    st.subheader("Open a token in its context", anchor=False)
    st.markdown(
        "Choose a row, or give its number: its context, at most the last "
        f"{LONGEST_CONTEXT} tokens, becomes the prompt of all pages, with the cursor on the token "
        "before it, where it was predicted."
    )
    # A new key after each opening, so that the chosen row does not fire again on return.
    turn = st.session_state.setdefault("tokens_opened", 0)
    table = ranked_texts(comparison, study.models["model"])
    table["before"] = table["before"].str[-LONGEST_TEXT:]
    for column in ("before", "token", "after"):
        table[column] = table[column].map(partial(shown, longest=LONGEST_TEXT))
    table.index = pd.RangeIndex(1, len(table) + 1, name="row")
    chosen: Any = st.dataframe(
        table,
        column_order=FINDINGS,
        on_select="rerun",
        selection_mode="single-row",
        key=f"ranked-{turn}",
    )
    with st.container(horizontal=True, vertical_alignment="bottom"):
        row = st.number_input(f"Row, 1 to {len(table)}", 1, len(table), key="row", width=160)
        pressed = st.button("Open in context", key="open_row")
    if chosen.selection.rows:
        open_token(comparison.ranked_tokens[chosen.selection.rows[0]])
    if pressed:
        open_token(comparison.ranked_tokens[int(row) - 1])


def open_token(token: RankedToken) -> None:
    """Make a token's context the prompt, and turn to the page of predictions."""
    first = max(0, token.position - LONGEST_CONTEXT)
    ids = token.context[first : token.position + 1]
    st.session_state["tokens_opened"] += 1
    state.put(prompt=None, prompt_ids=ids, position=len(ids) - 2)
    st.switch_page("views/overview.py")


def _from_home(folder: Path) -> str:
    """A folder as one writes it in a shell."""
    home = Path.home()
    return f"~/{folder.relative_to(home)}" if folder.is_relative_to(home) else str(folder)


def list_kept() -> None:
    """The runs on disk, each to be opened or deleted."""
    st.header("Kept runs", anchor=False)
    shelf = caches.shelf()
    entries, ignored = shelf.entries()
    st.caption(
        "Of this page, until it is closed: others reach this dashboard too."
        if sessions.is_shared()
        else f"In {state.plain(_from_home(shelf.folder))} (`{VARIABLE}`, or `mudd-interp app "
        f"--cache`), {RUNS_LIMIT // 2**30} GiB at most: the oldest go first. Whoever runs this app "
        "on this machine finds them without computing anything."
    )
    for folder, reason in ignored.items():
        st.warning(f"{state.plain(folder.name)} is ignored: {state.plain(reason)}.")
    if not entries:
        st.text("None yet.")
        return
    st.dataframe(
        pd.DataFrame(
            {
                "model": entry.models[0],
                "baseline": ", ".join(entry.models[1:]) or "none",
                "text": entry.text,
                "sequences": entry.sequences,
                "tokens": entry.tokens,
                "when": pd.Timestamp(entry.when),
                "MB": round(entry.n_bytes / 1e6, 1),
                "finished": "; ".join(entry.passes),
            }
            for entry in entries
        ),
        hide_index=True,
        key="kept",
    )
    labels = {
        entry.name: f"{' and '.join(entry.models)}, {entry.text}, {entry.sequences:,} sequences"
        for entry in entries
    }
    with st.container(horizontal=True, vertical_alignment="bottom"):
        name = st.selectbox(
            "Kept run", list(labels), format_func=lambda name: labels[name], key="kept_run"
        )
        entry = next(each for each in entries if each.name == name)
        st.button("Open", key="open_kept", on_click=runs.open_view, args=(entry,))
        st.button("Delete", key="delete_kept", on_click=caches.forget, args=(entry,))


run: Run | None = st.session_state.get("corpus_run")
begins = run is not None and run.stage == "asked"
if run is not None and begins:
    run.stage = "running"
study = frame.open_page(
    "What text are the averages over, and where do the models differ?",
    "Every average on the other pages is over this text, unless it is over the prompt; in the "
    "comparison, negative numbers mean that the model is better than the baseline.",
    r"A run walks over the text once for each model, for all averages, and once for the losses of "
    r"both. A loss is $-\log p$ of the token that came, in nats. The difference of the models is "
    r"$\Delta = \sum_s D_s / \sum_s n_s$, where $D_s$ is the sum of the differences in sequence "
    r"$s$ and $n_s$ the number of its predicted tokens, all but the first. Its standard error is "
    r"$\sqrt{\tfrac{S}{S-1}\sum_s (D_s - \Delta\, n_s)^2}\,/\sum_s n_s$ over $S$ sequences, each "
    "seen by both models (paired); the interval is 1.96 standard errors to either side. The "
    "paper's Table 5 gives perplexities, the exponential of a mean loss, without an interval.",
    tokens=False,
    mode=False,
    scope=False,
)
study = study.with_request(runs.of_corpus(study.request))
choose_text()

place = st.container()
try:
    text = study.batches("model")
    plan = runs.goals(study, st.session_state.get("besides", ()))
except (ValueError, OSError) as error:
    place.error(f"**This text cannot be read.** {state.plain(str(error))}")
else:
    control(place, text)
    if "baseline" not in study.roles:
        st.info("Losses are compared with a baseline, and there is none.")
    elif comparison := study.found([study.key(study.comparison())]):
        st.header("Where do the models differ?", anchor=False)
        charts.chart("loss_comparison", mode=None)
        (losses,) = comparison.values()
        say_losses(losses, [study.name(role) for role in study.roles])
        choose_token(losses)
list_kept()
if run is not None and begins:
    with place:
        runs.go(study.request, run)
    st.rerun()
