"""The verbs of the command line as functions, with their options and results."""

from handful.run.file import Run
from handful.run.places import cache_folder
from handful.run.teller import Teller
from handful.verbs.augment import Augmented, AugmentOptions, augment
from handful.verbs.compare import Compared, CompareOptions, compare
from handful.verbs.demo import demo, write_digits
from handful.verbs.distill import Distilled, DistillOptions, distill
from handful.verbs.dry_run import Planned, dry_run
from handful.verbs.evaluate import Evaluation, evaluate
from handful.verbs.export import Exported, export
from handful.verbs.extend import Extended, ExtendOptions, extend
from handful.verbs.fit import FitOptions, fit
from handful.verbs.inspect import Inspected, inspect
from handful.verbs.inspect_model import ModelInspected, inspect_model
from handful.verbs.moons import moons, moons_methods
from handful.verbs.predict import predict

__all__ = [
    "AugmentOptions", "Augmented", "CompareOptions", "Compared", "DistillOptions", "Distilled", "Evaluation",
    "Exported", "ExtendOptions", "Extended", "FitOptions", "Inspected", "ModelInspected", "Planned", "Run",
    "Teller", "augment", "cache_folder", "compare", "demo", "distill", "dry_run", "evaluate", "export", "extend",
    "fit", "inspect", "inspect_model", "moons", "moons_methods", "predict", "write_digits",
]  # fmt: skip
