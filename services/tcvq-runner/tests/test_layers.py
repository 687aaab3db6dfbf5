"""Recipes on top of recipes, their differences, and the schema that editors read."""

import json

import jsonschema
import pytest
import yaml

from tcvq_runner.cli import main
from tcvq_runner.layers import builtin_recipes
from tcvq_runner.recipe import ConfigError, changes, load_recipe, recipe_tree
from tcvq_runner.schema import recipe_schema


def write(folder, **texts):
    for name, text in texts.items():
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return folder / f"{next(iter(texts))}.yaml"


def refusal(source):
    with pytest.raises(ConfigError) as caught:
        load_recipe(source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_recipe_changes_the_one_it_extends_and_keeps_its_own_name(tmp_path):
    path = write(tmp_path, mine="extends: debug\nseed: 3\nvqvae: {n_embed: 64}\n")
    assert set(changes(load_recipe("debug"), load_recipe(path))) == {"name", "seed", "vqvae.n_embed", "prior.n_embed"}
    assert load_recipe(path).name == "mine"


def test_extending_goes_through_files_beside_each_other_and_the_nearest_wins(tmp_path):
    path = write(
        tmp_path,
        top="extends: middle.yaml\nseed: 3\n",
        middle="extends: debug\nseed: 2\nvqvae: {n_embed: 16, width: 16}\n",
    )
    recipe = load_recipe(path, ["vqvae.n_embed=8"])
    assert (recipe.seed, recipe.vqvae.n_embed, recipe.vqvae.width, recipe.vqvae.embed_dim) == (3, 8, 16, 8)


def test_recipes_that_extend_each_other_are_refused_with_the_circle(tmp_path):
    path = write(tmp_path, a="extends: b.yaml", b="extends: c.yaml", c="extends: a.yaml")
    assert refusal(path) == "recipes extend each other in a circle: a.yaml -> b.yaml -> c.yaml -> a.yaml"
    assert "a.yaml -> a.yaml" in refusal(write(tmp_path, a="extends: a.yaml"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: debgu", "a.yaml extends: unknown recipe 'debgu'; did you mean debug?"),
        ("extends: none.yaml", "a.yaml extends: cannot read recipe"),
        ("extends: [debug]", "a.yaml extends: name one recipe or .yaml file"),
        ("extends: 3", "a.yaml extends: name one recipe or .yaml file, not 3"),
        ("extends: debug\nvqvae: 3", "vqvae is a section, not a value (3)"),
        ("extend: debug", "unknown key extend"),
    ],
)
def test_a_wrong_base_is_named(tmp_path, text, message):
    assert message in refusal(write(tmp_path, a=text))


def test_extends_is_no_setting():
    with pytest.raises(ConfigError, match="extends is written in a recipe file"):
        load_recipe("debug", ["extends=fashion-mini"])


def test_diff_takes_recipes_files_and_says_what_differs(tmp_path, capsys):
    path = write(tmp_path, mine="extends: debug\nname: debug\nseed: 3\n")
    assert main(["config", "diff", "debug", str(path)]) == 0
    assert capsys.readouterr().out.split() == ["seed", "0", "->", "3"]
    assert main(["config", "diff", "debug", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"seed": {"a": 0, "b": 3}}
    assert main(["config", "diff", "debug", "debug"]) == 0
    assert capsys.readouterr().out == "no setting differs\n"


def test_show_and_recipes_print_json_for_scripts(capsys):
    assert main(["config", "show", "debug", "seed=9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == recipe_tree(load_recipe("debug", ["seed=9"]))
    assert main(["recipes", "--json"]) == 0
    assert [each["name"] for each in json.loads(capsys.readouterr().out)["recipes"]] == list(builtin_recipes())


@pytest.fixture(scope="module")
def check():
    schema = recipe_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    return jsonschema.Draft202012Validator(schema)


@pytest.mark.parametrize("name", list(builtin_recipes()))
def test_every_recipe_as_written_and_as_resolved_fits_the_schema(name, check):
    from importlib import resources

    text = resources.files("tcvq_runner").joinpath("recipes", f"{name}.yaml").read_text("utf-8")
    check.validate(yaml.safe_load(text))
    check.validate(recipe_tree(load_recipe(name)))


def test_the_schema_marks_what_load_recipe_refuses(check):
    for wrong in (
        {"vqave": {}},
        {"vqvae": {"n_step": 3}},
        {"vqvae": {"n_steps": "six"}},
        {"vqvae": {"upsample": "cubic"}},
        {"extends": 3},
    ):
        assert not check.is_valid(wrong), wrong


def test_every_setting_has_a_description_in_the_schema():
    schema = recipe_schema()
    for section in (schema, *schema["$defs"].values()):
        for key, field in section["properties"].items():
            assert "description" in field or "$ref" in field, key
