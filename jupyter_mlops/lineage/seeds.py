"""What seeds a random generator, known by the name or the path of what is called.

A name alone says what may be seeded: `names` has no more. A path, with its aliases spelled out, says what is:
`statements` asks for that, except of what seeds all generators, whichever library it comes from.
"""

from __future__ import annotations

import ast
from typing import Final

GENERATORS: Final = ("random", "numpy.random", "torch", "torch.cuda")
"""The global generators."""
SEEDS: Final = frozenset({
    "seed", "default_rng", "RandomState", "manual_seed", "manual_seed_all", "set_seed", "set_random_seed",
    "seed_everything", "random_seed", "SeedSequence", "PRNGKey", "set_state", "setstate",
})  # fmt: skip
"""What makes or seeds a generator, global or of its own, by its name."""
_MAY_SEED: Final = {
    "seed": ("random", "numpy.random"), "setstate": ("random",), "set_state": ("numpy.random",),
    "manual_seed": ("torch", "torch.cuda"), "manual_seed_all": ("torch.cuda",), "seed_everything": GENERATORS,
    "set_seed": GENERATORS, "set_random_seed": GENERATORS, "random_seed": GENERATORS,
}  # fmt: skip
"""The global generators that a call of such a name may seed; `default_rng(0)` makes one of its own."""
SEEDING_PATHS: Final = {
    "random.seed": "random", "random.setstate": "random", "numpy.random.seed": "numpy.random",
    "numpy.random.set_state": "numpy.random", "torch.manual_seed": "torch torch.cuda",
    "torch.random.manual_seed": "torch torch.cuda", "torch.set_rng_state": "torch",
    "torch.cuda.manual_seed": "torch.cuda", "torch.cuda.manual_seed_all": "torch.cuda",
}  # fmt: skip
"""The generators that a call seeds, by its path."""
SEEDING_ALL: Final = frozenset({"seed_everything", "set_seed", "seed_all", "set_random_seed"})
"""What seeds all of them, by its name."""


def may_seed(node: ast.Call, name: str) -> tuple[str, ...]:
    """The global generators that a call may seed; without a seed of its own it takes one from the system."""
    if name not in _MAY_SEED or all(is_none(one) for one in (*node.args, *(one.value for one in node.keywords))):
        return ()
    base = node.func.value if isinstance(node.func, ast.Attribute) else None
    if isinstance(base, ast.Attribute) and base.attr == "random":
        return ("numpy.random",)
    if isinstance(base, ast.Name) and base.id == "random" and name == "seed":
        return ("random",)
    return _MAY_SEED[name]


def is_none(node: ast.expr) -> bool:
    """Whether an expression is written ``None``."""
    return isinstance(node, ast.Constant) and node.value is None
