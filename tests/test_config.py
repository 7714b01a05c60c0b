from __future__ import annotations

from pathlib import Path

import pytest

from proxy.config import load, parse
from proxy.errors import BadConfig

GOOD = """
version: 1
models: [gpt-4o]
backends:
  local: {kind: embedded, base_model: smollm2-135m-instruct}
  cloud: {kind: openai, base_url: 'https://example.org/v1', models: {gpt-4o: other}}
domains:
  bookings: {tools: ["book_*"], plan: [local, cloud]}
  chat: {plan: [cloud]}
defaults: {tools: bookings, chat: chat}
"""


def complaint(text: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(BadConfig) as caught:
        parse(text, Path("/etc/headrace"), environment or {})
    return str(caught.value)


def test_shipped_routes_are_valid():
    config = load(Path(__file__).parent.parent / "routes.yaml")

    assert config.models == ["gpt-4o", "gpt-4o-mini", "headrace"]
    assert config.defaults.tools == "api"


def test_shipped_cloud_lines_when_uncommented_make_the_cloud_default_and_fallback():
    shipped = (Path(__file__).parent.parent / "routes.yaml").read_text()
    uncommented = "\n".join(
        line.replace("# ", "", 1) if is_cloud_line(line) else line for line in shipped.splitlines()
    )

    config = parse(uncommented, Path("/etc"), {"OPENAI_API_KEY": "sk-test"})

    assert config.domains["bookings"].plan == ["local", "cloud"]
    assert config.domains["api"].plan == ["cloud", "local"]
    assert config.domains["chat"].plan == ["cloud", "local"]
    assert config.backends["cloud"].api_key == "sk-test"


def is_cloud_line(line: str) -> bool:
    keys = ("# cloud:", "#   kind: openai", "#   base_url:", "#   api_key:", "#   models:")
    return line.lstrip().startswith((*keys, "# - cloud"))


def test_paths_start_at_the_directory_of_the_file():
    config = parse(GOOD + "record: {directory: record}", Path("/etc/headrace"), {})

    assert config.backends["local"].adapters == Path("/etc/headrace/adapters")
    assert config.record.directory == Path("/etc/headrace/record")


def test_path_of_a_gguf_file_starts_at_the_directory_too():
    text = GOOD.replace("smollm2-135m-instruct", "weights/own.gguf")

    config = parse(text, Path("/etc/headrace"), {})

    assert config.backends["local"].base_model == "/etc/headrace/weights/own.gguf"


def test_record_directory_may_start_at_home(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")

    config = parse(GOOD + "record: {}", Path("/etc/headrace"), {})

    assert config.record.directory == Path("/home/somebody/.local/state/headrace/record")


def test_nothing_is_recorded_without_a_record_section():
    assert parse(GOOD, Path("/"), {}).record is None


def test_environment_stands_in_for_references():
    text = GOOD.replace("base_url:", "api_key: '${A_KEY}', base_url:")

    config = parse(text, Path("/"), {"A_KEY": "secret: [x"})

    assert config.backends["cloud"].api_key == "secret: [x"


def test_missing_variable_is_named_with_its_place():
    text = GOOD.replace("base_url:", "api_key: '${A_KEY}', base_url:")

    told = complaint(text)

    assert told.startswith("$.backends.cloud.api_key: ")
    assert "A_KEY is not set" in told


def test_reference_without_quotes_in_braces_is_explained():
    text = GOOD.replace("base_url:", "api_key: ${A_KEY}, base_url:")

    assert 'write "${NAME}" with quotes' in complaint(text)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        (
            'tools: ["book',
            'tols: ["book',
            "$.domains.bookings: Object contains unknown field `tols`; did you mean `tools`?",
        ),
        (
            "version: 1",
            "version: 1\nverson: 1",
            "$: Object contains unknown field `verson`; did you mean `version`?",
        ),
        (
            "base_url:",
            "basic_url: x, base_url:",
            "$.backends.cloud: Object contains unknown field `basic_url`; did you mean `base_url`?",
        ),
        (
            "kind: embedded",
            "kind: embeded",
            "$.backends.local.kind: Invalid value 'embeded'; known are: azure, embedded, litellm,"
            " openai, tgi, vllm",
        ),
        ("gpt-4o: other", "gpt-4o: 1", "$.backends.cloud.models.gpt-4o: Expected `str`, got `int`"),
        ("[local, cloud]", "[]", "$.domains.bookings.plan: no backend would answer"),
        (
            "[local, cloud]",
            "[local, clod]",
            "$.domains.bookings.plan[1]: no backend 'clod'; did you mean 'cloud'?",
        ),
        ("[local, cloud]", "[local, local]", "$.domains.bookings.plan[1]: 'local' is in the plan"),
        ("{plan: [cloud]}", "{}", "$.domains.chat: Object missing required field `plan`"),
        ("chat: chat}", "chat: cat}", "$.defaults.chat: no domain 'cat'; did you mean 'chat'?"),
        ("{plan: [cloud]}", "{plan: [cloud], tools: [sha256:1]}", "$.domains.chat: 'sha256:1' is"),
        ("chat: {plan", "bookings: {plan", "line 9, column 3: the key 'bookings' occurs twice"),
        ("version: 1", "version: 2", "$.version: Invalid enum value 2"),
        ("[gpt-4o]", "[gpt-4o", "line 4, column 9: "),
        ("version: 1", "auth: {keys: [{key: short}]}\nversion: 1", "$.auth.keys[0]: a key has"),
        ("version: 1", "limits: {max_in_flight: 0}\nversion: 1", "$.limits.max_in_flight: Expec"),
    ],
)
def test_mistakes_are_told_with_their_place(right: str, wrong: str, told: str):
    assert complaint(GOOD.replace(right, wrong)).startswith(told)


def test_two_domains_cannot_claim_the_same_tool():
    text = GOOD.replace("{plan: [cloud]}", "{plan: [cloud], tools: [ping]}").replace(
        '"book_*"', "ping"
    )

    assert "the tool 'ping' belongs to both 'bookings' and 'chat'" in complaint(text)


def test_values_of_variables_are_not_told():
    text = GOOD.replace("kind: openai", "kind: '${A_KEY}'")

    told = complaint(GOOD.replace("version: 1", "version: '${A_KEY}'"), {"A_KEY": "secret"})

    assert "secret" not in told
    assert "secret" not in complaint(text, {"A_KEY": ""})


def test_missing_file_is_told_with_the_remedy(tmp_path):
    with pytest.raises(BadConfig, match=r"nothing\.yaml: No such file .* --config"):
        load(tmp_path / "nothing.yaml")


def test_complaints_about_a_file_begin_with_its_name(tmp_path):
    path = tmp_path / "routes.yaml"
    path.write_text("version: 1")

    with pytest.raises(BadConfig, match=rf"^{path}:1:1: \$: Object missing required field"):
        load(path)


def test_words_that_old_yaml_takes_for_truth_values_stay_words():
    config = parse(GOOD.replace("{plan: [cloud]}", "{plan: [cloud], verify: off}"), Path("/"), {})

    assert config.domains["chat"].verify == "off"
