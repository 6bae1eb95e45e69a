"""The sources of settings: which one wins, which values are refused, and the notes for the user."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from madtp_cli.config import BLIP_KEYS, CompareSettings, CompressSettings, RunSettings, flag, resolve
from madtp_cli.errors import UsageError

BUDGET = {"gflops_budget": "0.2"}

#: The settings of an NLVR2 run of the BLIP project, with its own keys.
BLIP_YAML = """
image_root: 'datasets/NLVR2/'
ann_root: 'annotation'
pretrained: 'model_base_nlvr.pth'
vit: 'base'
batch_size_train: 8
batch_size_test: 32
max_epoch: 3
sd_num: 100
image_size: 384
weight_decay: 0.05
init_lr: 3e-6
min_lr: 0
"""


def write(folder: Path, text: str) -> Path:
    """Write a config file with this text."""
    path = folder / "run.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def refusal(
    flags: Mapping[str, object], text: str | None = None, environ: dict[str, str] | None = None, folder: Path = Path()
) -> str:
    """Return the error message for these sources."""
    with pytest.raises(UsageError) as caught:
        resolve(flags, write(folder, text) if text is not None else None, environ or {})
    assert caught.value.exit_code == 2
    assert len(str(caught.value).splitlines()) <= 3
    return str(caught.value)


def test_option_wins_over_variable_over_file_over_default(tmp_path: Path) -> None:
    """If a source is removed, the next one applies."""
    path, environ = write(tmp_path, "seed: 1\nlimit: 5"), {"MADTP_SEED": "2", "MADTP_LIMIT": "6", "PATH": "/bin"}
    all_three = resolve({**BUDGET, "seed": 3, "limit": None}, path, environ)
    assert (all_three.seed, all_three.limit) == (3, 6)
    assert resolve(BUDGET, path, environ).seed == 2
    assert resolve(BUDGET, path, {}).seed == 1
    assert resolve(BUDGET, None, {}).seed == 0


def test_each_setting_has_its_origin(tmp_path: Path) -> None:
    """A user must be able to find where a value was set."""
    settings = resolve(BUDGET, write(tmp_path, "\nseed: 1"), {"MADTP_LIMIT": "6"})
    assert settings.origins.keys() == CompressSettings.model_fields.keys()
    assert {name: origin for name, origin in settings.origins.items() if origin != "default"} == {
        "gflops_budget": "--gflops-budget",
        "limit": "MADTP_LIMIT",
        "seed": "run.yaml line 2 (seed)",
    }


def test_each_setting_has_a_description() -> None:
    """The description is the help text and part of the message about a wrong value."""
    for name, field in CompressSettings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def test_a_missing_budget_is_an_error() -> None:
    """The budget is the only setting without a default."""
    assert refusal({}).startswith("--gflops-budget is missing.")


def test_files_may_have_settings_of_other_commands_but_options_may_not(tmp_path: Path) -> None:
    """One file serves all commands; an option that a command does not have is a mistake."""
    settings = resolve({}, write(tmp_path, "steps: 10\nbatch_size: 4"), {"MADTP_EPOCHS": "1"}, RunSettings)
    assert settings.batch_size == 4
    assert not hasattr(settings, "steps")
    with pytest.raises(UsageError, match="--steps is not a setting of this command"):
        resolve({"steps": 10}, None, {}, RunSettings)


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("steps", -1, "0 or more"),
        ("epochs", -0.5, "0 or more"),
        ("batch_size", 0, "1 or more"),
        ("limit", 0, "1 or more"),
        ("workers", -1, "0 or more"),
        ("head_width", 0, "1 or more"),
        ("learning_rate", 0.0, "above 0"),
        ("learning_rate", float("nan"), "above 0"),
        ("dictionary_learning_rate", 2.0, "at most 1"),
        ("seed", 2**32, "4294967295"),
        ("device", "gpu", "cuda:1"),
        ("dtype", "int8", "bfloat16"),
        ("split", "dev", "train, val or test"),
        ("output", "", "-madtp"),
    ],
)
def test_a_value_out_of_range_is_refused_with_the_allowed_range(name: str, value: object, allowed: str) -> None:
    """The message names the option, the value and what is allowed."""
    message = refusal({**BUDGET, name: value})
    assert message.startswith(f"{flag(name)}: {value!r} cannot be used")
    assert allowed in message


def test_a_wrong_value_is_reported_with_its_variable_or_line(tmp_path: Path) -> None:
    """Otherwise the user must search three sources."""
    assert refusal(BUDGET, environ={"MADTP_BATCH_SIZE": "many"}).startswith("MADTP_BATCH_SIZE: 'many' cannot be used")
    message = refusal(BUDGET, "seed: 1\n\nbatch_size: 0", folder=tmp_path)
    assert message.startswith("run.yaml line 3 (batch_size): 0 cannot be used")


def test_true_is_not_a_number(tmp_path: Path) -> None:
    """YAML reads `steps: yes` as true, which is 1 in Python."""
    assert "cannot be used" in refusal(BUDGET, "steps: yes", folder=tmp_path)
    assert resolve(BUDGET, write(tmp_path, "overwrite: yes"), {}).overwrite is True


def test_an_unknown_name_is_refused_with_the_most_similar_one(tmp_path: Path) -> None:
    """A run with a misspelt setting would use the default for hours."""
    assert "run.yaml line 1: batchsize is not a setting. Did you mean batch_size?" in refusal(
        BUDGET, "batchsize: 4", folder=tmp_path
    )
    assert "Did you mean learning_rate?" in refusal(BUDGET, "init_lr: 1e-5", folder=tmp_path)
    assert "Did you mean MADTP_GFLOPS_BUDGET?" in refusal({}, environ={"MADTP_GFLOP_BUDGET": "0.2"})
    assert "Did you mean --learning-rate?" in refusal({**BUDGET, "learn_rate": 1})
    assert "There are data, " in refusal(BUDGET, "zzz: 4", folder=tmp_path)


@given(st.text(st.characters(categories=["Ll", "Nd"], include_characters="_"), min_size=1, max_size=12))
def test_no_madtp_variable_is_ignored(name: str) -> None:
    """A variable with our prefix sets a setting or is refused."""
    variable = "MADTP_" + name.upper()
    if variable.removeprefix("MADTP_").lower() not in CompressSettings.model_fields and variable != "MADTP_CONFIG":
        assert variable in refusal(BUDGET, environ={variable: "1"})


def test_empty_variables_and_lines_count_as_not_given(tmp_path: Path) -> None:
    """CI systems define variables without a value; `seed:` is null in YAML."""
    settings = resolve(BUDGET, write(tmp_path, "seed:\n"), {"MADTP_LIMIT": "", "MADTP_CONFIG": ""})
    assert settings == resolve(BUDGET, None, {})


def test_a_variable_can_name_the_config_file(tmp_path: Path) -> None:
    """`MADTP_CONFIG` is the variable of `--config`; the option wins."""
    path = write(tmp_path, "seed: 4")
    other = tmp_path / "other.yaml"
    other.write_text("seed: 5")
    assert resolve(BUDGET, None, {"MADTP_CONFIG": str(path)}).seed == 4
    assert resolve(BUDGET, other, {"MADTP_CONFIG": str(path)}).seed == 5


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("seed: [1\n", "in line 2"),
        ("seed: 1\n\tlimit: 2", "in line 2"),
        ("just words", "line 1 is not of the form"),
        ("- seed", "line 1 is not of the form"),
        ("seed: 1\nlimit: 2\nseed: 3", "lines 1 and 3 both set seed"),
        ("seed: !!python/name:os.system", "in line 1"),
        ("seed: 2024-13-45", "month must be in 1..12"),
        ("seed: \x07", "special characters are not allowed"),
        ("a: " + "[" * 5000, "recursion"),
    ],
)
def test_a_malformed_file_is_refused_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    """The user gets a message and no traceback, whatever the file contains."""
    message = refusal(BUDGET, text, folder=tmp_path)
    assert "run.yaml is not a settings file" in message
    assert reason in message


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    """A missing file, a folder or a binary file is a usage error."""
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "Is a directory")):
        with pytest.raises(UsageError, match=f"Cannot read the config file .*{reason}"):
            resolve(BUDGET, path, {})
    (tmp_path / "run.yaml").write_bytes(b"seed: \xff")
    with pytest.raises(UsageError, match="not a settings file"):
        resolve(BUDGET, tmp_path / "run.yaml", {})


def test_an_empty_file_sets_nothing(tmp_path: Path) -> None:
    """A file may have only comments."""
    assert resolve(BUDGET, write(tmp_path, "# nothing yet\n"), {}) == resolve(BUDGET, None, {})


def test_steps_and_epochs_exclude_each_other(tmp_path: Path) -> None:
    """Two lengths from one source contradict each other."""
    assert refusal({**BUDGET, "steps": 1, "epochs": 1.0}).startswith("--steps and --epochs: steps and epochs exclude")
    assert "line 1 (steps) and run.yaml line 2 (epochs)" in refusal(BUDGET, "steps: 1\nepochs: 1", folder=tmp_path)


def test_steps_on_the_command_line_override_epochs_in_a_file(tmp_path: Path) -> None:
    """`--steps 0` must work with any config file; a note names the line that has no effect."""
    settings = resolve({**BUDGET, "steps": 0}, write(tmp_path, "epochs: 5"), {})
    assert (settings.steps, settings.epochs) == (0, None)
    assert settings.notes == ["--steps overrides run.yaml line 1 (epochs)."]


def test_a_budget_in_a_file_may_be_a_number_or_text(tmp_path: Path) -> None:
    """YAML reads 0.2 as a number and 20% as text."""
    for text in ("0.2", "20%", "26.5G"):
        assert resolve({}, write(tmp_path, f"gflops_budget: {text}"), {}).gflops_budget.text == text


def test_a_home_folder_in_a_file_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No shell expands the paths in a file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve(BUDGET, write(tmp_path, "data: ~/nlvr2"), {}).data == tmp_path / "nlvr2"


def test_a_blip_file_is_recognised_and_translated(tmp_path: Path) -> None:
    """People who fine-tuned a checkpoint have its YAML file; PyYAML reads 3e-6 without a point as text."""
    settings = resolve(BUDGET, write(tmp_path, BLIP_YAML), {})
    assert (settings.data, settings.image_root) == (Path("annotation"), Path("datasets/NLVR2"))
    assert (settings.batch_size, settings.epochs, settings.learning_rate) == (8, 3.0, 3e-6)
    assert settings.origins["learning_rate"] == "run.yaml line 12 (init_lr)"
    (note,) = settings.notes
    for part in ("init_lr as learning_rate", "ignored pretrained", "sd_num, image_size, weight_decay, min_lr."):
        assert part in note


def test_k_test_in_a_blip_file_is_our_setting(tmp_path: Path) -> None:
    """The figures of papers depend on it: 128 answers, 256 or 128 candidates. It must not be ignored."""
    settings = resolve(BUDGET, write(tmp_path, BLIP_YAML + "k_test: 256"), {})
    assert settings.k_test == 256
    assert "k_test" not in settings.notes[0]
    assert resolve({**BUDGET, "k_test": 4}, None, {"MADTP_K_TEST": "8"}).k_test == 4
    assert resolve(BUDGET, None, {}).k_test is None
    assert "--k-test" in refusal({"k_test": 0}, "", folder=tmp_path)


def test_a_misspelt_setting_in_a_blip_file_is_refused(tmp_path: Path) -> None:
    """Keys of other projects are ignored with a note, but not a key that is similar to one of our settings."""
    settings = resolve(BUDGET, write(tmp_path, BLIP_YAML + "wandb: false"), {})
    assert "wandb" in settings.notes[0]
    assert "Did you mean gflops_budget?" in refusal({}, BLIP_YAML + "gflops_budgett: 0.2", folder=tmp_path)


def test_data_on_the_command_line_overrides_the_image_folder_in_a_file(tmp_path: Path) -> None:
    """Otherwise the annotations would be combined with the images of another data set."""
    settings = resolve({**BUDGET, "data": Path("mine")}, write(tmp_path, BLIP_YAML), {})
    assert (settings.data, settings.image_root) == (Path("mine"), None)


def test_blip_keys_are_translated_to_existing_settings() -> None:
    """A translation to a field that was renamed would be an error."""
    assert set(BLIP_KEYS.values()) <= CompressSettings.model_fields.keys()


def test_the_number_of_workers_has_no_fixed_default() -> None:
    """With 0 as the default, the process that runs the model would decode all images."""
    assert resolve({}, None, {}, RunSettings).workers is None
    assert resolve({"workers": 0}, None, {}, RunSettings).workers == 0


@pytest.mark.parametrize("text", ["1__0", "_1", "1_", "1.0", "0", "-1", "\u0663", "9" * 31])
def test_a_wrong_limit_is_refused_before_any_file_is_read(text: str) -> None:
    """Python's int reads fewer forms than a first look suggests."""
    with pytest.raises(UsageError, match="MADTP_LIMIT_IMAGE_PIXELS is .*\n.*whole number above 0"):
        resolve(BUDGET, None, {"MADTP_LIMIT_IMAGE_PIXELS": text})


def test_a_file_may_have_lists_and_mappings_of_single_values(tmp_path: Path) -> None:
    """Several methods and budgets, and a head width by tower; a nested list is refused."""
    file = tmp_path / "run.yaml"
    file.write_text("methods: [madtp, tome]\nbudgets:\n- 0.5\n- 20%\nhead_width: {vision: 80, text: 64}\n")
    settings = resolve({}, file, {}, CompareSettings)
    assert settings.methods == ("madtp", "tome")
    assert [budget.text for budget in settings.budgets] == ["0.5", "20%"]
    assert settings.head_width == {"vision": 80, "text": 64}
    for line, message in (
        ("methods: [[madtp]]", "methods.*nested list"),
        ("seed: [1, 2]", r"seed.*\[1, 2\] cannot be used"),
        ("methods: {madtp: 1}", r"methods.*madtp"),
    ):
        file.write_text(line)
        with pytest.raises(UsageError, match=message):
            resolve({}, file, {}, CompareSettings)
