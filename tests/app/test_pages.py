"""Every page opens, and says in its place what it cannot show."""

import shutil
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants
from streamlit.testing.v1 import AppTest

import caches
import charts
import state
from mudd_interp.analysis import LayerSimilarityAnalysis
from mudd_interp.catalog import FIGURES
from mudd_interp.checkpoints import save_model
from mudd_interp.checkpoints.names import BUNDLED_FOLDER
from mudd_interp.request import Request
from mudd_interp.study import Need, Study
from tests.kinds import OF_ANY
from tests.unit.test_doors import bidirectional

MAIN = Path(__file__).parents[2] / "app" / "main.py"
PAGES = (
    "overview",
    "similarity",
    "weights",
    "heads",
    "attribution",
    "interventions",
    "corpus",
    "about",
)
SMALL = {"n": "2", "c": "32"}
"""A corpus of two sequences of 32 tokens."""
HTML = "<script>alert(1)</script><img src=x onerror=alert(1)>"


def opened(page: str = "overview", **params: str) -> AppTest:
    """The app as a link opens it."""
    at = AppTest.from_file(MAIN, default_timeout=120)
    at.query_params.update(SMALL | params)
    at.run()
    return at if page == "overview" else turned_to(at, page)


def turned_to(at: AppTest, page: str) -> AppTest:
    at.switch_page(f"views/{page}.py")
    return settled(at.run())


def settled(at: AppTest) -> AppTest:
    assert not at.exception, at.exception
    return at


def agreed(at: AppTest) -> AppTest:
    """The app after what a link means was agreed to."""
    return settled(at.button(key="agree").click().run())


def typed(at: AppTest, prompt: str) -> AppTest:
    """The app after a prompt and Run."""
    at.text_area(key="draft_prompt").set_value(prompt)
    return settled(at.button(key="press_run").click().run())


def texts(elements: object) -> str:
    return "\n".join(element.value for element in elements)  # pyright: ignore


@pytest.mark.parametrize("name", PAGES)
def test_a_page_opens(name: str):
    at = settled(opened(name))
    assert at.main[0] is at.title[0], "something stands above the title"
    assert at.title[0].value.endswith("?")
    assert not at.error
    assert not at.warning


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["overlay", "difference"])
@pytest.mark.parametrize("name", ["weights", "attribution"])
def test_a_page_with_figures_of_few_models_opens_in_every_mode(name: str, mode: str):
    at = settled(opened(name, o=mode))
    assert not at.error
    assert len(at.header) >= 3


OF_IMAGES = {"m": "mudd-vit-tiny", "b": "vit-tiny"}


@pytest.mark.parametrize("name", ["vision", "similarity"])
def test_a_page_of_a_model_of_images(name: str):
    at = settled(opened(name, ii="3", **OF_IMAGES))
    assert not at.error
    assert at.number_input(key="view_image").value == 3
    assert at.number_input(key="view_position").label == "Patch, 0 to 48"
    assert at.number_input(key="view_position").value == 24
    assert "Image 3 of bundled test images of Fashion\\-MNIST" in texts(at.caption)


def test_a_figure_says_in_one_line_that_it_is_not_for_a_model_of_images():
    at = settled(opened("heads", **OF_IMAGES))
    assert not at.error
    said = texts(at.info).replace("\\", "")
    assert "head_activity is not for mudd-vit-tiny, because it reads no tokens" in said


def test_the_page_of_images_leads_from_a_model_of_text_to_the_bundled_pair():
    at = settled(opened("vision"))
    assert "is for models that read images, and mudd\\-tiny reads text" in texts(at.info)
    at.main.button[0].click()
    at = settled(at.run())
    assert at.number_input(key="view_image").value == 0
    assert not at.error


def test_a_link_is_restored_and_survives_a_change_of_page():
    at = opened("heads", l="3", s="prompt", o="difference", p=state.pack("x = [1, 2"))
    assert at.number_input(key="view_layer").value == 3
    assert at.text_area(key="draft_prompt").value == "x = [1, 2"
    turned_to(at, "similarity")
    assert at.query_params == SMALL | {
        "l": "3",
        "s": "prompt",
        "o": "difference",
        "p": state.pack("x = [1, 2"),
    }


