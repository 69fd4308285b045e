"""The documents are tests: what they tell people to type exists, and what they list is all there is."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import SecretStr
from typer.testing import CliRunner

from backend.cli import cli
from backend.settings import Settings

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
# Programs of the reader's machine; what we claim of them is only that they are used this way.
FOREIGN = {"cp", "pg_dump"}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def commands() -> Iterator[Any]:
    """Each line of each ```sh block, by document."""
    for document in DOCUMENTS:
        for block in re.findall(r"^```sh\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                yield pytest.param(line, id=f"{name_of(document)}: {line}")


def help_of(*arguments: str) -> str:
    result = CliRunner().invoke(cli, [*arguments, "--help"], env={"COLUMNS": "200", "TERM": "dumb", "NO_COLOR": "1"})
    assert result.exit_code == 0, result.output
    return result.output


@cache
def module_help(*module_and_command: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", *module_and_command, "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )
    return done.stdout


def check_wardround(words: list[str]) -> None:
    """The subcommands exist and take the options."""
    path: list[str] = []
    for word in words:
        if word.startswith("-") or not re.search(rf"^\W*{re.escape(word)}\b", help_of(*path), re.MULTILINE):
            break
        path.append(word)
    assert path, f"wardround has no command {words[0]}"
    text = help_of(*path)
    for option in (word.partition("=")[0] for word in words if word.startswith("--")):
        assert option in text


def check_make(words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    assert words[0] in phony.group(1).split()
    for variable in (word.partition("=")[0] for word in words[1:]):
        assert f"$({variable})" in makefile


def check_compose(words: list[str]) -> None:
    action, rest = words[0], words[1:]
    if action == "exec":
        assert rest[0] in SERVICES
        check(rest[1:])
    else:
        assert action == "cp"
        assert rest[0].partition(":")[0] in SERVICES


def check_module(module: str, words: list[str]) -> None:
    text = module_help(module)
    if words and re.search(rf"^    {re.escape(words[0])}\b", text, re.MULTILINE):
        text = module_help(module, words[0])
    for option in (word for word in words if word.startswith("--")):
        assert option in text


def check(words: list[str]) -> None:
    program, rest = words[0], words[1:]
    if program == "make":
        check_make(rest)
    elif program == "wardround":
        check_wardround(rest)
    elif words[:2] == ["docker", "compose"]:
        check_compose(words[2:])
    elif program.endswith("python") and rest[0] == "-m":
        check_module(rest[1], rest[2:])
    elif program == "torchrun":
        check_module("torch.distributed.run", rest)
    elif re.fullmatch(r"WARDROUND_\w+=.*", program):
        assert program.partition("=")[0].removeprefix("WARDROUND_").lower() in Settings.model_fields
    else:
        assert program in FOREIGN, f"the documents tell to run {program}, which no test knows"


@pytest.mark.parametrize("line", list(commands()))
def test_every_command_in_the_documents_exists(line: str):
    check(shlex.split(line, comments=True))


def test_the_first_two_commands_of_the_readme_are_the_demo_and_the_tests():
    blocks = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.DOTALL | re.MULTILINE)
    assert blocks[0] == "make demo\n"
    assert "make test\n" in blocks
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_commands_named_in_running_text_exist():
    for document in DOCUMENTS:
        for command in re.findall(r"`(wardround [a-z -]+)`", document.read_text()):
            check(shlex.split(command))
        for target in re.findall(r"`make ([a-z]+)", document.read_text()):
            check_make([target])


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_relative_links_lead_somewhere(document: Path):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), target


def test_make_help_lists_every_target():
    makefile = (ROOT / "Makefile").read_text()
    phony = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert phony is not None
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"], capture_output=True, text=True, check=True, cwd=ROOT
    ).stdout
    assert [line.split()[1] for line in shown.splitlines()] == phony.group(1).split()


def test_the_changelog_begins_with_this_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    first = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first.group(1) == version


