"""Saving and loading: the same codebook comes back, another one is refused in words."""

import pytest
import torch

from tcvq_codebook import TemporalCodebook
from tcvq_codebook.container import CodebookFileError, read_container, write_container
from tcvq_codebook.saving import load_codebook, load_codebook_into, reference_entries, save_codebook

VARIANTS = [
    {},
    {"update": "ema", "decay": 0.9},
    {"similarity": "cosine", "norm": "step", "beta": 0.5, "legacy_beta": True, "init": "data"},
    {"step_weights": (1.0, 0.5, 0.0, 2.0)},
]


def trained(z, **options):
    codebook = TemporalCodebook(17, 8, 4, **options)
    codebook(z)
    codebook(z)
    return codebook


@pytest.mark.parametrize("options", VARIANTS)
def test_a_loaded_codebook_is_the_saved_one_and_goes_on_as_it_would(options, z, tmp_path):
    saved = trained(z, **options)
    save_codebook(tmp_path / "book", saved)
    loaded = load_codebook(tmp_path / "book")
    assert loaded.config == saved.config
    assert loaded.initted
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    assert torch.equal(loaded(z).z_q, saved(z).z_q)
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_loading_into_a_fresh_codebook_gives_entries_flag_and_counts(z, tmp_path):
    saved, fresh = trained(z), TemporalCodebook(17, 8, 4, beta=1.0)
    save_codebook(tmp_path / "book", saved)
    load_codebook_into(fresh, tmp_path / "book")
    assert torch.equal(fresh(z).z_q, saved(z).z_q)  # a training forward: the codes are not drawn again
    assert torch.equal(fresh.counts, saved.counts)
    assert fresh.config.beta == 1.0


def test_double_precision_survives(z, tmp_path):
    saved = trained(z).double()
    save_codebook(tmp_path / "book", saved)
    assert torch.equal(load_codebook(tmp_path / "book").codebook, saved.codebook)
    assert load_codebook(tmp_path / "book").codebook.dtype == torch.float64


def test_the_header_says_sizes_and_options(codebook, tmp_path):
    save_codebook(tmp_path / "book", codebook)
    contents = read_container(tmp_path / "book")
    assert contents.schema == "tcvq.codebook/1"
    config = contents.meta["config"]
    assert (config["n_embed"], config["n_steps"], config["embed_dim"]) == (17, 4, 8)
    assert (config["similarity"], config["norm"], config["update"]) == ("l2", "trajectory", "gradient")
    assert (config["beta"], config["legacy_beta"]) == (0.25, False)


@pytest.mark.parametrize("sizes", [(17, 8, 6), (16, 8, 4), (17, 16, 2)])
def test_a_codebook_of_another_shape_is_refused_with_both_shapes(sizes, codebook, tmp_path):
    save_codebook(tmp_path / "book", codebook)
    other = TemporalCodebook(*sizes)
    before = other.codebook.clone()
    k, d, t = sizes
    message = rf"\(K, T, D\) = \(17, 4, 8\), but this one has \(K, T, D\) = \({k}, {t}, {d}\)"
    with pytest.raises(CodebookFileError, match=message):
        load_codebook_into(other, tmp_path / "book")
    assert torch.equal(other.codebook, before)


def test_a_codebook_of_another_meaning_is_refused(codebook, tmp_path):
    save_codebook(tmp_path / "book", codebook)
    with pytest.raises(CodebookFileError, match=r"with update='gradient', but this one has update='ema'"):
        load_codebook_into(TemporalCodebook(17, 8, 4, update="ema"), tmp_path / "book")


def test_rows_of_the_released_code_are_a_view_in_time_major_order(tmp_path):
    rows = torch.randn(5, 4 * 3)
    state = {"quantize.embedding.weight": rows}
    entries = reference_entries(state, n_steps=4)
    assert entries.data_ptr() == rows.data_ptr()
    assert torch.equal(entries[2, 1], rows[2, 3:6])
    safetensors = pytest.importorskip("safetensors.torch", reason="writes a file as others do, if installed")
    (tmp_path / "released").write_bytes(safetensors.save(state))
    codebook = TemporalCodebook(5, 3, 4)
    load_codebook_into(codebook, tmp_path / "released")
    assert torch.equal(codebook.codebook, entries)
    assert codebook.initted
    with pytest.raises(
        CodebookFileError, match=r"\(K, T·D\) = \(5, 12\), but this codebook has \(K, T, D\) = \(5, 3, 3\)"
    ):
        load_codebook_into(TemporalCodebook(5, 3, 3), tmp_path / "released")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({}, r"no 'quantize.embedding.weight', but nothing"),
        ({"encoder.conv": torch.ones(1)}, r"but encoder.conv"),
        ({"quantize.embedding.weight": torch.ones(2, 10)}, r"\(2, 10\), which is not \(K, T·D\) with T = 4"),
    ],
)
def test_other_checkpoints_are_refused(state, message):
    with pytest.raises(ValueError, match=message):
        reference_entries(state, n_steps=4)


def test_files_that_hold_something_else_are_refused(codebook, tmp_path):
    path = tmp_path / "book"
    save_codebook(path, codebook)
    good = read_container(path)
    cases = [
        ("tcvq.codebook/2", good.meta, good.tensors, "holds tcvq.codebook/2; tcvq.codebook/1 is needed here"),
        ("tcvq.codebook/1", {}, good.tensors, "options that this version does not know"),
        ("tcvq.codebook/1", {"config": {**good.meta["config"], "new": 1}}, good.tensors, "does not know; upgrade it"),
        (
            "tcvq.codebook/1",
            {"config": {**good.meta["config"], "beta": -1.0}},
            good.tensors,
            "bad options: beta must be",
        ),
        (
            "tcvq.codebook/1",
            {"config": {**good.meta["config"], "n_steps": 10**12}},
            good.tensors,
            r"\(17, 4, 8\) as codebook of",
        ),
        ("tcvq.codebook/1", good.meta, {"codebook": torch.ones(17, 4, 8)}, "do not belong to a codebook of"),
        ("tcvq.codebook/1", good.meta, {}, "holds nothing as codebook"),
    ]
    for schema, meta, tensors, message in cases:
        write_container(path, tensors, schema=schema, meta=meta)
        with pytest.raises(CodebookFileError, match=message):
            load_codebook(path)
