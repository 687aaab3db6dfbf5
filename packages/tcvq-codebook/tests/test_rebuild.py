"""Codebooks of other sizes: entries, averages, use and options move together."""

import pytest
import torch

from tcvq_codebook import TemporalCodebook
from tcvq_codebook.rebuild import compact_codebook, resize_codebook
from tcvq_codebook.remap import code_map
from tcvq_codebook.resize import resize_entries

MODES = ["truncate", "repeat-last", "nearest", "linear"]


def trained(z, **options):
    codebook = TemporalCodebook(17, 8, 4, **options)
    codebook(z)
    return codebook


def same(a, b):
    return a.config == b.config and all(torch.equal(x, b.state_dict()[name]) for name, x in a.state_dict().items())


@pytest.mark.parametrize("options", [{}, {"update": "ema"}])
@pytest.mark.parametrize("mode", MODES)
def test_the_same_number_of_steps_gives_an_equal_copy(mode, options, z):
    codebook = trained(z, **options)
    copy = resize_codebook(codebook, 4, mode)
    assert same(copy, codebook)
    assert copy.codebook.data_ptr() != codebook.codebook.data_ptr()


@pytest.mark.parametrize(("mode", "n_steps"), [("truncate", 2), ("repeat-last", 6), ("nearest", 6), ("linear", 7)])
def test_moving_sums_stay_entries_times_counts(mode, n_steps, z):
    codebook = TemporalCodebook(17, 8, 4, update="ema", init="data")
    codebook.initialize(z)
    codebook.ema_counts.copy_(torch.arange(1, 18))
    codebook.ema_sums.copy_(codebook.codebook * codebook.ema_counts.view(-1, 1, 1))
    other = resize_codebook(codebook, n_steps, mode)
    assert torch.equal(other.codebook, resize_entries(codebook.codebook, n_steps, mode))
    torch.testing.assert_close(other.ema_sums, other.codebook * other.ema_counts.view(-1, 1, 1))
    assert torch.equal(other.ema_counts, codebook.ema_counts)


def test_four_steps_to_six_and_back_is_the_same_codebook(z):
    codebook = trained(z, update="ema", step_weights=(1.0, 2.0, 0.0, 0.5))
    longer = resize_codebook(codebook, 6, "repeat-last")
    assert longer.config.step_weights == (1.0, 2.0, 0.0, 0.5, 0.5, 0.5)
    assert longer(torch.randn(6, 2, 8, 3, 3)).z_q.shape == (6, 2, 8, 3, 3)
    assert same(resize_codebook(resize_codebook(codebook, 6, "repeat-last"), 4, "truncate"), codebook)


def test_a_truncated_codebook_holds_the_first_steps_of_each_entry(z, codebook):
    indices = codebook.encode(z)
    shorter = resize_codebook(codebook, 2, "truncate")
    assert torch.equal(shorter.lookup(indices), codebook.lookup(indices)[:2])


def test_dtype_mode_use_and_gradient_are_kept(z):
    codebook = trained(z).double().eval()
    codebook.codebook.requires_grad_(False)
    other = resize_codebook(codebook, 5, "linear")
    assert (other.codebook.dtype, other.training, other.codebook.requires_grad) == (torch.float64, False, False)
    assert torch.equal(other.counts, codebook.counts)
    assert other.initted


@pytest.mark.parametrize("options", [{}, {"update": "ema"}])
def test_a_compact_codebook_gives_the_same_entries_for_compact_indices(options, z):
    codebook = trained(z, **options).eval()
    few = z[:, :1, :, :, :2]
    indices = codebook.encode(few)
    codes = code_map(torch.bincount(indices.flatten(), minlength=17))
    compact = compact_codebook(codebook, codes)
    assert compact.n_embed == len(indices.unique()) < 17
    assert torch.equal(compact.encode(few), codes.to_compact(indices))
    assert torch.equal(compact.lookup(codes.to_compact(indices)), codebook.lookup(indices))
    assert torch.equal(compact.counts, codebook.counts[codes.used])
    if options:
        assert torch.equal(compact.ema_sums, codebook.ema_sums[codes.used])


def test_a_map_of_another_codebook_is_refused(codebook):
    with pytest.raises(ValueError, match=r"the map numbers 5 codes, but this codebook has 17"):
        compact_codebook(codebook, code_map(torch.ones(5, dtype=torch.int64)))
