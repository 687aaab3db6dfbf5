import json
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
import torch

from tcvq_data import ArtifactError, Codes, read_codes, write_artifact, write_codes
from tcvq_data.codes import SHARD_ROWS, CodesWriter, finish_codes
from tcvq_data.codes.manifest import read_manifest
from tcvq_data.codes.shards import _read_shard

COMMON = {
    "n_embed": 16,
    "classes": ("cat", "dog"),
    "vqvae_sha256": "ab" * 32,
    "dataset": "fashion-mini",
    "split": "train",
    "n_steps": 4,
}


def codes(n_embed=16, top=15):
    indices = torch.arange(24).reshape(2, 3, 4) % n_embed
    indices[0, 0, 0] = top
    return Codes(indices=indices, labels=torch.tensor([1, -1]), **COMMON | {"n_embed": n_embed})


def many(n):
    rng = torch.Generator().manual_seed(n)
    indices, labels = torch.randint(16, (n, 2, 3), generator=rng), torch.randint(-1, 2, (n,), generator=rng)
    return Codes(indices=indices, labels=labels, **COMMON)


def append(writer, codes, sizes):
    with writer:
        for indices, labels in zip(codes.indices.split(sizes), codes.labels.split(sizes), strict=True):
            writer.append(indices, labels)


def same(a, b):
    plain = {"indices": torch.zeros(0, 0, 0, dtype=torch.int64), "labels": torch.zeros(0, dtype=torch.int64)}
    tensors = torch.equal(a.indices.long(), b.indices.long()) and torch.equal(a.labels, b.labels)
    return tensors and repr(replace(a, **plain)) == repr(replace(b, **plain))


