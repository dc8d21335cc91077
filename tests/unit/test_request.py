"""A request as a command and as Python: both say what the request says, and nothing else."""

import shlex

import pytest

from mudd_interp.request import Request, changed, command_line, python_lines


def test_an_unknown_choice_is_refused_with_what_there_is():
    with pytest.raises(ValueError, match="stream must be one of q, k, v, r, got 'w'"):
        Request.of_values({"stream": "w"})


@pytest.mark.parametrize("prompt", [{"prompt": ""}, {"prompt_ids": ()}])
def test_an_empty_prompt_is_refused(prompt: dict[str, object]):
    with pytest.raises(ValueError, match="the prompt is empty"):
        Request.of_values(prompt)


@pytest.mark.parametrize("name", ["answer", "against", "corrupted"])
def test_an_empty_token_is_refused(name: str):
    with pytest.raises(ValueError, match=f"{name} is empty"):
        Request.of_values({name: ""})


def test_a_command_says_what_is_not_default_and_used():
    request = Request(prompt="a b", layer=3, raw=True, baseline=None, sinks=())
    words = shlex.split(command_line("f", request, ("prompt", "raw", "baseline", "sinks")))
    expected = ["--baseline", "none", "--prompt", "a b", "--raw", "--sinks", "none"]
    assert words == ["mudd-interp", "figures", "--only", "f", *expected, "--out", "figures"]


@pytest.mark.parametrize("prompt", ["-x", "--model", "it's; rm", "a\nb", '"'])
def test_a_prompt_survives_the_shell(prompt: str):
    words = shlex.split(command_line("f", Request(prompt=prompt), ("prompt",)))
    assert prompt in (words[4].removeprefix("--prompt="), words[5])


def test_python_lines_give_the_same_request():
    request = Request(prompt='say "hi"\n', layer=3, sinks=(1, 2), mode="difference")
    names = ("prompt", "layer", "sinks", "mode")
    found: list[Request] = []
    code = python_lines("f", request, names).replace("import mudd_interp as mi", "")

    class Recorder:
        def draw(self, _: str, **values: object) -> "Recorder":
            found.append(Request.of_values(values))
            return self

        figure = property(lambda self: self)
        frame = None

        def show(self) -> None: ...

    exec(code, {"mi": Recorder()})
    assert found == [request]
    assert set(changed(request, names)) == set(names)
