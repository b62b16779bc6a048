"""What users and plugin authors import is frozen: a change of it has to be meant."""

from __future__ import annotations

import ast
import inspect
from pathlib import Path
from types import ModuleType

import mnistlab
from mnistlab import api, testing
from mnistlab.plugins import hookspecs

SNAPSHOT = Path(__file__).parent / "snapshots" / "api.txt"


def described(name: str, value: object) -> list[str]:
    """One line for a name, and one for each public member and field of a class."""
    if not inspect.isclass(value):
        if inspect.isfunction(value):
            return [f"{name}{inspect.signature(value)}"]
        return [f"{name} = {value!r}" if isinstance(value, (str, int)) else name]
    bases = ", ".join(base.__name__ for base in value.__bases__ if base is not object)
    lines = [f"class {name}({bases})" if bases else f"class {name}"]
    if not issubclass(value, api.Config):
        lines += [f"  {name}{inspect.signature(value)}"] if name != "Stepper" else []
    for member, what in sorted(vars(value).items()):
        if not member.startswith("_") and inspect.isfunction(what):
            lines.append(f"  {name}.{member}{inspect.signature(what)}")
        elif not member.startswith("_") and isinstance(what, property) and what.fget:
            lines.append(f"  {name}.{member} -> {what.fget.__annotations__['return']}")
    return lines


def public(module: ModuleType) -> dict[str, object]:
    """What the module itself defines, by the names that stand in its source."""
    names: list[str] = []
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            names.append(node.name)
        elif isinstance(node, ast.Assign):
            names += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return {name: getattr(module, name) for name in sorted(names) if not name.startswith("_")}


def surface() -> str:
    lines: list[str] = []
    kit = {name: getattr(testing, name) for name in testing.__all__}
    top = {name: getattr(mnistlab, name) for name in mnistlab.__all__ if name != "__version__"}
    for module, names in ((mnistlab, top), (api, public(api)), (hookspecs, public(hookspecs)), (testing, kit)):
        lines.append(f"# {module.__name__}")
        for name, value in names.items():
            lines += described(name, value)
    return "\n".join(lines) + "\n"


def test_the_public_interface_is_the_one_that_was_promised():
    assert surface() == SNAPSHOT.read_text(encoding="utf-8"), (
        "The public interface has changed. If that is meant, and plugins that are written go on working (else "
        "API_VERSION has to rise), write it down anew with: python tests/test_api_surface.py"
    )


if __name__ == "__main__":
    SNAPSHOT.parent.mkdir(exist_ok=True)
    SNAPSHOT.write_text(surface(), encoding="utf-8")
