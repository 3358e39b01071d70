"""The tables of docs/scaling.md are those of the committed measurement."""

import importlib.util
import json

import pytest

from parsimony.published.pages import filled
from parsimony.runs import PROJECT

spec = importlib.util.spec_from_file_location("scaling", PROJECT / "docs" / "scaling.py")
scaling = importlib.util.module_from_spec(spec)
spec.loader.exec_module(scaling)


def test_the_document_holds_what_was_measured() -> None:
    found = json.loads(scaling.RESULTS.read_text())
    text = scaling.DOCUMENT.read_text()
    assert filled(text, scaling.measured(found), scaling.modelled(found), scaling.swept(found)) == text


def test_a_shared_machine_is_named_as_that() -> None:
    found = json.loads(scaling.RESULTS.read_text())
    assert "other work ran beside it (7.0 cores busy)" in scaling.measured({**found, "busy_cores_before": 7.0})
    assert "other work" not in scaling.measured({**found, "busy_cores_before": 0.1})


def test_a_ring_all_reduce() -> None:
    """Of four parts of 25 bytes: three rounds to add them up, three to hand them round."""
    assert scaling.all_reduce(100, 4, latency=1.0, bandwidth=25.0) == pytest.approx(6 * (1 + 1))
    assert scaling.all_reduce(100, 1, latency=1.0, bandwidth=25.0) == 0
