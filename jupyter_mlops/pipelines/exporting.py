"""A pipeline as a workflow of GitHub Actions: what a person would write by hand, and can change."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any, Final

from jupyter_mlops.pipelines.graph import Pipeline, spell
from jupyter_mlops.project import Project

_HEAD: Final = (
    "# Runs the pipeline at every push. Written by `mlops pipeline export --github`; change it as you like.\n"
)
PYTHON: Final = "3.12"


def github(project: Project, pipeline: Pipeline, *, keep_going: bool = False) -> str:
    """A workflow that runs a pipeline at every push, and keeps its notebooks as an artifact.

    Parameters
    ----------
    project
        Its folder is taken for the repository's.
    pipeline
        What is run.
    keep_going
        Whether it goes on with what does not need a step that failed.
    """
    import yaml

    root = project.root
    file = spell(pipeline.file or pipeline.folder / "pipeline.yaml", root)
    members = pipeline.steps.values()
    outputs = sorted({spell(pipeline.folder / _output(one.notebook, one.output), root) for one in members})
    requirements = next((name for name in ("requirements.txt", "pyproject.toml") if (root / name).is_file()), None)
    install = {"requirements.txt": "jupyter-mlops -r requirements.txt", "pyproject.toml": "jupyter-mlops ."}
    python: dict[str, Any] = {"python-version": PYTHON}
    if requirements:
        python |= {"cache": "pip", "cache-dependency-path": requirements}
    steps: list[dict[str, Any]] = [
        {"uses": "actions/checkout@v4"},
        {"uses": "actions/setup-python@v5", "with": python},
        {"run": f"pip install {install.get(requirements or '', 'jupyter-mlops')}"},
        {"run": f"mlops init && mlops pipeline run{' --keep-going' if keep_going else ''} --file {_quoted(file)}"},
        {
            "name": "Keep the notebooks as they ran",
            "if": "always()",
            "uses": "actions/upload-artifact@v4",
            "with": {"name": "notebooks", "path": "\n".join(outputs) + "\n", "if-no-files-found": "warn"},
        },
    ]
    workflow = {
        "name": "pipeline",
        "on": {"push": {}, "pull_request": {}, "workflow_dispatch": {}},
        "permissions": {"contents": "read"},
        "jobs": {"pipeline": {"runs-on": "ubuntu-latest", "timeout-minutes": 60, "steps": steps}},
    }
    return _HEAD + yaml.dump(workflow, Dumper=_dumper(), sort_keys=False, allow_unicode=True, width=110)


def _output(notebook: str, output: str) -> str:
    path = PurePosixPath(notebook)
    return output or str(path.with_name(f"{path.stem}.out.ipynb"))


def _quoted(word: str) -> str:
    import shlex

    # An expression of the workflow's own is no shell's business, and would be filled in before the shell sees it.
    return shlex.quote(word).replace("${{", "$'{'{")


def _dumper() -> Any:
    import yaml

    class Dumper(yaml.SafeDumper):
        """Texts of several lines as blocks; an empty mapping as nothing, as in ``push:``."""

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    def mapping(dumper: Any, value: dict[str, Any]) -> Any:
        if not value:
            return dumper.represent_scalar("tag:yaml.org,2002:null", "")
        return dumper.represent_mapping("tag:yaml.org,2002:map", value.items())

    Dumper.add_representer(str, text)
    Dumper.add_representer(dict, mapping)
    return Dumper
