"""The page Corpus: runs that can be stopped and are kept, uploads, ranked tokens."""

import json
import re
import shutil
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.proto.WidgetStates_pb2 import WidgetStates
from streamlit.runtime.scriptrunner import RerunData, get_script_run_ctx
from streamlit.testing.v1 import AppTest

import caches
import progress
import runs
import shelf
import state
from mudd_interp.analysis import LayerSimilarity, LayerSimilarityAnalysis, Result
from mudd_interp.catalog import FIGURES
from mudd_interp.request import Request
from mudd_interp.study import Study
from tests.bundled import load

pytestmark = pytest.mark.slow

MAIN = Path(__file__).parents[2] / "app" / "main.py"
SMALL = {"n": "2", "bs": "1"}
"""Two sequences of 256 tokens, one in a batch."""
REQUEST = Request(sequences=2, batch_size=1)
TEXT = "def area(r):\n    return 3.14 * r * r\n" * 40
PASSES = ["the averages of mudd-tiny", "the averages of tfm-tiny", "the losses of both"]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator[Path]:
    """A cache folder of the test's own."""
    monkeypatch.setenv("MUDD_INTERP_CACHE", str(tmp_path / "cache"))
    caches._shared.clear()
    yield tmp_path / "cache"
    caches._shared.clear()


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The cache folder of a process that has run all."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUDD_INTERP_CACHE", str(folder))
        caches._shared.clear()
        ran()
    return folder


@pytest.fixture
def ready(whole_run: Path, cache: Path) -> Path:
    """The test's own copy of it, found by a new process."""
    shutil.copytree(whole_run, cache)
    caches._shared.clear()
    return cache


def opened(page: str = "corpus", **params: str) -> AppTest:
    """A page, as a link opens it in a new session."""
    at = AppTest.from_file(MAIN, default_timeout=120)
    at.query_params.update(SMALL | params)
    return turned_to(at.run(), page)


def turned_to(at: AppTest, page: str) -> AppTest:
    at.switch_page(f"views/{page}.py")
    return settled(at.run())


def settled(at: AppTest) -> AppTest:
    assert not at.exception, at.exception
    return at


def pressed(at: AppTest, key: str) -> AppTest:
    return settled(at.button(key=key).click().run())


def ran(**params: str) -> AppTest:
    """The page after a whole run."""
    return pressed(opened(**params), "start_run")


def said(elements: object) -> str:
    """What elements say, without the marks of Markdown."""
    return re.sub(r"[\\*]", "", "\n".join(str(each.value) for each in elements))  # pyright: ignore


def forbid_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("nothing was to be computed")

    monkeypatch.setattr("mudd_interp.study.sweep_over_ranks", refuse)


def one_run(cache: Path) -> Path:
    (folder,) = (cache / "runs").iterdir()
    return folder


def test_one_run_computes_what_the_pages_average_and_the_losses(monkeypatch: pytest.MonkeyPatch):
    lines, real = list[str](), progress.line
    monkeypatch.setattr(progress, "line", lambda *a: lines.append(real(*a)) or lines[-1])
    at = ran()
    assert "Finished: bundled validation pack (Python source), 6 of 6" in said(at.success)
    assert not at.error
    for i, each in enumerate(lines, 1):
        seen = rf"{i} of 6 sequences, {256 * i:,} tokens, [\d,]+ tokens/s, \d:\d\d:\d\d left"
        assert re.fullmatch(seen, each)
    assert lines[5].endswith("0:00:00 left")
    forbid_computing(monkeypatch)
    for page in ("similarity", "weights"):
        turned_to(at, page)
        assert at.get("plotly_chart")
        assert not at.error


