from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from proxy.config import load, parse
from proxy.errors import BadConfig
from proxy.yaml_text import plain

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
        ("chat: chat}", "chat: chat, mixed: cat}", "$.defaults.mixed: no domain 'cat'; did you"),
        ("chat: chat}", "chat: chat, mixed: predict}", "$.defaults.mixed: `predict` needs a model"),
        (
            "chat: chat}",
            "chat: chat, router: {model: m, target_error: 0}}",
            "$.defaults.router.target_error: Expected `float` > 0",
        ),
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


def test_domain_cannot_have_the_name_of_the_rule():
    text = GOOD.replace("chat: {plan", "predict: {plan").replace("chat: chat", "chat: predict")

    assert "$.domains.predict: the name stands for" in complaint(text)


def test_router_model_starts_at_the_file_s_directory():
    text = GOOD.replace("chat: chat}", "chat: chat, mixed: predict, router: {model: r.st}}")

    config = parse(text, Path("/etc/headrace"), {"A_KEY": "k"})

    assert config.defaults.router is not None
    assert config.defaults.router.model == Path("/etc/headrace/r.st")


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


COMPARED = """
version: 1
models: [gpt-4o]
backends:
  local: {kind: embedded, base_model: smollm2-135m-instruct}
  azure: {kind: azure, endpoint: 'https://x.example.org', api_key: k, models: {gpt-4o: our-own}}
  cloud: {kind: openai, base_url: 'https://example.org/v1', models: {gpt-4o: nobody-s-model}}
domains:
  geo:
    plan: [local, azure]
    shadow: {to: azure, share: 0.2, budget_usd_per_day: 20, hours: '22:00-06:00'}
    canary: {adapter: geo-v8}
  chat: {plan: [azure, local], split: {azure: 0.25, local: 0.75}, assign_by: caller}
defaults: {tools: geo, chat: chat}
record: {directory: record}
"""


def test_comparisons_are_read():
    domains = parse(COMPARED, Path("/etc"), {}).domains

    assert (domains["geo"].shadow.to, domains["geo"].shadow.max_in_flight) == ("azure", 8)
    assert (domains["geo"].canary.adapter, domains["geo"].canary.share) == ("geo-v8", 0.05)
    assert domains["chat"].split == {"azure": 0.25, "local": 0.75}


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        (
            "to: azure",
            "to: azur",
            "$.domains.geo.shadow.to: no backend 'azur'; did you mean 'azure'?",
        ),
        (
            "to: azure",
            "to: local",
            "$.domains.geo.shadow.to: 'local' answers already; name a backend that does not",
        ),
        (
            "share: 0.2",
            "share: 1.2",
            "$.domains.geo.shadow.share: Expected `float` <= 1.0",
        ),
        (
            "record: {directory: record}",
            "",
            "$.domains.geo.shadow: nothing is recorded; add a `record` section, or take `shadow`",
        ),
        (
            "record: {directory: record}",
            "record: {level: metadata}",
            "$.domains.geo.shadow: only what is recorded in full is shadowed; set `record: full`",
        ),
        (
            "to: azure",
            "to: cloud",
            "$.domains.geo.shadow.budget_usd_per_day: no price is known for nobody-s-model; add one"
            " under $.record.prices, or take the budget out",
        ),
        (
            "canary: {adapter: geo-v8}",
            "canary: {adapter: geo-v8}\n    split: {azure: 0.5, local: 0.5}",
            "$.domains.geo.canary: one comparison at a time; take out `split` or `canary`",
        ),
        (
            "azure: 0.25",
            "azure: 0.5",
            "$.domains.chat.split: the shares come to 1.25; they must come to 1",
        ),
        (
            "{azure: 0.25,",
            "{cloud: 0.25,",
            "$.domains.chat.split.cloud: not in the plan; add it there, so that it may also step",
        ),
        (
            "{azure: 0.25, local: 0.75}",
            "{azure: 1}",
            "$.domains.chat.split: one side is no comparison; name another one, or take it out",
        ),
        (
            "plan: [local, azure]",
            "plan: [cloud, local]",
            "$.domains.geo.canary: 'cloud' answers first and has no adapters; put 'local' first in"
            " the plan",
        ),
        (
            "plan: [local, azure]",
            "plan: [cloud]",
            "$.domains.geo.canary: no backend of the plan has adapters; add a local one",
        ),
    ],
)
def test_contradictions_of_comparisons_are_told_with_place_and_remedy(
    right: str, wrong: str, told: str
):
    assert COMPARED.count(right) == 1
    assert complaint(COMPARED.replace(right, wrong)).startswith(told)


def test_budget_for_a_local_engine_is_refused():
    swapped = COMPARED.replace("plan: [local, azure]", "plan: [azure]").replace(
        "to: azure", "to: local"
    )
    without_canary = swapped.replace("    canary: {adapter: geo-v8}\n", "")

    assert complaint(without_canary) == (
        "$.domains.geo.shadow.budget_usd_per_day: a local engine has no price by the token; take"
        " the budget out"
    )


def test_price_of_one_s_own_makes_a_budget_possible():
    priced = COMPARED.replace("to: azure", "to: cloud").replace(
        "{directory: record}",
        "{prices: {nobody-s-model: [{since: 2026-01-01, input: 1, output: 2}]}}",
    )

    assert parse(priced, Path("/etc"), {}).domains["geo"].shadow.to == "cloud"


@pytest.mark.parametrize("text", ["? [a, b]\n: c\n", "{{a: b}: c}", "version: 1\n[x]: y\n"])
def test_key_that_is_no_text_is_told_with_its_place(text: str):
    with pytest.raises(BadConfig, match=r"line \d+, column \d+: a key must be a text"):
        parse(text, Path("/nowhere"), {})


LAUGHS = "a0: &a0 [x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 20)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [("[" * 100_000, 1), ("- " * 100_000, 1), ("a: {b: " + "{b: " * 5000, 1), (LAUGHS, 7)],
)
def test_settings_without_a_bottom_or_an_end_are_refused_before_they_are_read(text: str, line: int):
    """In a process of its own: the library's answer to the first ones is a segmentation fault."""
    code = "import sys\nfrom proxy.yaml_text import plain\nplain(sys.stdin.read())"

    ended = subprocess.run(
        [sys.executable, "-c", code], input=text, text=True, capture_output=True, check=False
    )

    assert f"BadConfig: line {line}: more, or deeper, than any settings are" in ended.stderr


def test_aliases_stand_for_what_they_name():
    shared = "x: &x {plan: [a]}\ny: [*x, *x]\nz: {<<: *x, b: 1}"

    assert plain(shared) == {
        "x": {"plan": ["a"]},
        "y": [{"plan": ["a"]}] * 2,
        "z": {"plan": ["a"], "b": 1},
    }
