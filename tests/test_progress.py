import io

import pytest

from ppl_cnn.progress import Bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def shown(file, **options):
    options = {"delay": 0, **options}
    with Bar(range(3), "work", file=file, **options) as bar:
        for number in bar:
            bar.set_postfix_str(f"at {number}")
    return file.getvalue()


@pytest.mark.parametrize(
    ("options", "states"),
    [
        ({}, ["0/3", "3/3"]),
        ({"leave": False}, ["0/3"]),
        ({"dynamic_ncols": True}, ["0/3", "3/3"]),
        ({"bar_format": "{desc}{n_fmt}|{bar}|{postfix}"}, ["work0", "work3 , at 2"]),
    ],
)
def test_where_nobody_watches_a_bar_is_plain_lines(options, states):
    text = shown(io.StringIO(), **options)
    assert not {"\r", "\x1b", "█", "|"} & {*text}
    assert text.endswith("\n")
    for line, state in zip(text.splitlines(), states, strict=True):
        assert line.startswith("work")
        assert state in line


def test_a_bar_inside_another_moves_no_cursor():
    file = io.StringIO()
    for _ in Bar(range(2), "outer", file=file):
        shown(file, leave=False)
    assert not {"\r", "\x1b"} & {*file.getvalue()}


def test_a_terminal_gets_a_live_bar():
    assert "\r" in shown(Terminal())


def test_a_bar_that_is_switched_off_writes_nothing():
    assert shown(io.StringIO(), disable=True) == ""