def test_a_change_is_in_the_link_and_a_default_is_not():
    at = opened("heads")
    at.number_input(key="view_layer").set_value(2).run()
    at.number_input(key="view_position").set_value(4).run()
    assert at.query_params == SMALL | {"l": "2", "x": "4"}
    at.number_input(key="view_layer").set_value(2).run()
    typed(at, "def f(x):")
    assert at.query_params == SMALL | {"l": "2", "p": state.pack("def f(x):")}


def test_bad_values_of_a_link_are_named_and_the_page_opens():
    at = settled(opened("heads", l="99", x="1000", o="beside", nonsense="1"))
    said = texts(at.warning).replace("\\", "")
    for value in ("o='beside' (mode)", "nonsense='1'", "layer=99", "position=1000"):
        assert value in said
    assert at.query_params == SMALL


def test_a_prompt_that_is_too_long_for_the_model_is_said_and_the_averages_are_shown():
    at = typed(opened("heads"), "x = 1\n" * 400)
    assert "do not fit" in texts(at.error)
    assert at.get("plotly_chart")


def test_an_empty_prompt_and_bad_ids_change_nothing():
    at = typed(opened(), "")
    assert "empty" in texts(at.error)
    at.radio(key="draft_kind").set_value("Token ids")
    typed(at, "1, two")
    assert "token ids such as" in texts(at.error)
    assert at.query_params == SMALL
    typed(at, "1, 2")
    assert not at.error
    assert at.query_params == SMALL | {"i": state.pack("1.2")}


def test_html_in_a_prompt_is_text_everywhere():
    at = typed(opened("heads"), HTML)
    assert not at.error
    charts = [chart.proto.spec for chart in at.get("plotly_chart")]
    assert charts
    assert not any("<script" in spec or "<img" in spec for spec in charts)
    assert not any("<script" in each.value for each in (*at.markdown, *at.caption))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    """A model's folder, its weights cut short."""
    shutil.copytree(BUNDLED_FOLDER / "mudd-tiny", folder := tmp_path / "broken")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    return folder


def test_a_broken_model_is_said_and_the_next_one_opens(broken: Path):
    at = agreed(opened(m=str(broken)))
    assert "cannot be loaded" in texts(at.error)
    assert "model.safetensors" in texts(at.error).replace("\\", "")
    at.selectbox(key="draft_model").set_value("mudd-tiny")
    settled(at.button(key="press_run").click().run())
    assert not at.error


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[object]:
    """The addresses that the app tried to reach, with nothing in the hub's cache."""
    asked: list[object] = []

    def unreachable(host: object, *_: object, **__: object) -> None:
        asked.append(host)
        raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")

    monkeypatch.setattr(socket, "getaddrinfo", unreachable)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    sleep = time.sleep  # the client waits for seconds between its attempts
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.01)))
    return asked


@pytest.mark.parametrize(
    "params", [{"m": "someone/model"}, {"b": "pythia-160m"}, {"d": "someone/data"}]
)
def test_a_link_downloads_nothing_unasked(params: dict[str, str], no_network: list[object]):
    at = settled(opened("similarity", **params))
    assert "would be downloaded" in texts(at.warning)
    assert state.plain(*params.values()) in texts(at.warning)
    assert not at.error
    assert not no_network
    agreed(at)
    assert "would be downloaded" not in texts(at.warning)
    assert no_network
    assert "cannot be" in texts(at.error)


def test_figures_of_the_prompt_do_not_wait_for_the_text(no_network: list[object]):
    at = settled(opened(d="someone/data", n="all"))
    agreed(at)
    assert not at.error
    assert not no_network


def test_a_name_that_was_typed_is_loaded(no_network: list[object]):
    at = settled(opened())
    at.selectbox(key="draft_baseline").set_value("pythia-160m")
    settled(at.button(key="press_run").click().run())
    assert "would be downloaded" not in texts(at.warning)
    assert no_network
    assert "cannot be reached" in texts(at.error)