def click_during(monkeypatch: pytest.MonkeyPatch, batch: int, key: str) -> None:
    """Click a button while a batch is reported, as a browser does: by a request for a rerun."""
    real, seen = progress.line, list[int]()

    def line(*arguments: int) -> str:
        seen.append(1)
        if len(seen) == batch:
            context = get_script_run_ctx()
            assert context is not None
            inner = context.session_state._state
            states = WidgetStates(
                widgets=[
                    each
                    for each in inner.get_widget_states()
                    if each.WhichOneof("value") != "trigger_value"
                ]
            )
            button = states.widgets.add()
            button.id = str(inner._key_id_mapper.get_id_from_key(key))
            button.trigger_value = True
            data = RerunData(widget_states=states, page_script_hash=context.page_script_hash)
            assert context.script_requests is not None
            assert context.script_requests.request_rerun(data)
        return real(*arguments)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(progress, "line", line)


def test_stop_ends_a_run_between_two_batches_and_leaves_what_is_finished(
    monkeypatch: pytest.MonkeyPatch,
):
    with monkeypatch.context() as patch:
        click_during(patch, batch=3, key="stop_run")
        at = ran()
    assert "Stopped" in said(at.warning)
    assert "3 of 6 sequences" in said(at.warning)
    assert f"Finished, and used by all pages: {PASSES[0]}." in said(at.warning)
    assert f"Not there yet: {PASSES[1]}; {PASSES[2]}." in said(at.text)
    assert not at.get("progress")
    ((entry,), _) = caches.shelf().entries()
    assert entry.passes == PASSES[:1]

    lock = caches._shared().lock._lock
    assert lock.acquire(blocking=False)  # this is another thread than the script's
    lock.release()
    for name in ("mudd-tiny", "tfm-tiny"):
        hooks = caches.load(name).hook_dict.values()
        assert not any(getattr(hook, "fwd_hooks", ()) for hook in hooks)

    pressed(at, "start_run")
    assert "4 of 4 sequences" in said(at.success)
    whole = caches.study(REQUEST).result("baseline", LayerSimilarityAnalysis())
    fresh = Study(REQUEST, load)
    fresh.prepare(runs.goals(fresh)[1].needs)
    assert whole.frame.equals(fresh.result("baseline", LayerSimilarityAnalysis()).frame)


def test_a_run_that_was_stopped_does_not_begin_again_by_itself(monkeypatch: pytest.MonkeyPatch):
    click_during(monkeypatch, batch=1, key="stop_run")
    at = ran()
    turned_to(at, "about")
    turned_to(at, "corpus")
    assert "Stopped" in said(at.warning)
    assert at.button(key="start_run").label == "Run"


def test_a_run_is_found_after_a_restart_by_another_session(
    ready: Path, monkeypatch: pytest.MonkeyPatch
):
    assert {file.suffix for file in one_run(ready).iterdir()} == {".json", ".safetensors"}
    forbid_computing(monkeypatch)
    at = opened()
    assert "All of it is there" in said(at.text)
    assert at.button(key="start_run").disabled
    assert "95% interval of that, over sequences" in said(at.table)
    assert "narrower than one over files" in said(at.caption)
    turned_to(at, "similarity")
    assert at.get("plotly_chart")
    assert not at.error


@pytest.mark.usefixtures("ready")
def test_kept_runs_are_listed_opened_and_deleted():
    at = opened(n="5", m="tfm-tiny", b="none")
    table = at.dataframe[-1].value.iloc[0]
    assert list(table[["model", "baseline", "sequences", "tokens"]]) == [
        "mudd-tiny",
        "tfm-tiny",
        2,
        512,
    ]
    assert table["finished"] == "; ".join(PASSES)
    pressed(at, "open_kept")
    view = at.session_state["view"]
    assert [view[name] for name in ("model", "baseline", "text", "sequences", "context")] == [
        "mudd-tiny",
        "tfm-tiny",
        None,
        2,
        None,
    ]
    assert "All of it is there" in said(at.text)
    pressed(at, "delete_kept")
    assert "Not there yet" in said(at.text)
    assert "None yet." in said(at.text)


