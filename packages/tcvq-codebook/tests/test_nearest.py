"""The search is exact, bounded in memory, free of gradient and independent of chunking and precision settings."""

import json
from itertools import accumulate

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tcvq_codebook import nearest
from tcvq_codebook.nearest import chunk_sizes

MIB = 2**20


def brute_force(z, codes):
    return torch.stack([(row - codes.double()).square().sum(1).argmin() for row in z.double()])


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 12),
    k=st.integers(1, 9),
    width=st.integers(1, 7),
    seed=st.integers(0, 2**31),
    offset=st.sampled_from([0.0, 1.0, 1000.0]),
)
def test_nearest_really_is_nearest(n, k, width, seed, offset):
    draw = torch.Generator().manual_seed(seed)
    z = torch.randn(n, width, generator=draw) + offset
    codes = torch.randn(k, width, generator=draw) + offset
    distance = (z.double()[:, None] - codes.double()).square().sum(2)
    chosen = distance.gather(1, nearest(z, codes)[:, None]).squeeze(1)
    torch.testing.assert_close(chosen, distance.min(1).values, rtol=1e-5, atol=1e-5)


def test_a_common_offset_of_a_thousand_spreads_changes_no_index():
    z, codes = torch.randn(256, 64), torch.randn(128, 64)
    shifted_z, shifted_codes = z + 1000, codes + 1000
    assert torch.equal(nearest(shifted_z, shifted_codes), brute_force(shifted_z, shifted_codes))


@pytest.mark.parametrize("max_bytes", [1, 200, 1000, 64 * MIB])
def test_ties_give_the_lowest_index(max_bytes):
    east, north = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])
    codes = torch.stack([east, -east, east, -east, north, north, -north, -north])  # mean exactly zero
    z = torch.stack([2 * east, 3 * north, 0 * east, -east, -5 * north])
    assert nearest(z, codes, max_bytes=max_bytes).tolist() == [0, 4, 0, 1, 6]


def test_chunk_size_changes_no_index_on_dyadic_data():
    half = torch.randint(-8, 9, (20, 16)) / 4
    codes = torch.cat([half, -half])  # mean exactly zero: all scores are exact
    z = torch.randint(-16, 17, (101, 16)) / 8
    whole = nearest(z, codes)
    for max_bytes in (1, 300, 1024, 4096, 20000):
        assert torch.equal(nearest(z, codes, max_bytes=max_bytes), whole)


def test_no_rows_give_no_indices():
    found = nearest(torch.empty(0, 4), torch.randn(3, 4))
    assert found.shape == (0,)
    assert found.dtype == torch.int64


def test_indices_carry_no_gradient():
    z, codes = torch.randn(5, 4, requires_grad=True), torch.randn(3, 4, requires_grad=True)
    assert nearest(z, codes).grad_fn is None


def test_autocast_and_reduced_matmul_precision_change_no_index():
    centre = torch.randn(1, 64)
    codes = centre + 1e-2 * torch.randn(64, 64)  # clustered codes: a bfloat16 search confuses them
    z = centre + 1e-2 * torch.randn(512, 64)
    expected = nearest(z, codes)
    assert torch.equal(expected, brute_force(z, codes))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert not torch.equal((0.5 * codes.square().sum(1) - z @ codes.t()).argmin(1), expected)
            assert torch.equal(nearest(z, codes), expected)
        assert torch.get_float32_matmul_precision() == "medium"
    finally:
        torch.set_float32_matmul_precision(before)


def test_the_product_runs_with_tf32_off_and_the_setting_comes_back(monkeypatch):
    def precision():
        matmul = torch.backends.cuda.matmul
        return matmul.fp32_precision if hasattr(matmul, "fp32_precision") else torch.get_float32_matmul_precision()

    seen, addmm = [], torch.addmm
    monkeypatch.setattr(torch, "addmm", lambda *args, **kwargs: seen.append(precision()) or addmm(*args, **kwargs))
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("high")
        allowed = precision()
        nearest(torch.randn(5, 4), torch.randn(3, 4))
        assert seen in (["ieee"], ["highest"])  # the names before and after torch 2.9
        assert precision() == allowed != seen[0]
    finally:
        torch.set_float32_matmul_precision(before)


