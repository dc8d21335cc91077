"""The widget of an option: its kind, label, bounds and help are those of the table of options."""

from typing import Any

import streamlit as st

import state
from mudd_interp.options import Row
from mudd_interp.request import OPTIONS

_FEW = 4  # choices that stand side by side


def choice(name: str, *, known: tuple[str, ...] = (), **how: Any) -> None:
    """One of the words of an option, or some of them; a switch for one that is on or off."""
    row = OPTIONS[name]
    how = {"help": row.option.help, **how, **state.bound(name)}
    label, known = row.option.label, known or row.choices
    if row.plain is bool:
        st.toggle(label, **how)
    elif len(known) > _FEW:
        st.selectbox(label, known, format_func=_as_words, **how)
    else:
        required = state.FIELDS[name].default is not None
        st.segmented_control(label, known, format_func=_as_words, required=required, **how)


def number(
    name: str,
    high: int | None = None,
    default: int | None = None,
    called: str | None = None,
    **how: Any,
) -> None:
    """A number up to the highest possible here, which the label says if it is given.

    ``None`` in the view, or a number out of range, is the default; the latter is named in a notice.
    """
    row, value = OPTIONS[name], state.view()[name]
    low, most = row.bounds[0], row.most if high is None else high
    label = called or row.option.label
    label = label if high is None else f"{label}, {low} to {high}"
    if value is not None and not low <= value <= most:
        state.ignore(notice := f"{name}={value} is ignored: expected {low} to {most} here.")
        st.warning(state.plain(notice))
        state.view()[name] = value = state.FIELDS[name].default
    how = {"help": row.option.help, "width": 160, **how, **state.bound(name)}
    shown: int = state.FIELDS[name].default if default is None else default
    st.session_state[how["key"]] = min(most, max(low, shown if value is None else value))
    st.number_input(label, low, most, step=1, **how)


def token(name: str, nothing: str) -> None:
    """A token of the vocabulary, as text; an empty field means nothing."""
    key = f"token_{name}"
    st.session_state[key] = state.view()[name] or ""
    st.text_input(
        OPTIONS[name].option.label,
        key=key,
        placeholder=nothing,
        help="One token as text, its leading space included; an id for a model without tokenizer.",
        on_change=_take_token,
        args=(OPTIONS[name],),
        width=260,
    )


def ids(name: str, nothing: str) -> None:
    """Token ids; what an empty field means is said in its place."""
    row, value, key = OPTIONS[name], state.view()[name], f"{name}_text"
    if key not in st.session_state or st.session_state[f"{name}_of"] != value:
        st.session_state[key] = "" if value is None else row.to_text(value, ", ")
        st.session_state[f"{name}_of"] = value
    st.text_input(
        row.option.label,
        key=key,
        placeholder=nothing,
        help=row.option.help,
        on_change=_take_ids,
        args=(row,),
        width=260,
    )


def _take_token(row: Row) -> None:
    _take(row, st.session_state[f"token_{row.name}"] or None)


def _take_ids(row: Row) -> None:
    text = st.session_state[f"{row.name}_text"].strip()
    if _take(row, text or None):
        st.session_state[f"{row.name}_of"] = state.view()[row.name]


def _take(row: Row, text: str | None) -> bool:
    """Put what was typed into the view, or say why the view is as before."""
    try:
        value = None if text is None else row.asked(row.of_text(text))
    except ValueError as error:
        state.ignore(f"{row.option.label} is as before: {error}.")
        return False
    state.put(**{row.name: value})
    return True


def _as_words(choice: str) -> str:
    return choice.replace("_", " ")
