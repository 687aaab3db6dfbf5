import pytest
import torch

from tcvq_data import Sample
from tcvq_data.testing import check_image_source


class Good:
    classes: tuple[str, ...] = ("a", "b")
    labels = torch.tensor([-1, 0, 1])

    def __len__(self):
        return 3

    def __getitem__(self, index):
        if index >= 3:
            raise IndexError(index)
        return self.sample(index)

    def sample(self, index):
        return Sample(torch.zeros(1, 2, 2), torch.tensor(index - 1))


def with_sample(make):
    return type("Bad", (Good,), {"sample": lambda self, index: make(index)})()


class Batched(Good):
    def batch(self, index):
        return Sample(torch.ones(len(index), 1, 2, 2), self.labels[index])


def test_a_good_source_passes():
    check_image_source(Good())


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (type("Bad", (Good,), {"classes": ("a", "a")})(), "repeat"),
        (type("Bad", (Good,), {"classes": ("a",)})(), "label 1 with 1 classes"),
        (type("Bad", (Good,), {"__len__": lambda self: 0})(), "empty"),
        (type("Bad", (Good,), {"__getitem__": Good.sample})(), "IndexError"),
        (type("Bad", (Good,), {"labels": torch.zeros(2, dtype=torch.int64)})(), "labels are"),
        (type("Bad", (Good,), {"labels": torch.tensor([0, 0, 1])})(), "sample 0 has label -1, labels says 0"),
        (Batched(), "batch differs"),
        (with_sample(lambda i: Sample(torch.zeros(1, 2, 2 + i), torch.tensor(0))), "sample 0 has"),
        (with_sample(lambda i: Sample(torch.full((1, 2, 2), 1.5), torch.tensor(0))), "leaves"),
        (with_sample(lambda i: Sample(torch.full((1, 2, 2), torch.nan), torch.tensor(0))), "NaN"),
        (with_sample(lambda i: Sample(torch.zeros(1, 2, 2).double(), torch.tensor(0))), "float64"),
        (with_sample(lambda i: Sample(torch.zeros(1, 2, 2), torch.tensor([0]))), "not \\(\\)"),
        (with_sample(lambda i: Sample(torch.rand(1, 2, 2), torch.tensor(0))), "differs when read twice"),
    ],
)
def test_a_broken_source_is_told_what_is_wrong(source, match):
    with pytest.raises(AssertionError, match=match):
        check_image_source(source)
