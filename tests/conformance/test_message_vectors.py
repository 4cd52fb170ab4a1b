"""The golden vectors of payloads and frames: what they say is what we write, and what we read."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from meshagent.core.acts import PERFORMATIVE_OF
from meshagent.wire import codec
from meshagent.wire.frame import read_frame
from tests.conformance.messages import BODIES, PATH, RECORD, render

GOLDEN: dict[str, Any] = json.loads(PATH.read_text())


def test_the_vectors_are_what_this_implementation_writes() -> None:
    assert render() == PATH.read_text(), "run: python -m tests.conformance.messages --write (and say why in the log)"


@pytest.mark.parametrize("vector", GOLDEN["payloads"], ids=lambda vector: str(vector["name"]))
def test_every_payload_is_read_as_what_it_says(vector: dict[str, Any]) -> None:
    assert codec.decode(vector["type"], bytes.fromhex(vector["payload"])) == BODIES[vector["name"]]


@pytest.mark.parametrize("vector", GOLDEN["frames"], ids=lambda vector: str(vector["what"]))
def test_every_frame_is_read(vector: dict[str, Any]) -> None:
    frame = read_frame(bytes.fromhex(vector["frame"]))
    assert frame.ack == (0 if frame.hello else 41)


def test_there_is_a_vector_of_every_act_and_body() -> None:
    assert {type(body) for body in BODIES.values()} >= set(PERFORMATIVE_OF)
    assert {codec.TYPE_OF[type(body)] for body in BODIES.values()} == set(codec.TYPE_OF.values())


def test_the_vectors_set_every_optional_field() -> None:
    """So that an implementation which forgets one is found out."""
    for body in [*BODIES.values(), RECORD]:
        for field in dataclasses.fields(body):
            assert getattr(body, field.name) is not None, f"{type(body).__name__}.{field.name}"
