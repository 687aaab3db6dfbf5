from dataclasses import replace

import pytest
import torch

from tcvq_data import ArtifactError, Codes, read_artifact, read_codes, sha256_file, write_artifact, write_codes


def codes(n_embed=16, top=15):
    indices = torch.arange(24).reshape(2, 3, 4) % n_embed
    indices[0, 0, 0] = top
    return Codes(
        indices=indices,
        labels=torch.tensor([1, -1]),
        n_embed=n_embed,
        classes=("cat", "dog"),
        vqvae_sha256="ab" * 32,
        dataset="fashion-mini",
        split="train",
    )


def same(a, b):
    plain = {"indices": torch.zeros(0, 0, 0, dtype=torch.int64), "labels": torch.zeros(0, dtype=torch.int64)}
    tensors = torch.equal(a.indices, b.indices) and torch.equal(a.labels, b.labels)
    return tensors and repr(replace(a, **plain)) == repr(replace(b, **plain))


@pytest.mark.parametrize(("n_embed", "bytes_each"), [(16, 2), (2**16, 2), (2**16 + 1, 4)])
def test_codes_come_back_as_they_were_and_are_stored_compactly(tmp_path, n_embed, bytes_each):
    before = codes(n_embed, top=n_embed - 1)
    written = write_codes(tmp_path / "c", before)
    loaded = read_codes(tmp_path / "c")
    assert written.sha256 == loaded.sha256 == sha256_file(tmp_path / "c")
    assert same(replace(loaded, sha256=""), before)
    assert loaded.indices.dtype == loaded.labels.dtype == torch.int64
    assert read_artifact(tmp_path / "c", schema="tcvq.codes/1").tensors["indices"].element_size() == bytes_each


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_embed": 15}, r"index 0\.\.15 outside 0\.\.14"),
        ({"classes": ("cat",)}, r"label -1\.\.1 outside -1\.\.0"),
        ({"indices": -torch.ones(2, 3, 4, dtype=torch.int64)}, r"index -1\.\.-1 outside 0\.\.15"),
    ],
)
def test_codes_that_do_not_fit_together_are_not_written(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        write_codes(tmp_path / "c", replace(codes(), **change))
    assert list(tmp_path.iterdir()) == []


def test_codes_without_a_label_for_each_grid_are_not_written(tmp_path):
    bad = codes()
    object.__setattr__(bad, "labels", torch.tensor([0]))  # what a caller without run-time shape checks can build
    with pytest.raises(ValueError, match=r"shapes \(2, 3, 4\) and \(1,\)"):
        write_codes(tmp_path / "c", bad)


def parts(path):
    write_codes(path, codes())
    artifact = read_artifact(path, schema="tcvq.codes/1")
    return dict(artifact.tensors), dict(artifact.meta)


def test_an_index_beyond_the_codebook_is_refused_on_reading(tmp_path):
    tensors, meta = parts(tmp_path / "c")
    write_artifact(tmp_path / "c", tensors, schema="tcvq.codes/1", meta=meta | {"n_embed": 15})
    with pytest.raises(ArtifactError, match=r"c: index 0\.\.15 outside 0\.\.14; encode again"):
        read_codes(tmp_path / "c")


@pytest.mark.parametrize("damage", ["vqvae_sha256", "n_embed", "indices", "float", "flat", "labels", "fewer labels"])
def test_a_codes_file_with_wrong_fields_is_refused(tmp_path, damage):
    tensors, meta = parts(tmp_path / "c")
    if damage == "float":
        tensors["indices"] = tensors["indices"].float()
    elif damage == "flat":
        tensors["indices"] = tensors["indices"].flatten()
    elif damage == "fewer labels":
        tensors["labels"] = tensors["labels"][:1]
    else:
        (tensors if damage in tensors else meta).pop(damage)
    write_artifact(tmp_path / "c", tensors, schema="tcvq.codes/1", meta=meta)
    with pytest.raises(ArtifactError, match="missing, mistyped or misshapen fields"):
        read_codes(tmp_path / "c")


def test_another_artifact_is_not_taken_for_codes(tmp_path):
    write_artifact(tmp_path / "v", {}, schema="tcvq.vqvae/1")
    with pytest.raises(ArtifactError, match=r"holds tcvq\.vqvae/1, but tcvq\.codes/1 is needed"):
        read_codes(tmp_path / "v")
