import os
from pathlib import Path

import pytest

from continualcode import Config, ConfigError
from continualcode.config import WORKSPACE_KEYS, read_arguments

pytestmark = pytest.mark.usefixtures("isolated")


def in_user_file(text):
    path = Path(os.environ["XDG_CONFIG_HOME"], "continualcode", "continualcode.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def in_workspace_file(text):
    Path("continualcode.toml").write_text(text)


def problem_with(**values):
    with pytest.raises(ConfigError) as raised:
        Config(**values)
    return str(raised.value)


def test_later_sources_win_one_by_one(monkeypatch):
    assert Config().max_tokens == 400
    in_user_file("max_tokens = 1\nfrontend = 'headless'")
    assert Config().max_tokens == 1
    in_workspace_file("max_tokens = 2")
    assert Config().max_tokens == 2
    monkeypatch.setenv("CONTINUALCODE_MAX_TOKENS", "3")
    assert Config().max_tokens == 3
    assert Config(max_tokens="4").max_tokens == 4
    assert Config().frontend == "headless"


def test_the_file_is_that_of_the_workspace_given(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "continualcode.toml").write_text("seed = 7")
    assert Config().seed is None
    assert Config(workspace=other).seed == 7
    in_user_file(f"workspace = '{other}'")
    assert Config().seed == 7


@pytest.mark.parametrize("key", sorted(set(Config.model_fields) - WORKSPACE_KEYS))
def test_a_file_that_came_with_the_repository_cannot_decide_what_is_loaded_or_allowed(key):
    in_workspace_file(f"{key} = 'x'")
    problem = problem_with()
    assert f"{key} is not for a workspace's file to set" in problem
    assert f"CONTINUALCODE_{key.upper()}" in problem


def test_what_grants_or_loads_is_outside_of_the_workspace_file():
    granting = {
        "auto_approve_readonly",
        "rules",
        "base_url",
        "backend",
        "model_name",
        "load_checkpoint_path",
        "state_dir",
        "prompt",
    }
    assert granting & WORKSPACE_KEYS == set()


def test_the_users_own_file_may_set_everything():
    in_user_file("auto_approve_readonly = false\nmodel_name = 'other'")
    assert Config().auto_approve_readonly is False
    assert Config().model_name == "other"


def test_an_unknown_key_names_the_nearest_and_where_it_came_from(monkeypatch):
    assert (
        problem_with(temprature=1) == "unknown setting 'temprature' (given as key=value); did you mean temperature=...?"
    )
    monkeypatch.setenv("CONTINUALCODE_LERNING_RATE", "1")
    assert "'lerning_rate' (from CONTINUALCODE_LERNING_RATE); did you mean learning_rate" in problem_with()
    monkeypatch.delenv("CONTINUALCODE_LERNING_RATE")
    path = in_user_file("loora_rank = 4")
    assert f"'loora_rank' (from {path}); did you mean lora_rank" in problem_with()
    path.unlink()
    in_workspace_file("sede = 4")
    assert "'sede' (from continualcode.toml in the workspace); did you mean seed" in problem_with()


def test_the_engines_own_variable_is_no_setting(monkeypatch):
    monkeypatch.setenv("CONTINUALCODE_CACHE", "/somewhere")
    Config()


def test_a_bad_value_names_key_source_value_and_what_is_allowed(monkeypatch):
    problem = problem_with(alpha="3")
    assert problem == "alpha=3 (given as key=value) is not allowed: input should be less than or equal to 1"
    monkeypatch.setenv("CONTINUALCODE_LORA_RANK", "many")
    assert problem_with().startswith(
        "lora_rank=many (from CONTINUALCODE_LORA_RANK) is not allowed: input should be a valid"
    )


def test_all_faults_are_told_at_once():
    assert len(problem_with(alpha=3, max_tokens=0, nonsense=1).splitlines()) == 3


def test_a_file_that_is_no_toml_is_named():
    in_workspace_file("seed = = 3")
    assert "continualcode.toml cannot be read" in problem_with()


@pytest.mark.parametrize("word", ["None", "none", "null"])
def test_none_is_a_value_where_it_can_be_and_a_name_elsewhere(word):
    config = Config(is_clip=word, distillation_topk=word, teacher_regularization="none")
    assert (config.is_clip, config.distillation_topk, config.teacher_regularization) == (None, None, "none")
    assert "lora_rank=None" in problem_with(lora_rank="None")


@pytest.mark.parametrize(("word", "value"), [("true", True), ("False", False), ("1", True), ("no", False)])
def test_words_are_read_as_truth_values(word, value):
    assert Config(enable_training=word).enable_training is value


def test_training_needs_samples_of_the_policy_itself():
    assert "drawn at temperature 1" in problem_with(temperature=0.7)
    assert "drawn at top_p 1" in problem_with(top_p=0.9)
    assert Config(temperature=0.7, top_p=0.9, enable_training=False).temperature == 0.7


def test_the_sampled_token_alone_is_reverse_kl():
    assert Config(distillation_topk=None).alpha == 1
    assert "Set alpha=1" in problem_with(distillation_topk=None, alpha=0.5)


def test_a_rate_that_no_teacher_would_read_is_refused():
    assert Config(teacher_regularization="ema", teacher_update_rate=0.1).teacher_update_rate == 0.1
    assert "has no meaning with teacher_regularization=frozen" in problem_with(
        teacher_regularization="frozen", teacher_update_rate=0.1
    )


def test_without_key_or_address_it_is_the_embedded_model(monkeypatch):
    config = Config()
    assert (config.backend, config.model_name, config.lora_rank, config.save_every) == ("local", "smollm2-135m", 16, 1)
    assert (config.learning_rate, config.null_space, config.rehearse) == (1e-3, True, 0)
    plain = Config(null_space=False)
    assert (plain.learning_rate, plain.null_space, plain.rehearse) == (3e-4, False, 4)
    assert not config.chosen("backend")
    hosted = Config(base_url="http://localhost:1")
    assert (hosted.backend, hosted.model_name) == ("tinker", "Qwen/Qwen3-4B-Instruct-2507")
    assert (hosted.lora_rank, hosted.learning_rate, hosted.save_every) == (32, 1e-4, 10)
    monkeypatch.setenv("TINKER_API_KEY", "tml-x")
    assert Config().backend == "tinker"
    assert Config(backend="local").backend == "local"


def test_what_was_chosen_beats_what_is_derived(monkeypatch):
    monkeypatch.setenv("CONTINUALCODE_LEARNING_RATE", "5e-5")
    config = Config(lora_rank=4, model_name="some/model")
    assert (config.lora_rank, config.learning_rate, config.model_name) == (4, 5e-5, "some/model")
    assert Config(backend="auto").chosen("backend") is False


def test_settings_that_cannot_be_true_together_are_refused():
    assert "needs TINKER_API_KEY" in problem_with(backend="tinker")
    assert "does not go with base_url" in problem_with(backend="local", base_url="http://localhost:1")
    assert "is no folder" in problem_with(workspace="nowhere")


def test_a_config_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Config().seed = 3


def test_words_on_the_command_line_are_settings():
    assert read_arguments(["seed=3", "prompt=a=b c"]) == {"seed": "3", "prompt": "a=b c"}
    with pytest.raises(ConfigError, match="expected key=value, found '--lora-rank'; did you mean lora_rank="):
        read_arguments(["--lora-rank", "3"])
    with pytest.raises(ConfigError, match="seed is given twice: '1' and '2'"):
        read_arguments(["seed=1", "seed=2"])
