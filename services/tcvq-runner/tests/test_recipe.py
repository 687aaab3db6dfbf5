"""Recipes: what is accepted, what is refused in one line, and that nothing a user types can raise anything else."""

import dataclasses

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tcvq_runner.config import Recipe
from tcvq_runner.recipe import ConfigError, builtin_recipes, differing_keys, dump_recipe, load_recipe, recipe_tree
from tcvq_runner.resuming import differences
from tcvq_vqvae import VQVAEConfig


def refusal(source="debug", *given):
    with pytest.raises(ConfigError) as caught:
        load_recipe(source, given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("name", list(builtin_recipes()))
def test_every_built_in_recipe_loads_under_its_own_name_and_has_a_description(name):
    assert load_recipe(name).name == name
    assert builtin_recipes()[name]


@pytest.mark.parametrize("name", list(builtin_recipes()))
def test_a_dumped_recipe_loads_back_to_an_equal_one(name, tmp_path):
    path = tmp_path / "again.yaml"
    path.write_text(dump_recipe(load_recipe(name)), "utf-8")
    assert load_recipe(path) == load_recipe(name)


def test_settings_override_the_file_and_later_ones_win():
    recipe = load_recipe("debug", ["seed=3", "vqvae.n_embed=16", "seed=4"])
    assert (recipe.seed, recipe.vqvae.n_embed) == (4, 16)


def test_the_priors_codes_and_grid_follow_the_vqvae_when_left_out():
    recipe = load_recipe("debug", ["vqvae.n_embed=48", "vqvae.channel_mult=[1]", "vqvae.attn_resolutions=[]"])
    assert (recipe.prior.n_embed, recipe.prior.grid) == (48, (14, 14))


def test_a_prior_that_contradicts_the_vqvae_is_refused():
    assert refusal("debug", "prior.n_embed=7") == (
        "prior.n_embed is 7 but the VQ-VAE has 32; leave prior.n_embed out, it follows vqvae"
    )


def test_code_features_are_on_or_off_and_as_wide_as_a_codebook_entry():
    assert load_recipe("debug", ["prior.code_features=1"]).prior.code_features == 16
    assert load_recipe("debug", ["prior.code_features=0"]).prior.code_features == 0
    assert load_recipe("fashion-mini", ["vqvae.n_steps=6"]).prior.code_features == 6 * 32


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("vqave.n_steps=3", "unknown key vqave; did you mean vqvae?"),
        ("vqvae.n_step=3", "unknown key vqvae.n_step; did you mean vqvae.n_steps?"),
        ("temperature=3", "unknown key temperature; did you mean sample.temperature?"),
        ("vqvae=3", "vqvae is a section, not a value (3); set vqvae.<key>=..."),
        ("vqvae.n_steps=six", "vqvae.n_steps: input should be a valid integer, not 'six'"),
        ("vqvae.n_steps=true", "vqvae.n_steps: input should be a valid integer, not True"),
        ("vqvae.n_steps=6.0", "vqvae.n_steps: input should be a valid integer, not 6.0"),
        ("vqvae.n_steps=0", "vqvae.n_steps is 0; it must be at least 1"),
        ("name=no", "name: input should be a valid string, not False; quote it"),
        (
            "name=../../etc",
            "name is '../../etc'; use letters, digits, '.', '_' and '-', beginning with a letter or digit",
        ),
        ("data.limit=0", "data.limit is 0; it must be at least 1, or null for every image"),
        ("sample.top_p=1.5", "sample.top_p is 1.5; it must lie in (0, 1], or be null"),
        ("seed=-1", "seed is -1; it must lie in [0, 2**63)"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_the_key_and_the_value(setting, message):
    assert refusal("debug", setting) == message


def test_nan_is_no_setting():
    assert "stage1.learning_rate is nan; it must be finite" in refusal("debug", "stage1.learning_rate=.nan")


def test_one_e_minus_four_is_a_number():
    assert load_recipe("debug", ["stage1.learning_rate=1e-4"]).stage1.learning_rate == 1e-4


def test_an_unknown_recipe_suggests_the_nearest_one():
    assert refusal("fashon-mini") == "unknown recipe 'fashon-mini'; did you mean fashion-mini?"
    assert f"known: {', '.join(builtin_recipes())}; or give the path" in refusal("zzz")


def test_a_missing_file_and_a_file_that_is_no_recipe_are_refused(tmp_path):
    assert "No such file" in refusal(tmp_path / "none.yaml")
    for content in (b"\xff\xfe\x00", b"- a\n- b\n", b"{", b"a: &x [*x]", b"x: ${y}", b"vqvae:\n  - 1\n", b"1: 2"):
        (tmp_path / "bad.yaml").write_bytes(content)
        refusal(tmp_path / "bad.yaml")


def test_an_empty_file_is_the_defaults_under_the_files_name(tmp_path):
    (tmp_path / "mine.yaml").write_text("", "utf-8")
    assert load_recipe(tmp_path / "mine.yaml") == dataclasses.replace(Recipe(), name="mine")


def test_references_between_keys_are_resolved(tmp_path):
    (tmp_path / "mine.yaml").write_text("seed: 7\nvqvae: {width: '${seed}'}\n", "utf-8")
    assert load_recipe(tmp_path / "mine.yaml").vqvae.width == 7
    assert "${" not in dump_recipe(load_recipe(tmp_path / "mine.yaml"))


def test_differing_keys_are_dotted_and_complete():
    other = load_recipe("debug", ["seed=5", "prior.width=64"])
    assert differing_keys(load_recipe("debug"), other) == ["seed", "prior.width"]


KEYS = [f"{s}.{f.name}" for s in ("vqvae",) for f in dataclasses.fields(VQVAEConfig)] + [
    "seed", "name", "data.limit", "prior.grid", "sample.top_k", "stage2.betas", "loss", "vqvae", "a.b", "",
]  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))
FUZZ = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def assert_accepted_or_refused_in_one_line(*arguments):
    try:
        load_recipe(*arguments)
    except ConfigError as error:
        text = str(error)
    else:
        text = ""
    assert "\n" not in text


