"""`docs/api.md`: every public name of hf_synth, from its signature and docstring."""

from __future__ import annotations

import ast
import inspect
import re

from written import NOTE, ROOT


def api_page() -> str:
    """Return the page of the public names, from signatures and docstrings."""
    stub = ast.parse((ROOT / "hf_synth" / "__init__.pyi").read_text(encoding="utf-8"))
    names = [(node.module or "", node.names[0].name) for node in stub.body if isinstance(node, ast.ImportFrom)]
    lines = [
        NOTE,
        "",
        "# API",
        "",
        "The public names of `hf_synth`, from their docstrings: `from hf_synth import load_task, generate`.",
        "",
    ]
    lines += ["| name | |", "|---|---|"]
    nodes = {name: (module, _definition(module, name)) for module, name in sorted(names, key=lambda m: m[1].lower())}
    for name, (_, node) in nodes.items():
        lines += [f"| [`{name}`](#{name.lower()}) | {_first_sentence(node)} |"]
    for name, (module, node) in nodes.items():
        lines += ["", f"## {name}", "", f"`hf_synth.{module}`", ""]
        lines += _signature(node, name)
        lines += _docstring(node)
        if isinstance(node, ast.ClassDef):
            for method in node.body:
                if isinstance(method, ast.FunctionDef) and not method.name.startswith("_"):
                    is_property = any(
                        getattr(d, "id", "") in ("property", "cached_property") for d in method.decorator_list
                    )
                    lines += ["", f"### {name}.{method.name}", ""]
                    lines += ([] if is_property else _signature(method, method.name)) + _docstring(method)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines) + "\n")


def _definition(module: str, name: str) -> ast.ClassDef | ast.FunctionDef:
    file = ROOT / "hf_synth" / (module.replace(".", "/") + ".py")
    for node in ast.parse(file.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return node
    raise SystemExit(f"hf_synth/__init__.pyi names {name}, which {file.name} does not define")


def _first_sentence(node: ast.ClassDef | ast.FunctionDef) -> str:
    return " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split()).replace("|", "\\|")


def _signature(node: ast.ClassDef | ast.FunctionDef, name: str) -> list[str]:
    if isinstance(node, ast.ClassDef):
        init = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if init is None:
            fields = [
                ast.unparse(n) for n in node.body if isinstance(n, ast.AnnAssign) and "init=False" not in ast.unparse(n)
            ]
            parts = [field for field in fields if not field.startswith("_")]
            returns = ""
        else:
            parts, returns = _parameters(init), ""
    else:
        parts, returns = _parameters(node), f" -> {ast.unparse(node.returns)}" if node.returns else ""
    one = f"{name}({', '.join(parts)}){returns}"
    text = one if len(one) <= 100 else "\n".join([f"{name}(", *(f"    {part}," for part in parts), f"){returns}"])
    return ["```text", text, "```", ""]


def _parameters(node: ast.FunctionDef) -> list[str]:
    spec = node.args
    parts, positional = [], [*spec.posonlyargs, *spec.args]
    defaults: list[ast.expr | None] = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    for arg, default in zip(positional, defaults, strict=True):
        if arg.arg not in ("self", "cls"):
            parts.append(_parameter(arg, default))
    if spec.vararg:
        parts.append(f"*{_parameter(spec.vararg, None)}")
    elif spec.kwonlyargs:
        parts.append("*")
    parts += [_parameter(arg, default) for arg, default in zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    return [*parts, *([f"**{_parameter(spec.kwarg, None)}"] if spec.kwarg else [])]


def _parameter(arg: ast.arg, default: ast.expr | None) -> str:
    kind = f": {ast.unparse(arg.annotation)}" if arg.annotation else ""
    equals = " = " if kind else "="
    return f"{arg.arg}{kind}" + (f"{equals}{ast.unparse(default)}" if default is not None else "")


def _docstring(node: ast.ClassDef | ast.FunctionDef) -> list[str]:
    """Return a docstring as Markdown: its sections as lists, its examples as code."""
    lines: list[str] = []
    section = ""
    for line in inspect.cleandoc(ast.get_docstring(node) or "").splitlines():
        heading = re.fullmatch(r"(Args|Returns|Yields|Raises|Attributes|Examples?|Note|Notes|Source|Sources):", line)
        if heading:
            section = heading[1]
            lines += ["", f"**{section}**", ""] + (["```pycon"] if section.startswith("Example") else [])
        elif section.startswith("Example") and line and not line.startswith(" "):
            lines += ["```", "", line]
            section = ""
        elif section.startswith("Example"):
            lines += [line.removeprefix("    ")]
        elif section in ("Args", "Raises", "Attributes") and (
            item := re.match(r" {4}([*\w][\w., *]*):(?: (.*))?$", line)
        ):
            lines += [f"- `{item[1]}`: {item[2] or ''}".rstrip()]
        elif section and line.strip():
            lines += [("  " if section in ("Args", "Raises", "Attributes") else "") + line.strip()]
        else:
            section = "" if line and not line.startswith(" ") else section
            lines += [line]
    while lines and not lines[-1].strip():
        lines.pop()
    return [*lines, "```"] if section.startswith("Example") else lines
