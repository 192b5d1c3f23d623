"""What an error looks like, said of errors that were made on purpose."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gn_deploy.parity.appearance import appearance

RNG = np.random.default_rng(3)
RIGHT = RNG.standard_normal((2, 6, 8, 8)) + 0.1
BOUND = 1e-6


def changed(**parts: object) -> np.ndarray:
    wrong = RIGHT.copy()
    for index, value in parts.values():  # type: ignore[misc]
        wrong[index] = value
    return wrong


def said(wrong: np.ndarray) -> str:
    return appearance(wrong, RIGHT, BOUND)


MADE = {
    "": RIGHT,
    "shape 2x6x64 instead of 2x6x8x8": RIGHT.reshape(2, 6, 64),
    "zeros everywhere": np.zeros_like(RIGHT),
    "1.5 times what it should be": 1.5 * RIGHT,
    "moved by 0.25": RIGHT + 0.25,
    "1.5 times what it should be, moved by 0.25": 1.5 * RIGHT + 0.25,
    "the other sign": -RIGHT,
    "negative numbers are zero, as after a ReLU": np.maximum(RIGHT, 0),
    "turned along its last two axes": RIGHT.swapaxes(2, 3),
    "each channel scaled by its own amount": RIGHT * np.linspace(1.1, 2, 6).reshape(1, 6, 1, 1),
    "each channel moved by its own amount": RIGHT + np.linspace(1, 2, 6).reshape(1, 6, 1, 1),
    "each channel of each sample scaled by its own amount": RIGHT * np.linspace(1.1, 2, 12).reshape(2, 6, 1, 1),
    "channels moved by 1": np.roll(RIGHT, 1, axis=1),
    "channels in another order": RIGHT[:, [1, 0, 3, 2, 5, 4]],
    "rounded to float16": RIGHT.astype(np.float16),
    "1.01 times what it should be (only channel 3 of 6)": changed(a=(np.s_[:, 3], 1.01 * RIGHT[:, 3])),
    "zeros (only sample 1 of 2)": changed(a=(np.s_[1], 0)),
    "NaN in 1 of 768 numbers (only sample 0 of 2, channel 2 of 6)": changed(a=(np.s_[0, 2, 3, 3], np.nan)),
    "infinity in 64 of 768 numbers (only sample 0 of 2, channel 2 of 6)": changed(a=(np.s_[0, 2], np.inf)),
}


@pytest.mark.parametrize("words", MADE)
def test_errors_made_on_purpose_are_named(words: str) -> None:
    assert said(MADE[words]) == words


def test_before_an_activation() -> None:
    right = np.maximum(RIGHT, 0)
    assert appearance(RIGHT, right, BOUND) == "negative numbers are still there, as before a ReLU"


def test_steps() -> None:
    stepped = RIGHT.copy()
    stepped[0, 1, ::3] += 0.03 * RNG.integers(1, 3, stepped[0, 1, ::3].shape)
    assert said(stepped) == "off by up to 2 steps of 0.03 in 24 of 768 numbers (only sample 0 of 2, channel 1 of 6)"


def test_low_precision_is_everywhere_or_it_is_something_else() -> None:
    noise = RNG.standard_normal(RIGHT.shape) * 2.0**-10
    assert said(RIGHT + noise) == "errors of the size that float16 arithmetic makes"
    border = RIGHT.copy()
    border[:, :, -1] += 4 * noise[:, :, -1]
    assert said(border).startswith("off by 0.00")
    assert said(border).endswith("(only at the border)")


def test_places() -> None:
    border = RIGHT.copy()
    border[:, :, 0] += RNG.uniform(0.1, 1, border[:, :, 0].shape)
    assert said(border).endswith("(only at the border)")
    one = changed(a=((1, 2, 3, 4), 9.0))
    assert said(one).endswith("in 1 of 768 numbers (only sample 1 of 2, channel 2 of 6)")
    flat = RIGHT.reshape(-1).copy()
    flat[-3:] += 1
    assert appearance(flat, RIGHT.reshape(-1), BOUND).endswith("(only the last 3 numbers)")


def test_weights_have_their_channels_first() -> None:
    weight = RIGHT.copy()
    weight[1] *= 1.001
    assert appearance(weight, RIGHT, 1e-9, channel_axis=0) == "1.001 times what it should be (only channel 1 of 2)"


@given(st.floats(0.5, 2), st.floats(-1, 1), st.integers(0, 5))
def test_within_the_bound_nothing_is_said_and_a_line_is_found_in_any_channel(a: float, b: float, channel: int) -> None:
    assert said(RIGHT + RNG.uniform(-BOUND, BOUND, RIGHT.shape)) == ""
    if abs(a - 1) < 1e-3 or abs(b) < 1e-3:
        return
    wrong = RIGHT.copy()
    wrong[:, channel] = a * wrong[:, channel] + b
    told = said(wrong)
    assert told.endswith(f"(only channel {channel} of 6)")
    assert float(told.split()[0]) == pytest.approx(a, rel=1e-5)
    assert float(told.split("moved by ")[1].split()[0]) == pytest.approx(b, rel=1e-3)
