"""Which large library is loaded right now: on a busy machine that takes minutes, in which nothing else can be said."""

from __future__ import annotations

import sys

_NAMES = {  # name: how it is called; a library comes before those that load it
    "torch": "PyTorch", "sklearn": "scikit-learn", "scipy": "SciPy", "matplotlib": "matplotlib", "ray": "Ray",
    "pyarrow": "pyarrow", "pandas": "pandas", "openai": "openai", "datasets": "datasets",
    "transformers": "transformers", "peft": "peft",
}  # fmt: skip


def library_under_way() -> str:
    """Return what an import statement is loading, in whatever thread, such as "loading PyTorch"; "" for none."""
    modules = sys.modules.copy()  # at once: other threads import while the copy is read
    loading = {name.partition(".")[0] for name, module in modules.items() if _is_under_way(module)}
    return next((f"loading {called}" for name, called in _NAMES.items() if name in loading), "")


def _is_under_way(module: object) -> bool:
    spec = getattr(module, "__dict__", {}).get("__spec__")  # not the attribute: a lazy module would load something
    return bool(getattr(spec, "_initializing", False))
