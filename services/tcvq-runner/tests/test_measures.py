"""What a study compares with what: no codec with its own originals."""

import json
import math

import pytest
import torch

from tcvq_eval import EventClassifier
from tcvq_runner.studies.measures import _distances, _nans, _nulls
from tcvq_runner.studies.yardstick import Yardstick, saved

N = 12


@pytest.fixture
def ruler():
    """Two kinds of recordings that lie far apart: those compared with are dark, the others bright."""
    torch.manual_seed(0)
    first, second = torch.arange(2 * N).view(N, 2).unbind(1)
    x = torch.rand(2 * N, 2, 2, 8, 8) * 0.2 - 1
    x[second] += 1.6
    classifier = EventClassifier(2, 2)
    return Yardstick(
        space=classifier.name,
        features=classifier,
        classifier=classifier,
        x=x,
        labels=torch.arange(2 * N) % 2,
        first=first,
        second=second,
        real=classifier(saved(x[first])),
        floor=1.0,
        kernel_floor=1.0,
        peak=1.0,
    )


def test_a_perfect_codec_is_compared_with_other_data_than_its_originals(ruler):
    found = _distances(ruler, ruler.x[ruler.first], torch.full((N,), -1), ruler.x)
    assert found["codec"]["precision"][0] == 0.0
    assert found["codec"]["coverage"][0] == 0.0
    assert found["fd_codec"] > 0.0
    assert found["fd"] == pytest.approx(0.0, abs=1e-3)


def test_a_number_that_could_not_be_measured_is_kept_as_null():
    measured = {"rate": math.nan, "suite": {"a": (1.0, math.nan)}, "space": "x"}
    kept = json.loads(json.dumps(_nulls(measured), allow_nan=False))
    assert kept == {"rate": None, "suite": {"a": [1.0, None]}, "space": "x"}
    again = _nans(kept)
    assert math.isnan(again["rate"])
    assert math.isnan(again["suite"]["a"][1])