def test_bfloat16_vectors_are_searched_in_float32():
    z, codes = torch.randn(64, 16).bfloat16(), torch.randn(32, 16)
    assert torch.equal(nearest(z, codes), brute_force(z, codes))


def test_float64_vectors_are_searched_in_float64():
    codes = torch.tensor([[0.0], [1.0]], dtype=torch.float64)
    z = torch.tensor([[0.5 + 1e-12], [0.5 - 1e-12]], dtype=torch.float64)
    assert nearest(z, codes).tolist() == [1, 0]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("n", "k", "width"), [(4096, 256, 128), (64, 4096, 512)])
def test_peak_extra_memory_stays_below_the_bound(n, k, width, masked, tmp_path):
    z, codes, bound = torch.randn(n, width), torch.randn(k, width), MIB
    mask = torch.rand(n, 4) < 0.5 if masked else None
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        nearest(z, codes, mask=mask, max_bytes=bound)
    profile.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    changes = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    peak = max(accumulate(size for _, size in changes))
    vectors = 8 * 8 * (n + k)  # a few vectors of N or K numbers
    assert bound / 4 < peak <= bound + vectors


@settings(max_examples=50, deadline=None)
@given(k=st.integers(1, 20000), width=st.integers(1, 4000), itemsize=st.sampled_from([4, 8]), mib=st.integers(1, 256))
def test_a_chunk_fits_its_byte_bound(k, width, itemsize, mib):
    rows, codes = chunk_sizes(k, width, itemsize, mib * MIB)
    assert itemsize * (2 * codes * width + rows * (codes + width)) <= mib * MIB
    assert codes == k or codes < 64 or codes % 64 == 0
    assert rows >= 1
    assert 1 <= codes <= k


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(1, 9), k=st.integers(1, 9), t=st.integers(1, 4), seed=st.integers(0, 2**31), chunk=st.integers(1, 900)
)
def test_masked_and_weighted_steps_count_as_they_should(n, k, t, seed, chunk):
    draw = torch.Generator().manual_seed(seed)
    z, codes = torch.randn(n, t, 3, generator=draw) + 5, torch.randn(k, t, 3, generator=draw) + 5
    mask, weights = torch.rand(n, t, generator=draw) < 0.6, torch.rand(t, generator=draw)
    squared = (z.double()[:, None] - codes.double()).square().sum(3) * weights * mask[:, None]
    for found, distance in [
        (nearest(z.flatten(1), codes.flatten(1), mask=mask, step_weights=weights, max_bytes=chunk), squared.sum(2)),
        (nearest(z.flatten(1), codes.flatten(1), step_weights=weights, max_bytes=chunk), None),
    ]:
        full = ((z.double()[:, None] - codes.double()).square().sum(3) * weights).sum(2)
        expected = full if distance is None else distance
        chosen = expected.gather(1, found[:, None]).squeeze(1)
        torch.testing.assert_close(chosen, expected.min(1).values, rtol=1e-5, atol=1e-5)


def test_a_row_without_a_valid_step_has_index_zero():
    mask = torch.tensor([[False, False], [True, False]])
    assert nearest(torch.ones(2, 2), torch.tensor([[5.0, 5.0], [1.0, 9.0]]), mask=mask).tolist() == [0, 1]


def test_steps_that_do_not_divide_the_width_are_an_error():
    with pytest.raises(ValueError, match=r"width 4 .* 3 steps"):
        nearest(torch.ones(2, 4), torch.ones(2, 4), step_weights=torch.ones(3))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_search_for_what_is_not_finite_is_an_error(value):
    with pytest.raises(ValueError, match=r"1 of 3 sites .* NaN or inf"):
        nearest(torch.tensor([[1.0], [value], [2.0]]), torch.ones(2, 1))
