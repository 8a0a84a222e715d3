import pytest

from lstm_fcn.container.errors import UserError
from lstm_fcn.container.hyperparameters import (
    PARAMETERS,
    PRESETS,
    Hyperparameters,
    Parameter,
    help_text,
    markdown_table,
    parse_hyperparameters,
    preset_table,
)

DEFAULTS = {
    "preset": "default",
    "task": "auto",
    "num-variables": 1,
    "recurrent": "lstm",
    "views": "auto",
    "convolutions": "true",
    "dimension-shuffle": "true",
    "squeeze-excite": "auto",
    "ensemble-size": 1,
    "num-layers": 1,
    "hidden-size": 8,
    "dropout": 0.8,
    "filters-1": 128,
    "filters-2": 256,
    "filters-3": 128,
    "kernel-size-1": 8,
    "kernel-size-2": 5,
    "kernel-size-3": 3,
    "dilations": "auto",
    "kernel-features": 2000,
    "lr": 0.005,
    "batch-size": 0,
    "epochs": 0,
    "seed": 0,
    "scaling": "dataset",
    "missing-values": "error",
    "length-policy": "error",
    "class-weight": "none",
    "lr-schedule": "one-cycle",
    "fine-tune-rounds": 0,
    "early-stopping-patience": 0,
    "validation-fraction": 0.0,
    "cross-validation-folds": 0,
    "checkpoint-epochs": 0,
    "checkpoint-minutes": 5.0,
    "device": "auto",
    "precision": "auto",
}


def test_defaults_are_those_that_users_rely_on() -> None:
    assert parse_hyperparameters({}).model_dump(by_alias=True) == DEFAULTS


@pytest.mark.parametrize("text", ["10", '"10"', "10.0", '"10.0"', " 10 ", "1e1", "+10"])
def test_integers_come_in_all_encodings(text: str) -> None:
    assert parse_hyperparameters({"epochs": text}).epochs == 10


@pytest.mark.parametrize("text", ["1e-05", "0.00001", '"1e-05"', "1E-5", ".00001"])
def test_numbers_come_in_all_encodings(text: str) -> None:
    assert parse_hyperparameters({"lr": text}).lr == 1e-05


@pytest.mark.parametrize("text", ["one-cycle", '"one-cycle"', "One-Cycle"])
def test_choices_come_in_all_encodings(text: str) -> None:
    assert parse_hyperparameters({"lr-schedule": text}).lr_schedule == "one-cycle"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        *((value, "true") for value in (True, "true", '"true"', "True", '"True"', "TRUE", " true ")),
        *((value, "false") for value in (False, "false", '"false"', "False", '"False"', "FALSE")),
    ],
)
@pytest.mark.parametrize("name", ["convolutions", "dimension-shuffle", "squeeze-excite"])
def test_switches_come_in_all_encodings(name: str, value: object, expected: str) -> None:
    assert parse_hyperparameters({name: value}).model_dump(by_alias=True)[name] == expected


@pytest.mark.parametrize("kind", ["lstm", "alstm", "gru", "rnn", "dense", "none"])
def test_kinds_of_recurrent_blocks_come_in_all_encodings(kind: str) -> None:
    for text in (kind, f'"{kind}"', kind.upper(), f" {kind} "):
        assert parse_hyperparameters({"recurrent": text}).recurrent == kind


def test_shape_and_size_of_the_network_come_in_all_encodings() -> None:
    for three in ("3", '"3"', "3.0", 3):
        settings = parse_hyperparameters({"num-variables": three, "ensemble-size": three})
        assert (settings.num_variables, settings.ensemble_size) == (3, 3)


def test_either_part_of_the_network_can_be_left_out_but_not_both() -> None:
    assert parse_hyperparameters({"recurrent": "none"}).convolutions == "true"
    assert parse_hyperparameters({"convolutions": "false"}).recurrent == "lstm"
    with pytest.raises(UserError, match="recurrent=none with convolutions=false leaves no network; change one of them"):
        parse_hyperparameters({"recurrent": '"none"', "convolutions": False})


def test_plain_json_numbers_are_accepted() -> None:
    assert parse_hyperparameters({"epochs": 10, "lr": 0.5}).epochs == 10


@pytest.mark.parametrize("text", ["None", "null", '"None"', "", None])
def test_unset_means_default(text: str | None) -> None:
    assert parse_hyperparameters({"epochs": text}).epochs == 0


@pytest.mark.parametrize("text", ["None", "null", "none", None])
def test_none_is_a_choice_where_there_is_one_of_that_name(text: str | None) -> None:
    settings = parse_hyperparameters({"class-weight": text, "scaling": text})
    assert (settings.class_weight, settings.scaling) == ("none", "none")


def test_what_the_platform_adds_is_ignored() -> None:
    added = {
        "_tuning_objective_metric": "valid_accuracy",
        "sagemaker_program": '"train.py"',
        "sagemaker_region": "eu-west-1",
        "sagemaker_container_log_level": "20",
    }
    assert parse_hyperparameters(added) == Hyperparameters()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("epochs", "-1"),
        ("epochs", "20001"),
        ("epochs", "1.5"),
        ("epochs", "many"),
        ("epochs", "[1]"),
        ("epochs", "true"),
        ("dropout", "1.5"),
        ("dropout", "-0.1"),
        ("lr", "0"),
        ("lr", "nan"),
        ("lr", "inf"),
        ("lr", "1_0"),
        ("epochs", "1_0"),
        ("scaling", "minmax"),
        ("seed", "-1"),
        ("batch-size", "1e400"),
        ("task", "regression"),
        ("missing-values", "drop"),
        ("length-policy", "none"),
        ("fine-tune-rounds", "11"),
        ("validation-fraction", "0.91"),
        ("checkpoint-minutes", "-1"),
        ("num-variables", "0"),
        ("num-variables", "10001"),
        ("recurrent", "transformer"),
        ("convolutions", "auto"),
        ("convolutions", "1"),
        ("dimension-shuffle", "no"),
        ("squeeze-excite", "yes"),
        ("ensemble-size", "0"),
        ("ensemble-size", "101"),
    ],
)
def test_values_out_of_range_are_refused_with_name_value_and_range(name: str, text: str) -> None:
    with pytest.raises(UserError, match=name) as caught:
        parse_hyperparameters({name: text})
    assert f"{name}={text} must be " in str(caught.value)