def contents(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def written(tmp_path):
    write_codes(tmp_path / "c", codes())
    return tmp_path / "c"


def edit(folder, **changes):
    tree = json.loads((folder / "manifest.json").read_text("utf-8"))
    (folder / "manifest.json").write_text(json.dumps(tree | changes), "utf-8")
    return tree


def edit_shard(folder, **changes):
    """Change an entry of the only shard."""
    shard = edit(folder)["shards"][0]
    edit(folder, shards=[shard | changes])


def open_shard(folder):
    return pa.ipc.open_stream(pa.memory_map(str(folder / "shard-00000-00000.arrow"))).read_all()


@pytest.mark.parametrize(("n_embed", "kind"), [(16, "uint16"), (2**16, "uint16"), (2**16 + 1, "int32")])
def test_codes_come_back_as_they_were_and_are_stored_compactly(tmp_path, n_embed, kind):
    before = codes(n_embed, top=n_embed - 1)
    written = write_codes(tmp_path / "c", before)
    loaded = read_codes(tmp_path / "c")
    assert written.sha256 == loaded.sha256
    assert len(loaded.sha256) == 64
    assert same(replace(loaded, sha256=""), before)
    assert (loaded.indices.dtype, loaded.labels.dtype) == (torch.int32, torch.int64)
    assert [str(column.type) for column in open_shard(tmp_path / "c").columns] == [
        f"fixed_size_list<item: {kind}>[12]",
        "int16",
        "uint32",
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["c"]


def test_the_same_codes_give_the_same_bytes(tmp_path):
    for name in "ab":
        write_codes(tmp_path / name, many(50))
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_another_label_index_order_or_fact_gives_another_hash(tmp_path):
    base = codes()
    others = [
        base,
        replace(base, labels=base.labels.flip(0)),
        replace(base, indices=base.indices.flip(0)),
        replace(base, indices=base.indices.reshape(2, 4, 3)),
        replace(base, n_embed=17),
        replace(base, n_steps=None),
        replace(base, split="test"),
    ]
    assert len({write_codes(tmp_path / "c", other).sha256 for other in others}) == len(others)


def test_plain_datasets_reads_the_folder_and_each_shard_memory_mapped(tmp_path):
    datasets = pytest.importorskip("datasets")
    before = many(SHARD_ROWS + 5)
    write_codes(tmp_path / "c", before)
    whole = datasets.load_from_disk(str(tmp_path / "c"))
    assert whole.features["codes"] == datasets.List(datasets.Value("uint16"), length=6)
    assert np.array_equal(whole.with_format("numpy")[:]["codes"], before.indices.flatten(1).numpy())
    assert whole[SHARD_ROWS + 2]["label"] == int(before.labels[SHARD_ROWS + 2])
    assert whole["row"][:] == list(range(SHARD_ROWS + 5))
    files = [str(tmp_path / "c" / f"shard-00000-0000{k}.arrow") for k in (0, 1)]
    assert [entry["filename"] for entry in whole.cache_files] == files
    assert [len(datasets.Dataset.from_file(file)) for file in files] == [SHARD_ROWS, 5]


def test_reading_maps_the_shards_instead_of_loading_them(tmp_path):
    write_codes(tmp_path / "c", many(SHARD_ROWS))
    manifest = read_manifest(tmp_path / "c")
    before = pa.total_allocated_bytes()
    rows = _read_shard(tmp_path / "c" / "shard-00000-00000.arrow", manifest.shards[0], manifest.header)
    assert pa.total_allocated_bytes() == before
    assert not any(array.flags.owndata or array.flags.writeable for array in rows)
    assert np.array_equal(rows.codes, many(SHARD_ROWS).indices.flatten(1).numpy())


def test_appending_in_odd_pieces_equals_one_write(tmp_path):
    before = many(2 * SHARD_ROWS + 7)
    whole = write_codes(tmp_path / "whole", before)
    pieces = [1, 0, 6999, SHARD_ROWS + 3001, 6]
    append(CodesWriter(tmp_path / "pieces", grid=(2, 3), **COMMON), before, pieces)
    assert same(finish_codes(tmp_path / "pieces"), whole)
    assert contents(tmp_path / "pieces") == contents(tmp_path / "whole")


@pytest.mark.parametrize(("n", "world_size"), [(25_001, 2), (10, 3), (1, 2), (0, 2)])
def test_ranks_that_hold_every_other_sample_equal_one_rank(tmp_path, n, world_size):
    before = many(n)
    for rank in reversed(range(world_size)):
        mine = slice(rank, None, world_size)
        writer = CodesWriter(tmp_path / "c", grid=(2, 3), rank=rank, world_size=world_size, **COMMON)
        append(writer, replace(before, indices=before.indices[mine], labels=before.labels[mine]), 777)
    finished = finish_codes(tmp_path / "c")
    assert same(finished, write_codes(tmp_path / "one", before))
    assert same(finished, read_codes(tmp_path / "c"))


def test_nothing_is_finished_before_all_ranks_are(tmp_path):
    part = many(5)
    append(CodesWriter(tmp_path / "c", grid=(2, 3), rank=0, world_size=2, **COMMON), part, 5)
    with pytest.raises(ArtifactError, match="rank 1 has not written all its codes"):
        finish_codes(tmp_path / "c")
    append(CodesWriter(tmp_path / "c", grid=(2, 3), rank=1, world_size=2, **COMMON | {"n_embed": 17}), part, 5)
    with pytest.raises(ArtifactError, match="rank 1 wrote other codes than rank 0"):
        finish_codes(tmp_path / "c")
    append(CodesWriter(tmp_path / "c", grid=(2, 3), rank=1, world_size=2, **COMMON), many(3), 5)
    with pytest.raises(ArtifactError, match=r"its 8 rows are not the rows 0\.\.7 of the dataset"):
        finish_codes(tmp_path / "c")
    assert not (tmp_path / "c").exists()
    append(CodesWriter(tmp_path / "c", grid=(2, 3), rank=1, world_size=2, **COMMON), part, 5)
    assert len(finish_codes(tmp_path / "c").labels) == 10


def test_no_sample_at_all_is_a_set_of_codes_too(tmp_path):
    datasets = pytest.importorskip("datasets")
    write_codes(tmp_path / "c", many(0))
    assert read_codes(tmp_path / "c").indices.shape == (0, 2, 3)
    assert len(datasets.load_from_disk(str(tmp_path / "c"))) == 0


KILLED = """
import os, signal, sys, torch
from tcvq_data import read_codes
from tcvq_data.codes import CodesWriter
read_codes(sys.argv[1])
with CodesWriter(sys.argv[1], n_embed=16, grid=(2, 3), classes=(), vqvae_sha256="", dataset="d", split="s") as writer:
    writer.append(torch.zeros(10_001, 2, 3, dtype=torch.int64), -torch.ones(10_001, dtype=torch.int64))
    print("datasets" in sys.modules, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    path = tmp_path_factory.mktemp("killed") / "c"
    write_codes(path, codes())
    command = [sys.executable, "-c", KILLED, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    return path, done.stdout.strip()


def test_reading_and_writing_import_no_datasets(killed):
    assert killed[1] == "False"


def test_a_killed_writer_leaves_the_old_codes_and_the_next_one_does_not_see_its_rows(killed):
    path = killed[0]
    partial = path.with_name(".partial-c")
    assert set(contents(partial)) == {"shard-00000-00000.arrow"}
    assert same(replace(read_codes(path), sha256=""), codes())
    with pytest.raises(ArtifactError, match=r"\.partial-c: has no manifest\.json, so it holds no codes, or not all"):
        read_codes(partial)
    with pytest.raises(ArtifactError, match="rank 0 has not written all its codes"):
        finish_codes(path)
    second = write_codes(path, many(3))
    assert same(read_codes(path), second)
    assert [file.name for file in path.parent.iterdir()] == ["c"]


def test_rows_of_an_earlier_run_on_more_ranks_are_left_out(tmp_path):
    append(CodesWriter(tmp_path / "c", grid=(2, 3), rank=1, world_size=2, **COMMON), many(5), 5)
    written = write_codes(tmp_path / "c", many(3))
    assert same(read_codes(tmp_path / "c"), written)
    assert "shard-00001-00000.arrow" not in contents(tmp_path / "c")


def test_an_error_inside_the_block_leaves_nothing_and_keeps_the_old_codes(tmp_path):
    first = write_codes(tmp_path / "c", codes())
    writer, rows = CodesWriter(tmp_path / "c", grid=(2, 3), **COMMON), many(SHARD_ROWS + 1)

    def interrupted():
        with writer:
            writer.append(rows.indices, rows.labels)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert [path.name for path in tmp_path.iterdir()] == ["c"]
    assert same(read_codes(tmp_path / "c"), first)
    with pytest.raises(RuntimeError, match="inside the `with` block"):
        writer.append(many(1).indices, many(1).labels)


def test_new_codes_replace_the_old_ones_whole(tmp_path):
    write_codes(tmp_path / "c", many(SHARD_ROWS + 1))
    last = write_codes(tmp_path / "c", codes())
    assert same(read_codes(tmp_path / "c"), last)
    assert sorted(contents(tmp_path / "c")) == [
        "dataset_info.json",
        "manifest.json",
        "shard-00000-00000.arrow",
        "state.json",
    ]


def test_a_file_or_a_folder_of_something_else_is_never_replaced(tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("mine")
    with pytest.raises(FileExistsError, match="the path is a file"):
        write_codes(tmp_path / "file", codes())
    with pytest.raises(FileExistsError, match=r"it holds cat\.jpg"):
        write_codes(tmp_path / "photos", codes())
    with pytest.raises(FileNotFoundError, match="its folder does not exist"):
        write_codes(tmp_path / "none" / "c", codes())
    assert {path.name for path in tmp_path.iterdir()} == {"file", "photos"}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_embed": 15}, r"codes of fashion-mini/train: index 0\.\.15 outside 0\.\.14"),
        ({"classes": ("cat",)}, r"label -1\.\.1 outside -1\.\.0"),
        ({"indices": -torch.ones(2, 3, 4, dtype=torch.int64)}, r"index -1\.\.-1 outside 0\.\.15"),
        ({"indices": torch.full((2, 3, 4), 2**16)}, r"index 65536\.\.65536 outside 0\.\.15"),
        ({"n_embed": 0}, r"n_embed=0 must be"),
        ({"n_steps": 0}, r"n_steps=0 positive"),
    ],
)
def test_codes_that_do_not_fit_together_are_not_written(tmp_path, change, match):
    with pytest.raises(ValueError, match=match):
        write_codes(tmp_path / "c", replace(codes(), **change))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("field", "value", "match"),
    [
        ("labels", torch.tensor([0]), r"shapes \(2, 3, 4\) and \(1,\)"),
        ("indices", torch.zeros(2, 12, dtype=torch.int64), r"shapes \(2, 12\) and \(2,\)"),
        ("indices", torch.zeros(2, 3, 4), r"index of type torch\.float32"),
    ],
)
def test_misshapen_codes_are_not_written(tmp_path, field, value, match):
    bad = codes()
    object.__setattr__(bad, field, value)  # what a caller without run-time shape checks can build
    with pytest.raises(ValueError, match=match):
        write_codes(tmp_path / "c", bad)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_of_another_size_is_not_appended(tmp_path):
    with (
        pytest.raises(ValueError, match=r"shapes \(2, 3, 4\) and \(2,\) are not \(N, 2, 3\) and \(N,\)"),
        CodesWriter(tmp_path / "c", grid=(2, 3), **COMMON) as writer,
    ):
        writer.append(codes().indices, codes().labels)
    assert list(tmp_path.iterdir()) == []


def test_a_rank_beyond_the_number_of_ranks_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"rank=2 must be one of 0\.\.1"):
        CodesWriter(tmp_path / "c", grid=(2, 3), rank=2, world_size=2, **COMMON)


@pytest.mark.parametrize("damage", ["bit", "half", "empty", "gone"])
def test_a_damaged_shard_is_named(written, damage):
    shard = written / "shard-00000-00000.arrow"
    data = bytearray(shard.read_bytes())
    data[-100] ^= 1
    if damage == "gone":
        shard.unlink()
    else:
        shard.write_bytes({"bit": bytes(data), "half": bytes(data[: len(data) // 2]), "empty": b""}[damage])
    match = "no such file" if damage == "gone" else "damaged, its content does not match its checksum"
    with pytest.raises(ArtifactError, match=rf"shard-00000-00000\.arrow: {match}.*encode again"):
        read_codes(written)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_embed": 15}, r"index 0\.\.15 outside 0\.\.14"),
        ({"classes": ["cat"]}, r"label -1\.\.1 outside -1\.\.0"),
        ({"n_embed": 17}, "does not match its checksum"),
        ({"vqvae_sha256": "cd" * 32}, "does not match its checksum"),
        ({"n_steps": 5}, "does not match its checksum"),
        ({"grid": [4, 3]}, "does not match its checksum"),
        ({"grid": [3, 5]}, "columns or rows are not those of its manifest"),
        ({"n_embed": 2**17}, "columns or rows are not those of its manifest"),
        ({"count": 3}, "contradictory fields"),
        ({"grid": [12]}, "missing, mistyped or contradictory fields"),
        ({"grid": [0, 4]}, "missing, mistyped or contradictory fields"),
        ({"n_embed": "16"}, "missing, mistyped or contradictory fields"),
        ({"content_sha256": None}, "missing, mistyped or contradictory fields"),
        ({"shards": []}, "missing, mistyped or contradictory fields"),
        ({"shards": [{"file": "x"}]}, "missing, mistyped or contradictory fields"),
        ({"schema": "tcvq.codes/3"}, r"holds tcvq\.codes/3, but tcvq\.codes/2 is needed here"),
    ],
)
def test_an_edited_manifest_is_refused(written, change, match):
    edit(written, **change)
    with pytest.raises(ArtifactError, match=match):
        read_codes(written)


def test_a_shard_outside_of_the_folder_is_not_read(written):
    edit_shard(written, file="../c/shard-00000-00000.arrow")
    with pytest.raises(ArtifactError, match="contradictory fields"):
        read_codes(written)


@pytest.mark.parametrize("text", ["{", "[]", "\ud800".encode("utf-8", "surrogatepass")])
def test_a_manifest_that_is_no_json_object_is_refused(written, text):
    (written / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArtifactError, match=r"manifest\.json: .*damaged"):
        read_codes(written)


def test_rows_that_are_there_twice_are_refused_however_well_they_are_hashed(tmp_path):
    append(CodesWriter(tmp_path / "c", grid=(2, 3), **COMMON), many(2), 2)
    finish_codes(tmp_path / "c")
    shard = edit(tmp_path / "c")["shards"][0]
    edit(tmp_path / "c", shards=[shard, shard], count=4)
    with pytest.raises(ArtifactError, match="its 4 rows are not the rows"):
        read_codes(tmp_path / "c")


def test_a_file_of_the_first_version_asks_to_encode_again(tmp_path):
    write_artifact(tmp_path / "codes_train.safetensors", {}, schema="tcvq.codes/1")
    with pytest.raises(ArtifactError, match=r"codes_train\.safetensors: a file, but tcvq\.codes/2 is a folder.*again"):
        read_codes(tmp_path / "codes_train.safetensors")
    with pytest.raises(ArtifactError, match="none: no such folder"):
        read_codes(tmp_path / "none")