def test_a_model_alone_is_shown_without_a_baseline():
    at = settled(opened("weights", b="none"))
    assert not at.error
    assert "there is none" in texts(at.info)


def test_a_long_prompt_is_asked_for_and_only_that_one_is_taken():
    prompt = "".join(chr(33 + i * i * 7919 % 15000) for i in range(2500))
    at = settled(opened(pd=state.digest([prompt, None])))
    assert "too long to carry" in texts(at.warning)
    assert not at.dataframe
    typed(at, "another")
    assert "different prompt" in texts(at.error)
    typed(at, prompt)
    assert "too long to carry" not in texts(at.warning)
    assert at.session_state["view"]["prompt"] == prompt
    assert at.query_params == SMALL | {"pd": state.digest([prompt, None])}


def test_no_average_over_a_long_text_is_begun_unasked():
    at = opened("similarity", n="all")
    assert "is over a long text that has not been read yet" in texts(at.info)
    assert not at.error
    assert not turned_to(opened(), "similarity").info


def test_heads_can_be_put_in_the_order_of_their_activity():
    at = settled(opened("heads", q="activity"))
    assert not at.error
    assert "Where do they look on this prompt?" in texts(at.header)


@pytest.mark.slow
def test_the_baseline_has_its_triangles_once():
    for mode in ("", "side_by_side", "overlay", "difference"):
        at = opened("weights", **({"o": mode} if mode else {}))
        titles = [each.value for each in at.subheader if each.value.startswith("Dense weights of")]
        assert titles.count("Dense weights of tfm\\-tiny\\, rectified") == 1, mode


def test_a_token_that_is_a_text_and_sinks_that_fit_no_link_are_refused():
    at = opened("attribution")
    settled(at.text_input(key="token_answer").set_value("x" * 101).run())
    assert "at most 100 characters" in texts(at.warning)
    at = turned_to(at, "heads")
    settled(at.text_input(key="sinks_text").set_value(", ".join(map(str, range(65)))).run())
    assert "at most 64" in texts(at.warning)
    assert {"a", "z"}.isdisjoint(at.query_params)


def test_about_says_what_a_link_got_wrong():
    at = AppTest.from_file(MAIN, default_timeout=120)
    at.query_params["bogus"] = "1"
    at.run()
    assert "bogus" in texts(turned_to(at, "about").warning)


