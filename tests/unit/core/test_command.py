"""What `popen` gives, as far as that needs no container."""

from __future__ import annotations

import copy
import pickle
import signal

import pytest

from podkit.core.command import Output, check_signal
from podkit.errors import InvalidInput
from podkit.utils._checks import shown


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda output: pickle.loads(pickle.dumps(output))])
def test_a_piece_of_output_is_text_that_can_be_copied_and_pickled(again: object) -> None:
    output = again(Output("tëxt", "stderr"))  # type: ignore[operator]
    assert (output, output.stream, output + "!") == ("tëxt", "stderr", "tëxt!")


@pytest.mark.parametrize("number", [2, signal.SIGINT, "SIGINT", "INT", "sigint", "int", "SigInt"])
def test_a_signal_has_a_number_or_a_name(number: object) -> None:
    assert check_signal(number) == 2


def test_every_signal_of_linux_has_its_number() -> None:
    assert {name: check_signal(name) for name in signal.Signals.__members__} == dict(signal.Signals.__members__)


@pytest.mark.parametrize(
    "number", [0, 65, True, -1, "SIGNOPE", "SIG", "SIGSIGINT", "2", " INT", "", None, 2.0, 10**400]
)
def test_what_is_no_signal_is_refused_with_its_value_and_the_cure(number: object) -> None:
    with pytest.raises(
        InvalidInput, match=r"is no signal: pass a name such as 'SIGTERM'.* number from 1 to 64"
    ) as caught:
        check_signal(number)
    assert str(caught.value).startswith(shown(number))