def spoil(folder: Path, damage: str) -> None:
    """Damage a kept run."""
    entry, values = folder / "entry.json", json.loads((folder / "entry.json").read_text())
    file = max(folder.glob("*.safetensors"), key=lambda each: each.stat().st_size)
    data = bytearray(file.read_bytes())
    match damage:
        case "no JSON":
            entry.write_text("{")
        case "another version":
            entry.write_text(json.dumps(values | {"version": "0.0"}))
        case "a foreign link":
            entry.write_text(json.dumps(values | {"link": {"n": 2}}))
        case "short":
            file.write_bytes(data[:99])
        case "missing":
            file.unlink()
        case _:
            data[-1] ^= 1
            file.write_bytes(data)


@pytest.mark.parametrize(
    "damage", ["no JSON", "another version", "a foreign link", "short", "missing"]
)
def test_what_is_damaged_or_foreign_is_not_listed_and_its_reason_is(ready: Path, damage: str):
    spoil(one_run(ready), damage)
    entries, ignored = caches.shelf().entries()
    assert not entries
    assert list(ignored) == [one_run(ready)]
    assert caches.study(REQUEST).found(["0" * 64]) == {}


def test_a_damaged_result_is_ignored_with_a_message_and_computed_again(ready: Path):
    spoil(one_run(ready), "one bit")
    at = opened()
    assert f"{one_run(ready).name} is ignored" in said(at.warning)
    assert f"Not there yet: {PASSES[0]}." in said(at.text)
    pressed(at, "start_run")
    assert "2 of 2 sequences" in said(at.success)
    assert "is ignored" not in said(at.warning)
    assert not at.error


def result() -> LayerSimilarity:
    return caches.study(REQUEST).result("model", LayerSimilarityAnalysis())


def kept(on: shelf.Shelf, name: str) -> None:
    on.keep(name * 64, {name * 64: result()}, {"n": "2"}, ["mudd-tiny"], ["all"])


def test_a_run_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    kept_runs = shelf.Shelf(tmp_path / "runs")
    kept(kept_runs, "a")
    before = kept_runs.entries()

    def full(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(Result, "save", full)
    for name in "ab":
        with pytest.raises(OSError, match="no space"):
            kept(kept_runs, name)
    assert kept_runs.entries() == before
    assert [path.name for path in kept_runs.folder.iterdir()] == ["a" * 64]


def test_the_oldest_runs_go_when_the_disk_holds_too_many(tmp_path: Path):
    kept_runs = shelf.Shelf(tmp_path / "runs")
    (tmp_path / "runs" / "mine").mkdir(parents=True)
    (tmp_path / "runs" / "mine" / "thesis.txt").write_text("x" * 10**6)
    kept(kept_runs, "a")
    size = sum(file.stat().st_size for file in (kept_runs.folder / ("a" * 64)).iterdir())
    small = shelf.Shelf(kept_runs.folder, limit=2 * size + 10)
    for name in "bc":
        kept(small, name)
    assert [entry.name[0] for entry in small.entries()[0]] in (["b", "c"], ["c", "b"])
    assert (tmp_path / "runs" / "mine" / "thesis.txt").exists()


def uploaded(at: AppTest, name: str, data: bytes) -> AppTest:
    at.segmented_control(key="text_kind").set_value("upload")
    settled(at.run())
    at.file_uploader(key="upload").set_value((name, data, "text/plain"))
    return settled(at.run())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x89PNG\r\n\x1a\n\x00\x00\xff", "is not UTF-8 text (byte 0)"),
        ("naïve café".encode("latin-1"), "is not UTF-8 text (byte 2)"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"x = 1\x00", "NUL characters (the first at 5)"),
        (b"x = 1\n" * 9_000_000, "has 51.5 MiB, and an upload may have 5"),
    ],
)
def test_an_upload_that_cannot_be_read_is_refused_and_the_text_stays(data: bytes, message: str):
    at = uploaded(opened(), "notes.txt", data)
    assert message in said(at.error)
    assert at.session_state["view"]["text"] is None
    assert at.query_params == SMALL
    assert not at.button(key="start_run").disabled
    uploaded(at, "notes.txt", TEXT.encode())
    assert not at.error
    assert at.session_state["view"]["text"].endswith("notes.txt")