# ---- .env.example -------------------------------------------------------------------------------------------------


def example() -> dict[str, str]:
    lines = (ROOT / ".env.example").read_text().splitlines()
    pairs = [(line.partition("=")[0], line.partition("=")[2]) for line in lines if line and not line.startswith("#")]
    assert len(pairs) == len({name for name, _ in pairs})
    return dict(pairs)


def default(value: object) -> str:
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return format(value, "g") if isinstance(value, float) else str(value)


def test_the_example_lists_exactly_the_settings_with_their_defaults():
    settings = {f"WARDROUND_{name.upper()}": default(f.default) for name, f in Settings.model_fields.items()}
    assert {name: value for name, value in example().items() if name.startswith("WARDROUND_")} == settings


def test_every_setting_in_the_example_carries_its_explanation():
    text = (ROOT / ".env.example").read_text()
    for name, field in Settings.model_fields.items():
        assert f"# {field.description}\nWARDROUND_{name.upper()}=" in text


# ---- docker-compose.yml and Dockerfile ----------------------------------------------------------------------------


def variables() -> set[str]:
    return set(re.findall(r"(?<!\$)\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))


def test_compose_variables_are_in_the_example_and_nothing_else_is():
    assert variables() <= set(example())
    assert {name for name in example() if not name.startswith("WARDROUND_")} <= variables()


def test_compose_has_no_default_secret():
    text = (ROOT / "docker-compose.yml").read_text()
    for name in (name for name in variables() if re.search("PASSWORD|TOKEN|SECRET", name)):
        uses = re.findall(rf"\$\{{{name}([^}}]*)\}}", text)
        assert set(uses) == {":?set it in .env"}, name
        assert example()[name] == ""
    for service in SERVICES.values():
        for key, value in (service.get("environment") or {}).items():
            if re.search("PASSWORD|SECRET|_TOKEN$", key) and "ENABLE" not in key:
                assert str(value).startswith("${"), key


def test_compose_passes_every_setting_on():
    given = set(SERVICES["worker"]["environment"])
    assert given == {f"WARDROUND_{name.upper()}" for name in Settings.model_fields}


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_is_watched_and_unprivileged(service: str):
    definition = SERVICES[service]
    assert definition["healthcheck"]["test"]
    assert definition["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in definition["security_opt"]
    user = str(definition.get("user", ""))
    if definition["image"].startswith("wardround:"):
        assert re.search(r"^USER (?!root\b)\w+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    else:
        assert user
        assert user.partition(":")[0] not in {"root", "0"}
        assert re.search(r":\d", definition["image"]), "a service without a version changes by itself"


def test_only_label_studio_is_published_and_the_stores_have_no_way_out():
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["label-studio"]
    assert COMPOSE["networks"]["stores"]["internal"] is True
    assert all(SERVICES[name]["networks"] == ["stores"] for name in ("postgres", "redis"))


def test_label_studio_reaches_the_api_under_a_name_with_a_dot():
    alias = SERVICES["api"]["networks"]["labelling"]["aliases"][0]
    assert "." in alias
    assert SERVICES["api"]["environment"]["WARDROUND_PUBLIC_URL"] == f"http://{alias}:9090"
    assert "labelling" in SERVICES["label-studio"]["networks"]


def test_the_worker_asks_for_a_gpu():
    device = SERVICES["worker"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert device["capabilities"] == ["gpu"]


def test_every_service_command_is_a_command_of_wardround():
    for name in ("api", "worker", "beat"):
        check_wardround(SERVICES[name]["command"])


def test_label_studio_has_one_version_everywhere():
    makefile = re.search(r"^LABEL_STUDIO_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert makefile is not None
    assert SERVICES["label-studio"]["image"].endswith(f":{makefile.group(1)}")
    assert f"label-studio=={makefile.group(1)} " in (ROOT / "label-studio.lock").read_text()
    assert makefile.group(1) in (ROOT / "README.md").read_text()
