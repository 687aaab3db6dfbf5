"""Compaction to used codes: a round trip that changes no argument."""

import pytest
import torch

from tcvq_codebook.remap import code_map

COUNTS = torch.tensor([0, 3, 0, 1, 5])


def test_used_codes_are_numbered_in_their_order():
    codes = code_map(COUNTS)
    assert codes.used.tolist() == [1, 3, 4]
    assert codes.compact.tolist() == [-1, 0, -1, 1, 2]
    assert code_map(COUNTS, min_count=3).used.tolist() == [1, 4]


def test_compacting_and_back_gives_the_indices_and_changes_none_of_them():
    codes = code_map(COUNTS)
    indices = codes.used[torch.randint(3, (2, 4, 5))].to(torch.int32)
    before = indices.clone()
    compact = codes.to_compact(indices)
    assert compact.max() < 3
    assert torch.equal(codes.to_original(compact), indices.long())
    assert torch.equal(codes.to_compact(codes.to_original(compact)), compact)
    assert torch.equal(indices, before)


def test_a_code_that_was_left_out_is_an_error():
    with pytest.raises(ValueError, match=r"2 indices name codes outside the 3 used ones, such as 2;"):
        code_map(COUNTS).to_compact(torch.tensor([1, 2, 2, 4]))


def test_with_the_codebook_given_a_left_out_code_becomes_the_nearest_used_one():
    codebook = torch.tensor([0.0, 10.0, 11.0, 20.0, 2.0]).view(5, 1, 1).expand(5, 2, 3)
    codes = code_map(COUNTS, codebook=codebook)
    assert codes.to_compact(torch.arange(5)).tolist() == [2, 0, 0, 1, 2]
    assert codes.to_original(codes.to_compact(codes.used)).tolist() == codes.used.tolist()


def test_equal_entries_keep_their_own_numbers():
    codes = code_map(torch.ones(4, dtype=torch.int64), codebook=torch.zeros(4, 2, 3))
    assert codes.compact.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("bad", [-1, 5])
def test_numbers_outside_the_codebook_are_refused(bad):
    with pytest.raises(ValueError, match=r"but the codebook has codes 0 to 4"):
        code_map(COUNTS).to_compact(torch.tensor([1, bad]))
    with pytest.raises(ValueError, match=r"but the compact codebook has codes 0 to 2"):
        code_map(COUNTS).to_original(torch.tensor([0, bad]))


def test_an_empty_map_and_empty_indices():
    assert code_map(COUNTS).to_compact(torch.zeros(0, 3, dtype=torch.int64)).shape == (0, 3)
    with pytest.raises(ValueError, match=r"none of the 5 codes occurs 1 times"):
        code_map(torch.zeros(5, dtype=torch.int64))