def test_a_run_over_an_upload(cache: Path):
    at = uploaded(opened(), "../x y<b>.txt", TEXT.encode())
    path = Path(at.session_state["view"]["text"])
    assert path.parents[1] == cache / "uploads"
    assert path.name == "_x_y_b_.txt"
    assert path.read_bytes() == TEXT.encode()
    pressed(at, "start_run")
    assert not at.error
    assert "a link does not carry" not in said(at.warning)
    assert "does not carry" in said(at.caption)
    assert at.dataframe[-1].value.iloc[0]["text"] == path.name


def test_a_run_over_a_folder_and_one_with_a_broken_file(tmp_path: Path):
    folder = tmp_path / "texts"
    folder.mkdir()
    (folder / "a.py").write_text(TEXT)
    at = opened()
    at.segmented_control(key="text_kind").set_value("path")
    settled(at.run())
    at.text_input(key="path").set_value(str(tmp_path / "none"))
    settled(at.run())
    assert "no file or folder" in said(at.error)
    assert at.session_state["view"]["text"] is None
    assert at.text_input(key="path").value == str(tmp_path / "none")
    at.text_input(key="path").set_value(str(folder))
    settled(at.run())
    pressed(at, "start_run")
    assert "6 of 6 sequences" in said(at.success)
    (folder / "a.py").write_bytes(b"\xff\xfe")
    settled(at.run())
    pressed(at, "start_run")
    assert "is not UTF-8" in said(at.error)
    assert at.button(key="start_run").label == "Run"


@pytest.mark.usefixtures("ready")
@pytest.mark.parametrize("page", ["corpus", "similarity"])
def test_a_link_to_an_upload_that_is_not_here_names_it_and_says_what_to_do(page: str):
    at = opened(page, t="/far/mudd-interp/uploads/0123456789abcdef/notes.txt")
    assert "the text" in said(at.warning)
    pressed(at, "agree")
    (warning,) = at.warning
    assert "an upload, notes.txt (sha256 0123456789abcdef…)" in said([warning])
    assert "upload that file on the page Corpus" in said([warning])
    assert not at.get("plotly_chart")  # of the bundled text, which is there


@pytest.mark.usefixtures("ready")
def test_a_text_that_was_deleted_is_named_and_another_can_be_opened(tmp_path: Path):
    at = pressed(opened(t=str(tmp_path / "gone.txt")), "agree")
    assert "gone.txt, is not on this machine" in said(at.warning)
    pressed(at, "open_kept")
    assert "All of it is there" in said(at.text)


def selected(at: AppTest, row: int) -> AppTest:
    """The app after a row of the ranked tokens was chosen, as the table in the browser says it."""
    (frame,) = [each for each in at.dataframe if str(each.key).startswith("ranked")]
    states = at._tree.get_widget_states()
    chosen = states.widgets.add()
    chosen.id = frame.proto.id
    chosen.string_value = json.dumps({"selection": {"rows": [row], "columns": [], "cells": []}})
    return settled(at._run(states))


@pytest.mark.usefixtures("ready")
def test_ranked_tokens_open_in_turn_and_none_opens_again_on_return():
    at = opened()
    study = caches.study(REQUEST)
    tokens = study.of(study.comparison()).ranked_tokens
    for row in (3, 0):
        selected(at, row)
        token, view = tokens[row], at.session_state["view"]
        assert at.title[0].value == "What are these two models?"
        first = max(0, token.position - 200)
        assert view["prompt_ids"] == token.context[first : token.position + 1]
        assert view["position"] == token.position - first - 1
        turned_to(at, "corpus")
        assert at.title[0].value.startswith("What text")
    at.number_input(key="row").set_value(2)
    pressed(at, "open_row")
    assert at.session_state["view"]["prompt_ids"][-1] == tokens[1].token_id


