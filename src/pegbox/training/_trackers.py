"""Experiment trackers, by the names that transformers knows them by."""

from __future__ import annotations

from importlib.util import find_spec

from pegbox.errors import UsageError, nearest

# Any one of the packages will do.
_PACKAGES = {
    "clearml": ("clearml",),
    "codecarbon": ("codecarbon",),
    "comet_ml": ("comet_ml",),
    "dvclive": ("dvclive",),
    "mlflow": ("mlflow",),
    "neptune": ("neptune",),
    "swanlab": ("swanlab",),
    "tensorboard": ("tensorboard", "tensorboardX"),
    "trackio": ("trackio",),
    "wandb": ("wandb",),
}


def trackers(report_to: str) -> list[str]:
    """Return the trackers that a comma-separated list names; ``none`` names none.

    Raises:
        UsageError: For an unknown tracker, or one whose package is not installed.
    """
    names = [name.strip() for name in report_to.split(",") if name.strip()]
    if names in ([], ["none"]):
        return []
    for name in names:
        if name not in _PACKAGES:
            raise UsageError(
                f"there is no tracker '{name}'",
                where="report_to",
                expected=f"none, or some of {', '.join(_PACKAGES)}, separated by commas",
                fix=nearest(name, _PACKAGES),
            )
    missing = [name for name in names if not any(find_spec(package) for package in _PACKAGES[name])]
    if missing:
        raise UsageError(
            f"not installed: what the tracker{'s' if len(missing) > 1 else ''} {', '.join(missing)} needs",
            where="report_to",
            fix=f"pip install {' '.join(_PACKAGES[name][0] for name in missing)}, or leave report_to out",
        )
    return names
