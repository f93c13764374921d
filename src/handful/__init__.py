"""handful: the best image classifier that a handful of labels can buy.

    import handful

    run = handful.fit("photos/")

Everything of ``handful.api`` is here, imported when it is first asked for (``augment`` alone has to be asked for there:
here that name is a folder of the package).
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

LAZY = (
    "AugmentOptions", "Augmented", "CompareOptions", "Compared", "DistillOptions", "Distilled", "Evaluation",
    "Exported", "ExtendOptions", "Extended", "FitOptions", "Inspected", "ModelInspected", "Planned", "Run",
    "Teller", "cache_folder", "compare", "demo", "distill", "dry_run", "evaluate", "export", "extend", "fit", "inspect",
    "inspect_model", "moons", "moons_methods", "predict", "write_digits",
)  # fmt: skip

if TYPE_CHECKING:
    from handful.api import *  # noqa: F403


def __getattr__(name: str) -> Any:
    if name in LAZY:
        from handful import api

        return getattr(api, name)
    raise AttributeError(f"module 'handful' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
