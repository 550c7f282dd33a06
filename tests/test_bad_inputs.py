"""Bad inputs of all kinds, and the sentence that each gets."""

import re
import warnings

import pytest
from sklearn.exceptions import NotFittedError

from helpers.bad_inputs import ROWS
from skgeo import SkgeoError
from skgeo.__main__ import main


def fault(call, words):
    """What is wrong with the answer to a bad input; None if nothing is."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            call()
    except (SkgeoError, NotFittedError) as error:
        message = str(error)
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    else:
        return "returned"
    good = (
        len(message) >= 20
        and (message[0].isupper() or message[0] == "'")
        and message.rstrip().endswith(".")
        and not re.search("RuntimeError|NoneType' object|NoneType object|linalg\\.", message)
        and re.search(words, message)
    )
    return None if good else message[:200]


def test_the_table_is_long():
    assert len({name for name, _, _ in ROWS}) > 1000


@pytest.mark.parametrize("subject", list(dict.fromkeys(name.split(":")[0] for name, _, _ in ROWS)))
def test_each_gets_a_sentence(subject):
    faults = {
        name: found
        for name, call, words in ROWS
        if name.split(":")[0] == subject and (found := fault(call, words)) is not None
    }
    assert not faults, "\n".join(f"{name} | {found}" for name, found in faults.items())


@pytest.mark.parametrize(
    "arguments",
    [
        ["--samples", "many"],
        ["--likelihood", "normal"],
        ["--samples", "0"],
        ["--data", "x.npz"],
        ["--model", "no.pt"],
        ["--model", "no.pt", "--data", "no.npz", "--factory", "nowhere"],
        ["--model", "no.pt", "--data", "no.npz", "--trust"],
        ["--no-such-option"],
    ],
)
def test_the_command_exits_with_two(arguments, capsys):
    try:
        status = main(arguments)
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert len(capsys.readouterr().err) >= 20
