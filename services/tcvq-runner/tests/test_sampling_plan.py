"""Where a draw goes, what it goes on with, and which cells of an image are given."""

import dataclasses

import pytest
import torch

from tcvq_data import Codes
from tcvq_runner.completion import Completion, parse_completion
from tcvq_runner.lock import RunFolderError
from tcvq_runner.recipe import ConfigError
from tcvq_runner.run_dir import RunFolder
from tcvq_runner.sample_target import sample_folder
from tcvq_runner.sampling_plan import Inputs, Plan, adopt, read_inputs

INPUTS = Inputs(labels=torch.arange(450) % 3, known=torch.zeros(0, 2, 2, dtype=torch.long))
PLAN = Plan(
    n=450,
    seed=1,
    settings={"temperature": 1.0, "top_k": None, "top_p": None, "min_p": None, "guidance": 1.0, "cache": "auto"},
    micro_batch=64,
    decode_batch=50,
    device="cpu",
    threads=1,
    vqvae_sha256="a" * 64,
    prior_sha256="b" * 64,
    inputs_sha256=INPUTS.sha256,
)


@pytest.fixture
def run(tmp_path):
    """A folder that stands for a run."""
    (tmp_path / "run").mkdir()
    return RunFolder(tmp_path / "run")


def test_shards_are_whole_micro_batches_and_cover_every_sample_once():
    assert (PLAN.shard_size, PLAN.n_shards) == (256, 2)
    assert [i for number in range(PLAN.n_shards) for i in PLAN.shard(number)] == list(range(450))


def test_a_draw_that_goes_on_keeps_its_micro_batch_and_threads_unless_told_otherwise(tmp_path):
    assert adopt(tmp_path / "draw", PLAN, INPUTS) == PLAN
    assert torch.equal(read_inputs(tmp_path / "draw").labels, INPUTS.labels)
    other = dataclasses.replace(PLAN, micro_batch=8, threads=4)
    assert adopt(tmp_path / "draw", other, INPUTS) == PLAN
    with pytest.raises(RunFolderError, match="its threads is 1, now asked for is 4"):
        adopt(tmp_path / "draw", other, INPUTS, explicit=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prior_sha256": "c" * 64}, "its prior_sha256 is bbbbbbbbbbbb, now asked for is cccccccccccc"),
        ({"seed": 2}, "its seed is 1, now asked for is 2"),
        ({"n": 500}, "its n is 450, now asked for is 500"),
        ({"device": "cuda"}, "its device is cpu"),
    ],
)
def test_another_draw_is_refused_in_one_line_that_says_in_what_it_differs(tmp_path, change, message):
    adopt(tmp_path / "draw", PLAN, INPUTS)
    with pytest.raises(RunFolderError, match=message) as error:
        adopt(tmp_path / "draw", dataclasses.replace(PLAN, **change), INPUTS)
    assert "\n" not in str(error.value)


def test_a_manifest_that_cannot_be_read_is_named(tmp_path):
    adopt(tmp_path / "draw", PLAN, INPUTS)
    (tmp_path / "draw" / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"manifest\.json cannot be read .* delete"):
        adopt(tmp_path / "draw", PLAN, INPUTS)


def test_an_interrupted_draw_of_the_same_wishes_is_found_and_no_other(run):
    begun = run.path / "samples-1" / "samples.part"
    adopt(begun, PLAN, INPUTS)
    with sample_folder(run, None, PLAN, fresh=True) as target:
        assert target.path == run.path / "samples-1"
    with sample_folder(run, None, dataclasses.replace(PLAN, seed=2), fresh=True) as target:
        assert target.path != run.path / "samples-1"


def test_a_draw_without_wishes_lands_in_the_run_and_others_beside_it(run, tmp_path):
    with sample_folder(run, None, PLAN, fresh=False) as target:
        assert target == run
    with sample_folder(run, tmp_path / "o", PLAN, fresh=True) as target:
        assert target == RunFolder(tmp_path / "o")
    assert not target.path.exists()  # nothing was drawn
    with sample_folder(run, None, PLAN, fresh=True) as target:
        assert target.path.parent == run.path
        with sample_folder(run, None, PLAN, fresh=True) as other:
            assert other.path != target.path


def test_a_draw_into_a_folder_that_holds_something_or_is_in_use_is_refused(run, tmp_path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "theirs").write_text("theirs")
    with pytest.raises(RunFolderError, match="is not empty"), sample_folder(run, full, PLAN, fresh=True):
        pass
    assert [path.name for path in full.iterdir()] == ["theirs"]
    with (
        sample_folder(run, tmp_path / "o", PLAN, fresh=True),
        pytest.raises(RunFolderError, match="in use"),
        sample_folder(run, tmp_path / "o", PLAN, fresh=True),
    ):
        pass


def test_sides_and_shares_of_a_grid_are_whole_rows_and_columns():
    def given(keep, height=3, width=4):
        return parse_completion("1", keep).given(height, width).int().tolist()

    assert given("upper:0.3") == [[1, 1, 1, 1], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert given("lower:0.7") == [[0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1]]
    assert given("left") == [[1, 1, 0, 0]] * 3
    assert given("right:0.25") == [[0, 0, 0, 1]] * 3
    assert given("upper:0.99") == [[1, 1, 1, 1], [1, 1, 1, 1], [0, 0, 0, 0]]  # something is left to draw


def test_images_to_complete_are_of_all_classes_in_turn_and_single_steps_are_masked_alike():
    codes = Codes(
        indices=torch.arange(5 * 4 * 2).reshape(5, 4, 2),
        labels=torch.tensor([1, 1, 0, 2, 0]),
        n_embed=40,
        n_steps=2,
        classes=("a", "b", "c"),
        vqvae_sha256="",
        dataset="",
        split="test",
    )
    completion = Completion(images=4, ways=2)
    assert completion.chosen(codes).tolist() == [2, 0, 3, 4]
    assert completion.labels(codes).tolist() == [0, 0, 1, 1, 2, 2, 0, 0]
    known = completion.known(codes, stacked=2)
    assert known.shape == (8, 4, 2)
    assert known[0].tolist() == [[16, 17], [-1, -1], [20, 21], [-1, -1]]  # the upper half of both steps
    assert torch.equal(known[0], known[1])


@pytest.mark.parametrize(("images", "keep"), [("x8", "upper"), ("8x", "upper"), ("8", "top"), ("8", "upper:half")])
def test_a_completion_that_cannot_be_read_shows_how_to_write_one(images, keep):
    with pytest.raises(ConfigError, match=r"write such as --complete 8x8 --keep upper:0\.5"):
        parse_completion(images, keep)
