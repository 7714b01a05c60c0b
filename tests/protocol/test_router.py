"""The router model: its features are scikit-learn's, and no file is believed that is not whole."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("mmh3", reason="needs the router extra")
pytest.importorskip("sklearn", reason="needs the train extra")

from safetensors.numpy import save_file
from sklearn.feature_extraction.text import HashingVectorizer

from proxy.protocol import router
from proxy.protocol.calibration import Calibration, Step
from proxy.protocol.openai import Message, Part
from proxy.protocol.router import FEATURES, RouterError, RouterModel, features, grams, read

MEASURED = Calibration(
    reference="tools",
    dataset_fingerprint="f",
    steps=[Step(floor=0.9, served=500, wrong=5, upper=0.02)],
)
HOTELS = [Message(role="user", content="Find me a hotel in Springfield, please.")]


@given(st.text())
def test_features_are_those_of_the_trainer_s_library(text: str):
    hashing = HashingVectorizer(analyzer=grams, n_features=FEATURES)
    expected = hashing.transform([text]).toarray()[0]

    indices, values = features(text)

    said = np.zeros(FEATURES, np.float32)
    said[indices] = values
    assert np.allclose(said, expected, atol=1e-6)


def test_version_1_looks_at_three_to_five_characters_of_a_word():
    assert router.VERSION == "1"
    assert list(grams("A Bus!")) == [" a ", " bu", "bus", "us ", " bus", "bus ", " bus "]


def model() -> RouterModel:
    """Knows hotels by their name, and nothing else."""
    weights = np.zeros((FEATURES, 3), np.float32)
    indices, values = features("hotel")
    weights[indices, 1] = 10 * values
    return RouterModel(["api", "bookings", "chat"], weights, np.zeros(3, np.float32), MEASURED)


def test_likeliest_of_the_domains_in_question_is_predicted():
    domain, probability = model().predict(HOTELS, ["bookings", "api"])
    _, other = model().predict(HOTELS, ["chat"])

    assert domain == "bookings"
    assert probability > 0.9
    assert probability + 2 * other == pytest.approx(1)


@pytest.mark.parametrize(
    ("messages", "among"),
    [
        ([Message(role="user", content="?!")], ["bookings"]),
        ([Message(role="system", content="hotel")], ["bookings"]),
        (HOTELS, ["unheard of"]),
        (HOTELS, []),
    ],
)
def test_nothing_is_predicted_where_there_is_nothing_to_go_by(messages, among):
    assert model().predict(messages, among) is None


def test_question_is_the_last_thing_that_the_user_said():
    parts = [Part("text", "a "), Part("image_url"), Part("text", "hotel")]
    messages = [
        Message(role="user", content="bus"),
        Message(role="user", content=parts),
        Message(role="assistant", content="film"),
    ]

    assert router.question(messages) == "a hotel"


def test_end_of_a_long_question_is_not_read():
    text = "hotel " * 1000

    assert len(router.words(text)) == 1 + router.MAX_CHARACTERS // len("hotel ")


def test_model_is_the_same_after_writing_and_reading(tmp_path: Path):
    path = tmp_path / "router.safetensors"
    model().write(path)

    again = read(path)

    assert again.domains == model().domains
    assert again.calibration == MEASURED
    assert again.predict(HOTELS, again.domains) == model().predict(HOTELS, again.domains)


WEIGHTS = np.zeros((FEATURES, 2), np.float32)
BIAS = np.zeros(2, np.float32)
METADATA = {
    "headrace_router": "1",
    "domains": '["a","b"]',
    "calibration": msgspec.json.encode(MEASURED).decode(),
}
BROKEN = {
    "of another version": ({"weights": WEIGHTS, "bias": BIAS}, METADATA | {"headrace_router": "2"}),
    "with one domain too many": (
        {"weights": WEIGHTS, "bias": BIAS},
        METADATA | {"domains": '["a","b","c"]'},
    ),
    "with one domain": (
        {"weights": WEIGHTS[:, :1], "bias": BIAS[:1]},
        METADATA | {"domains": '["a"]'},
    ),
    "without bias": ({"weights": WEIGHTS}, METADATA),
    "without calibration": (
        {"weights": WEIGHTS, "bias": BIAS},
        {"headrace_router": "1", "domains": '["a","b"]'},
    ),
    "of infinite weight": ({"weights": WEIGHTS + np.inf, "bias": BIAS}, METADATA),
    "of whole numbers": ({"weights": WEIGHTS.astype(np.int32), "bias": BIAS}, METADATA),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_model_is_refused_with_its_file(name: str, tmp_path: Path):
    path = tmp_path / "router.safetensors"
    tensors, metadata = BROKEN[name]
    save_file(tensors, path, metadata)

    with pytest.raises(RouterError, match=str(path)):
        read(path)


@pytest.mark.parametrize("content", [None, b"", b"\xff" * 100, b"\x10" + b"\0" * 7 + b"{" * 16])
def test_file_that_is_no_model_is_refused(content: bytes | None, tmp_path: Path):
    path = tmp_path / "router.safetensors"
    if content is not None:
        path.write_bytes(content)

    with pytest.raises(RouterError, match="headrace-trainer router train"):
        read(path)
