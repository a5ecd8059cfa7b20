"""The workflow files in docs/ci: YAML that says nothing twice, in the shape that each service takes, naming what is."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from harness import settings

CI = Path(__file__).resolve().parents[2] / "docs" / "ci"
FILES = sorted(CI.glob("*.yml"))
OPTIONS = {setting.option for setting in settings.SETTINGS}
VARIABLES = {setting.variable for setting in settings.SETTINGS} | {"PVSTUB_CACHE"}

# docs.github.com, "Workflow syntax for GitHub Actions"; docs.gitlab.com, "CI/CD YAML syntax reference".
GITHUB = {"name", "on", "permissions", "env", "defaults", "concurrency", "jobs", "run-name"}
GITHUB_JOB = {
    "name",
    "runs-on",
    "needs",
    "if",
    "permissions",
    "env",
    "steps",
    "timeout-minutes",
    "strategy",
    "container",
}
GITHUB_STEP = {"name", "id", "if", "uses", "run", "with", "env", "shell", "working-directory", "timeout-minutes"}
GITLAB = {"stages", "variables", "default", "include", "workflow", "image", "cache"}
GITLAB_JOB = {
    "stage", "image", "timeout", "variables", "cache", "before_script", "script", "after_script", "artifacts", "rules",
    "needs", "tags", "parallel", "retry", "allow_failure", "extends", "services",
}  # fmt: skip


class Strict(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML's reader would take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: a key is there twice: {keys}"
        return super().construct_mapping(node, deep)


def load(name: str) -> dict[Any, Any]:
    loaded = yaml.load((CI / name).read_text(encoding="utf-8"), Strict)
    assert isinstance(loaded, dict)
    return loaded


def commands(node: Any) -> Iterator[str]:
    """All text in a file."""
    if isinstance(node, dict):
        for value in node.values():
            yield from commands(value)
    elif isinstance(node, list):
        for value in node:
            yield from commands(value)
    elif isinstance(node, str):
        yield node


def test_github() -> None:
    flow = load("github.yml")
    flow["on"] = flow.pop(True)  # what YAML 1.1 makes of the word
    assert set(flow) <= GITHUB
    assert set(flow["on"]) <= {"push", "pull_request", "schedule", "workflow_dispatch"}
    assert flow["permissions"] == {"contents": "read"}, "a boot needs no more"
    for job in flow["jobs"].values():
        assert {"runs-on", "steps"} <= set(job) <= GITHUB_JOB
        assert isinstance(job["timeout-minutes"], int)
        for step in job["steps"]:
            assert set(step) <= GITHUB_STEP
            assert ("uses" in step) != ("run" in step), step
            assert "uses" not in step or re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"]), step
            assert "with" not in step or "uses" in step, step
        assert any(step.get("if") == "failure()" for step in job["steps"]), "what a failed boot left is kept"


def test_gitlab() -> None:
    flow = load("gitlab.yml")
    jobs = {name: job for name, job in flow.items() if name not in GITLAB}
    assert jobs
    for job in jobs.values():
        assert {"stage", "script"} <= set(job) <= GITLAB_JOB
        assert job["stage"] in flow["stages"]
        assert all(isinstance(line, str) for part in ("before_script", "script") for line in job[part])
        assert all(isinstance(value, str) for value in job["variables"].values())
        assert job["artifacts"]["when"] == "always"
        assert set(job["artifacts"]) <= {"when", "expire_in", "paths", "reports", "name", "exclude"}
        for place in (*job["artifacts"]["paths"], *job["cache"]["paths"]):
            assert not place.startswith(("/", "~")), "GitLab keeps what is below the project's folder only"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_they_name_what_there_is(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    found = {match for command in commands(load(path.name)) for match in re.findall(r"--pv-[a-z-]+", command)}
    assert found, "the results are asked for"
    assert found <= OPTIONS
    assert set(re.findall(r"\bPVSTUB_[A-Z_]+", text)) <= VARIABLES
    assert "\t" not in text


def test_both_are_looked_at() -> None:
    assert [path.name for path in FILES] == ["github.yml", "gitlab.yml"]
