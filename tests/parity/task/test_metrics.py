"""Task metrics against scikit-learn, against scikit-image's numbers, and counted by hand."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import jaccard_score, top_k_accuracy_score

from gn_deploy.errors import InputError, UnavailableError
from gn_deploy.parity.task.classes import agreement, intersections_and_unions, mean_iou, top_k
from gn_deploy.parity.task.images import cosine, psnr, ssim, usual_range
from gn_deploy.parity.task.metric import METRICS, find_metric


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(6, 12), k=st.sampled_from([1, 5]))
def test_top_k_is_sklearns(seed: int, classes: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(40, classes)), rng.integers(0, classes, 40)
    wanted = top_k_accuracy_score(labels, logits, k=k, labels=np.arange(classes))
    assert top_k(k)(logits.astype(np.float32), labels).mean() == pytest.approx(wanted)


def test_top_1_in_every_spelling() -> None:
    logits, labels = (
        np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 1.0], [np.nan, 0.0], [np.inf, 0.0]]),
        np.array([0, 1, 1, 0, 0]),
    )
    wanted = [1, 1, 0, 0, 0]  # of equals argmax takes the first; NaN and infinity are no answer
    assert top_k(1)(logits, labels).tolist() == wanted
    assert top_k(1)(logits[..., None, None], labels.astype(np.float32)[:, None]).tolist() == wanted
    assert top_k(1)(logits, np.eye(2)[labels]).tolist() == wanted  # one-hot
    assert top_k(1)(np.array([0, 1, 0]), labels[:3]).tolist() == [1, 1, 0]  # classes instead of logits
    assert top_k(5)(logits[:3], np.array([0, 1, 7])).tolist() == [1, 1, 0]  # there is no class 7
    for bad, words in ((np.zeros((2, 3, 4)), "logits"), (np.zeros(2), "logits")):
        with pytest.raises(InputError, match=words):
            top_k(1)(bad, np.zeros(2, int))
    with pytest.raises(InputError, match="class numbers"):
        top_k(1)(logits[:2], np.array([0.5, 1.0]))


def test_agreement_and_certificates() -> None:
    reference = np.array([[2.0, 0.0], [0.0, 1.0], [1.0, 0.9], [3.0, 0.0]])
    actual = np.array([[2.1, 0.0], [0.6, 0.4], [1.0, 0.8], [np.nan, 0.0]], np.float32)
    same, certain = agreement(reference, actual)
    assert same.tolist() == [True, False, True, False]  # the flipped one and the NaN disagree
    assert certain.tolist() == [True, False, False, False]  # margins 2, 1, 0.1 against 2 x 0.1, 0.6, 0.1


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_what_is_certified_cannot_have_changed(seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.normal(size=(200, 5))
    same, certain = agreement(reference, reference + rng.uniform(-0.2, 0.2, reference.shape))
    assert same[certain].all()
    assert certain.any()


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32), classes=st.integers(2, 5))
def test_iou_is_sklearns(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(3, classes, 6, 5)), rng.integers(0, classes, (3, 6, 5))
    rows = intersections_and_unions(logits, labels)
    wanted = jaccard_score(labels.ravel(), logits.argmax(1).ravel(), average="macro")
    assert mean_iou(rows.reshape(3, -1).mean(0)) == pytest.approx(wanted)
    maps = intersections_and_unions(logits.argmax(1), labels[:, None].astype(np.float32))
    assert mean_iou(maps.reshape(3, -1).mean(0)) == pytest.approx(wanted)


def test_iou_by_hand() -> None:
    guess, truth = np.array([[[0, 0, 1, 1]]]), np.array([[[0, 1, 1, 255]]])
    rows = intersections_and_unions(guess, truth)  # the last pixel is not labelled
    assert rows[0].tolist() == [[1, 1], [2, 2]]
    assert mean_iou(rows.reshape(1, -1)[0]) == 0.5
    one_logit = np.where(guess == 1, 3.0, -3.0)[:, None]
    assert intersections_and_unions(one_logit, truth).tolist() == rows.tolist()
    broken = np.stack([1.0 - guess, guess], 1)
    broken[0, 0, 0, 0] = np.nan  # a pixel of no class is a pixel missed
    assert intersections_and_unions(broken, truth)[0].tolist() == [[0, 1], [2, 2]]
    with pytest.raises(InputError, match="labelled 2, the output has 2 classes"):
        intersections_and_unions(np.zeros((1, 2, 1, 4)), np.array([[[0, 1, 1, 2]]]))
    with pytest.raises(InputError, match="needed"):
        intersections_and_unions(np.zeros((1, 2, 1, 4)), np.zeros((1, 1, 5), int))


def images(shape: tuple[int, ...], noise: float) -> tuple[np.ndarray, np.ndarray]:
    """Three waves and the same with noise, in 0..1."""
    slope = np.indices(shape).sum(0)
    clean = np.stack([0.5 + 0.4 * np.sin(slope / (3 + k) + k) for k in range(3)])
    noise = noise * np.random.RandomState(7).standard_normal(clean.shape)  # the legacy stream never changes
    return clean, np.clip(clean + noise, 0, 1)


GOLDEN = [
    ((3, 16, 21), 0.01, [0.99822079165980, 0.99645136559255, 0.99424889137341],
     [40.330615684968, 39.860957320906, 40.015934250542]),
    ((3, 16, 21), 0.2, [0.63946731212474, 0.52488177298281, 0.43596863861628],
     [15.150042145640, 15.006152218920, 14.912925692161]),
    ((1, 11, 11), 0.2, [0.72828426190889, 0.68166645138912, 0.43281262936673],
     [14.665902080901, 15.598386665801, 14.996486358204]),
    ((1, 40, 24), 0.2, [0.61426281001614, 0.51983129129540, 0.40712054692064],
     [15.236839965639, 14.896942785134, 14.815526694572]),
]  # fmt: skip
"""scikit-image 0.26, per image: structural_similarity(data_range=1, gaussian_weights=True, sigma=1.5,
use_sample_covariance=False, channel_axis=0), which is Wang et al. 2004, and peak_signal_noise_ratio(data_range=1)."""


@pytest.mark.parametrize(("shape", "noise", "similar", "decibels"), GOLDEN)
def test_ssim_and_psnr_are_scikit_images(
    shape: tuple[int, ...], noise: float, similar: list[float], decibels: list[float]
) -> None:
    clean, noisy = images(shape, noise)
    np.testing.assert_allclose(ssim(noisy, clean, data_range=1.0), similar, rtol=1e-11)
    np.testing.assert_allclose(psnr(noisy, clean, data_range=1.0), decibels, rtol=1e-11)


def test_bytes() -> None:
    clean, noisy = (np.round(255 * a).astype(np.uint8) for a in images((3, 16, 21), 0.1))
    assert usual_range(clean) == 255
    assert ssim(noisy, clean, data_range=255)[0] == pytest.approx(0.8601344578178995)
    assert psnr(noisy, clean, data_range=255)[0] == pytest.approx(20.630099219077746)


def test_ranges_of_images() -> None:
    assert [usual_range(np.array(a)) for a in ([0.1, 0.9], [-0.3, 0.2], [-3.0, 4.0])] == [1.0, 2.0, 7.0]


def test_the_same_image_is_perfect_and_a_small_one_refused() -> None:
    clean, _ = images((2, 12, 13), 0.1)
    assert ssim(clean, clean, data_range=1.0) == pytest.approx(1.0)
    assert np.isinf(psnr(clean, clean, data_range=1.0)).all()
    with pytest.raises(InputError, match="at least 11"):
        ssim(clean[..., :10], clean[..., :10], data_range=1.0)
    with pytest.raises(InputError, match="must be equal"):
        psnr(clean, clean[..., :5], data_range=1.0)


def test_cosine_of_known_angles() -> None:
    got, wanted = np.array([[1.0, 0], [1, 1], [0, 0], [0, 0]]), np.array([[2.0, 0], [0, 3], [0, 0], [1, 0]])
    assert cosine(got, wanted) == pytest.approx([1, 0.5**0.5, 1, 0])


def test_metrics_by_name() -> None:
    assert find_metric("Accuracy") is find_metric("top-1") is METRICS["top-1"]
    with pytest.raises(InputError, match="unknown metric 'ssin'") as told:
        find_metric("ssin")
    assert "ssim" in told.value.hint


def test_a_function_of_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "metric_neighbour.py").write_text("FACTOR = 2\n")
    (tmp_path / "metric_factor.py").write_text("TWO = 2\n")
    (tmp_path / "mine.py").write_text(
        "from metric_neighbour import FACTOR\n"
        "def each(y, t): return FACTOR * abs(y - t).mean(1)\n"
        "def one(y, t): return float(FACTOR * abs(y - t).mean())\n"
        "def late(y, t): from metric_factor import TWO; return TWO * abs(y - t).mean(1)\n"
        "def odd(y, t): return y\n"
        "def fails(y, t): raise RuntimeError('no')\n"
        "number = 3\n"
    )
    (tmp_path / "needs.py").write_text("import package_that_is_not_there\n")
    (tmp_path / "broken.py").write_text("1 / 0\n")
    y, t = np.arange(6.0).reshape(3, 2), np.ones((3, 2))
    wanted = 2 * np.abs(y - t).mean(1)
    monkeypatch.chdir(tmp_path)
    for name in (str(tmp_path / "mine.py") + ":each", "mine:each", "mine:one", "mine:late"):  # one: of each
        np.testing.assert_allclose(find_metric(name).score(y, t), wanted)
    np.testing.assert_allclose(find_metric(lambda y, t: [1, 2, 3]).score({"a": y}, t), [1, 2, 3])
    for name, words in {"mine:odd": "shape", "mine:fails": "raised RuntimeError: no"}.items():
        with pytest.raises(InputError, match=words):
            find_metric(name).score(y, t)
    for name, words in {
        "mine:number": "no function 'number'", "absent.py:f": "no such file", "absent:f": "no module 'absent'",
        "broken.py:f": "ZeroDivisionError", "a b:f": "names no function", "mine:nothing": "has no 'nothing'",
    }.items():  # fmt: skip
        with pytest.raises(InputError, match=words):
            find_metric(name)
    with pytest.raises(UnavailableError, match="package_that_is_not_there"):
        find_metric("needs.py:f")