@FUZZ
@given(st.lists(st.tuples(st.sampled_from(KEYS) | st.text(max_size=10), st.text(max_size=12)), max_size=3))
def test_no_setting_can_raise_anything_but_a_config_error_of_one_line(pairs):
    assert_accepted_or_refused_in_one_line("debug", [f"{key}={value}" for key, value in pairs])


@FUZZ
@given(
    st.dictionaries(st.sampled_from(["vqvae", "prior", "seed", "name", "data", "sample"]) | st.text(max_size=5), TREES)
)
def test_no_yaml_tree_can_raise_anything_but_a_config_error_of_one_line(tmp_path, tree):
    (tmp_path / "fuzz.yaml").write_text(yaml.safe_dump(tree), "utf-8")
    assert_accepted_or_refused_in_one_line(tmp_path / "fuzz.yaml")


@FUZZ
@given(st.binary(max_size=40))
def test_no_file_content_can_raise_anything_but_a_config_error_of_one_line(tmp_path, content):
    (tmp_path / "fuzz.yaml").write_bytes(content)
    assert_accepted_or_refused_in_one_line(tmp_path / "fuzz.yaml")


def test_a_setting_that_an_older_version_did_not_know_has_its_default():
    recipe = load_recipe("debug")
    old = recipe_tree(recipe)
    del old["prior"]["distance_weights"]
    assert not differences(old, recipe_tree(recipe))
    other = recipe_tree(load_recipe("debug", ["prior.distance_weights=true"]))
    assert differences(old, other) == ["prior.distance_weights False -> True"]


def test_a_prior_without_a_running_state_refuses_to_be_drawn_from_with_one():
    for setting in ("prior.kind=gpt", "prior.distance_weights=true"):
        with pytest.raises(ConfigError, match="has no running state"):
            load_recipe("debug", [setting, "sample.cache=state"])