UNASKED: dict[str, tuple[dict[str, str], str]] = {
    "a folder": ({"m": "/srv/models/secret"}, "the model /srv/models/secret"),
    "a baseline's folder": ({"b": "./here"}, "the baseline ./here"),
    "another machine's folder": ({"m": "//evil.example/share"}, "the model //evil.example/share"),
    "a file": ({"t": "/etc/hostname"}, "the text /etc/hostname"),
    "a file of the home folder": ({"t": "~/notes.txt"}, "the text ~/notes.txt"),
    "an upload": ({"t": "/far/uploads/0123456789abcdef/n.txt"}, "the text /far/uploads/"),
    "a dataset": ({"d": "someone/data", "dg": "x"}, "the dataset someone/data"),
    "a device": ({"dv": "cuda"}, "the device cuda"),
    "a precision": ({"ty": "float64"}, "the precision float64"),
    "many edits": ({"e": state.pack("cut mlp 1;" * 9)}, "the edits cut mlp 1; cut mlp 1"),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", UNASKED)
@pytest.mark.parametrize("page", ["similarity", "interventions", "corpus"])
def test_what_only_a_link_names_is_not_touched_before_a_click(
    what: str, page: str, monkeypatch: pytest.MonkeyPatch
):
    params, said = UNASKED[what]

    def touched(*_: object, **__: object) -> None:
        raise AssertionError("it was touched")

    opened()  # the app's own files
    monkeypatch.setattr("caches.study", touched)
    monkeypatch.setattr("uploads.why_missing", touched)
    at = opened(page, **params)
    assert said in texts(at.warning).replace("\\", "").replace("**", "")
    assert not at.error
    assert not at.get("plotly_chart")


@pytest.mark.parametrize("what", UNASKED)
def test_a_link_opens_without_what_it_names(what: str):
    at = opened(**UNASKED[what][0])
    settled(at.button(key="without").click().run())
    assert not at.warning
    assert not at.error
    assert {key: at.query_params[key] for key in at.query_params if key != "dg"} == SMALL


def test_an_agreed_dataset_is_asked_for_again_in_another_configuration(no_network: list[object]):
    at = agreed(opened(d="someone/data", dg="one"))
    assert not at.warning
    at.query_params["dg"] = "two"
    at.run()
    assert "the dataset" in texts(at.warning)


def test_what_the_dashboard_was_started_with_is_not_asked_for(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sys.argv", ["main.py", "--model=./no-such-folder", "--baseline=none"])
    at = settled(opened())
    assert not at.warning
    at.query_params["m"] = "./no-such-folder"
    assert "cannot be loaded" in texts(at.run().error)
    assert not at.warning


def test_long_sequences_are_many_tokens_too():
    request, need = Request(sequences=128, context=256), Need("model", LayerSimilarityAnalysis())
    assert not charts.waits(caches.study(request), [need])
    assert charts.waits(caches.study(replace(request, sequences=129)), [need])
    assert charts.few("head_composition", request) == {}
    assert charts.few("head_composition", replace(request, sequences=64, context=512)) == {}
    for sequences, context in ((300, 256), (65, 512), (None, None), (2, 2**17)):
        long = replace(request, sequences=sequences, context=context)
        assert charts.few("head_composition", long) == {"sequences": 16}


@pytest.mark.slow
def test_edits_over_a_long_text_are_tried_on_a_few_sequences():
    at = settled(opened("interventions", e=state.pack("cut mlp 1"), n="100000"))
    assert not at.error
    assert "16 sequences" in texts(at.caption)
    settled(opened("interventions", e=state.pack("cut mlp 1"), n="100000", c="131072"))


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_ANY)
def test_no_figure_over_a_long_text_begins_unasked(name: str, monkeypatch: pytest.MonkeyPatch):
    walked: list[int | None] = []

    def walk(study: Study, missing: dict[str, Need]) -> None:
        walked.append(study.at_most(next(iter(missing.values()))))
        raise ValueError("no walk in this test")

    monkeypatch.setattr(Study, "_walk", walk)
    edits = "cut mlp 1; mean v 7<-2"
    request = Request(sequences=5000, edits=edits, corrupted="x = 2", prompt="x = 1", layer=2)
    study = caches.study(request)
    needs = FIGURES[name].needs(study)
    assert charts.waits(study, needs) == any(need.text != "repeated" for need in needs)
    assert bool(needs) == ("scope" in FIGURES[name].uses or name == "loss_comparison")
    page = AppTest.from_function(_chart, kwargs={"name": name}, default_timeout=60)
    page.session_state["view"] = state.default_view() | {
        "sequences": 5000, "edits": edits, "corrupted": "x = 2", "prompt": "x = 1", "layer": 2,
    }  # fmt: skip
    settled(page.run())
    assert all(count is not None and count <= 128 for count in walked)
    if any(need.text != "repeated" for need in needs):
        assert "is over a long text" in texts(page.info)


def _chart(name: str) -> None:
    import charts

    charts.chart(name)


@pytest.mark.slow
def test_a_page_says_what_model_a_figure_is_not_for(tmp_path: Path):
    folder = save_model(bidirectional(), tmp_path / "all")
    at = agreed(opened(m=str(folder), b="none"))
    for page, name in (
        ("heads", "Which heads are awake"),
        ("attribution", "What wrote this prediction"),
    ):
        at = turned_to(at, page)
        assert not at.error
        said = texts(at.info).replace("\\", "")
        assert name in said
        assert "/all, because" in said
    at = turned_to(at, "similarity")
    assert not at.error
    at = turned_to(at, "corpus")
    assert not at.error