def test_json_true_is_not_the_number_one() -> None:
    with pytest.raises(UserError, match="epochs=True must be an integer from 0 to 20000"):
        parse_hyperparameters({"epochs": True})


def test_ends_of_ranges_are_allowed() -> None:
    settings = parse_hyperparameters({"epochs": "20000", "dropout": "0", "lr": "1"})
    assert (settings.epochs, settings.dropout, settings.lr) == (20000, 0.0, 1.0)


def test_all_problems_are_named_at_once() -> None:
    with pytest.raises(UserError) as caught:
        parse_hyperparameters({"epochs": "-1", "dropout": "1.5", "learning-rate": "1", "num_layers": "2"})
    text = str(caught.value)
    assert "epochs=-1 must be an integer from 0 to 20000." in text
    assert "dropout=1.5 must be a number from 0.0 to 0.99." in text
    assert "learning-rate is unknown" in text
    assert "num_layers is unknown; did you mean num-layers?" in text


def test_help_and_table_name_every_hyperparameter() -> None:
    for name in DEFAULTS:
        assert f"| `{name}` |" in markdown_table()
        assert f"  {name} " in help_text()


PAPER = {"epochs": 2000, "lr": 0.001, "lr-schedule": "plateau", "batch-size": 128, "class-weight": "balanced"}
PAPER |= {"views": "values", "dilations": "1", "kernel-features": 0}


@pytest.mark.parametrize("text", ["paper", '"paper"', "Paper", " paper "])
def test_a_preset_sets_what_is_not_set_explicitly(text: str) -> None:
    assert parse_hyperparameters({"preset": text}).model_dump(by_alias=True) == DEFAULTS | {"preset": "paper"} | PAPER
    settings = parse_hyperparameters({"preset": text, "epochs": "7", "class-weight": "None"})
    assert (settings.epochs, settings.class_weight, settings.lr) == (7, "none", 0.001)


@pytest.mark.parametrize("text", ["None", "null", "", None, "default"])
def test_an_unset_preset_is_the_default_one(text: str | None) -> None:
    assert parse_hyperparameters({"preset": text}) == Hyperparameters()


def test_a_value_of_the_preset_is_kept_if_the_hyperparameter_is_unset() -> None:
    assert parse_hyperparameters({"preset": "paper", "epochs": "None"}).epochs == 2000


def test_an_unknown_preset_is_refused() -> None:
    with pytest.raises(UserError, match="preset=fastest must be "):
        parse_hyperparameters({"preset": "fastest"})


def test_presets_are_documented() -> None:
    for name in PRESETS:
        assert f"| `{name}` |" in preset_table()
    assert "`epochs=2000`" in preset_table()


@pytest.mark.parametrize(("series", "expected"), [(1, 16), (128, 16), (240, 30), (512, 64), (10**6, 64)])
def test_the_batch_size_depends_on_the_data_unless_it_is_set(series: int, expected: int) -> None:
    assert Hyperparameters().with_schedule(series).batch_size == expected
    assert parse_hyperparameters({"batch-size": "128"}).with_schedule(series).batch_size == 128


@pytest.mark.parametrize(("series", "expected"), [(1, 200), (128, 200), (512, 200), (600, 173), (5000, 63), (10**6, 5)])
def test_the_number_of_epochs_depends_on_the_data_unless_it_is_set(series: int, expected: int) -> None:
    assert Hyperparameters().with_schedule(series).epochs == expected
    assert parse_hyperparameters({"epochs": "7"}).with_schedule(series).epochs == 7


def test_the_table_tells_kind_bounds_and_choices() -> None:
    assert list(PARAMETERS) == list(DEFAULTS)
    assert {name: parameter.default for name, parameter in PARAMETERS.items()} == DEFAULTS
    assert PARAMETERS["lr"] == Parameter(
        name="lr",
        kind="number",
        default=0.005,
        help="learning rate of Adam; the peak of a one-cycle schedule",
        low=1e-7,
        high=1.0,
        search="0.0001:0.01:log",
        searched_by_default=True,
    )
    assert PARAMETERS["num-layers"].allowed == "an integer from 1 to 8"
    assert PARAMETERS["dropout"].allowed == "a number from 0.0 to 0.99"
    assert (PARAMETERS["scaling"].choices, PARAMETERS["scaling"].allowed) == (
        ("dataset", "series", "none"),
        "dataset, series or none",
    )
    assert not PARAMETERS["seed"].search


@pytest.mark.checklist("53: `epochs` is an integer of at most 20000, so that Hyperband knows what a job may use")
def test_epochs_can_be_the_resource_of_hyperband() -> None:
    epochs = PARAMETERS["epochs"]
    assert (epochs.kind, epochs.high) == ("integer", 20000)


def test_one_fold_is_refused_before_any_data_is_read() -> None:
    with pytest.raises(UserError, match="cross-validation-folds=1 leaves nothing to train on; use at least 2, or 0"):
        parse_hyperparameters({"cross-validation-folds": "1"})