def test_without_a_baseline_the_averages_are_run_alone():
    at = ran(b="none")
    assert "2 of 2 sequences" in said(at.success)
    assert "there is none" in said(at.info)


def test_a_disk_that_cannot_be_written_is_said_and_the_results_are_used(cache: Path):
    cache.mkdir()
    (cache / "runs").write_text("a file in the way")
    at = ran()
    assert "cannot be kept on disk" in said(at.error)
    assert at.table
    shutil.rmtree(cache)


@pytest.fixture
def whose(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[Path]:
    """A dashboard that others reach; the last folder is that of the page that is open."""
    folders = [tmp_path / "one"]
    monkeypatch.setattr("sessions.is_shared", lambda: True)
    monkeypatch.setattr("sessions.own_folder", lambda: folders[-1])
    return folders


def test_where_others_reach_it_a_page_keeps_its_own(cache: Path, whose: list[Path], tmp_path: Path):
    at = uploaded(opened(), "notes.txt", TEXT.encode())
    path = Path(at.session_state["view"]["text"])
    assert path.is_relative_to(whose[-1])
    pressed(at, "start_run")
    assert len(list((whose[-1] / "runs").iterdir())) == 1
    assert "Of this page, until it is closed" in said(at.caption)

    whose.append(tmp_path / "two")
    other = opened()
    assert "None yet." in said(other.text)
    assert "delete_kept" not in [each.key for each in other.button]
    other = opened(t=str(path))
    assert "not uploaded on this page" in said(other.error)
    assert "agree" not in [each.key for each in other.button]
    assert not cache.exists()


@pytest.mark.usefixtures("whose")
@pytest.mark.parametrize(
    "params",
    [
        {"t": "/etc/hostname"},
        {"t": "one/../../etc/hostname"},
        {"m": "/srv/model"},
        {"b": "app"},
        {"m": "../app"},
        {"d": "tests"},
    ],
)
def test_where_others_reach_it_no_file_is_read(params: dict[str, str]):
    at = opened(**params)
    assert "Others reach this dashboard." in said(at.error)
    assert "agree" not in [each.key for each in at.button]
    pressed(at, "without")
    assert not at.error


@pytest.mark.usefixtures("whose")
def test_where_others_reach_it_a_path_cannot_be_typed():
    at = opened()
    assert at.segmented_control(key="text_kind").options == [
        "the bundled held-out text",
        "an uploaded file",
    ]
    at.session_state["view"] |= {"model": "/srv/model"}
    at.session_state["trusted"] |= {("model", "/srv/model")}
    settled(at.run())
    assert "Others reach this dashboard." in said(at.error)


def test_another_session_may_remove_the_oldest_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    kept_runs, size = shelf.Shelf(tmp_path / "runs"), shelf._size

    def removed(folder: Path) -> int:
        if folder.name == "a" * 64:
            shutil.rmtree(folder)
            raise FileNotFoundError(folder)
        return size(folder)

    kept(kept_runs, "a")
    monkeypatch.setattr(shelf, "_size", removed)
    kept(kept_runs, "b")
    assert [entry.name for entry in kept_runs.entries()[0]] == ["b" * 64]


@pytest.mark.usefixtures("ready")
def test_a_costly_figure_is_run_over_all_of_the_text_if_it_is_chosen(
    monkeypatch: pytest.MonkeyPatch,
):
    at = opened(e=state.pack("cut mlp 1"))
    assert "All of it is there" in said(at.text)
    at.multiselect(key="besides").set_value(["head_composition", "edit_effects"])
    settled(at.run())
    pressed(at, "start_run")
    # random tokens for the strongest induction head, its inputs, and the edits in both models
    assert "22 of 22 sequences" in said(at.success)
    assert not at.error
    study = caches.study(replace(REQUEST, edits="cut mlp 1"))
    for name in ("head_composition", "edit_effects"):
        needs = FIGURES[name].needs(study)
        assert needs
        assert study.walks(needs) == []
    title = FIGURES["head_composition"].title
    assert any(title in entry.passes for entry in caches.shelf().entries()[0])
