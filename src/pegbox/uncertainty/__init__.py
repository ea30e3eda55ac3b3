"""How sure a tuned model is: Laplace posteriors of adapters, and rivals that calibrate in other ways."""

from pegbox.uncertainty._curvature import GRADES, Basis, Grade
from pegbox.uncertainty._evidence import Evidence
from pegbox.uncertainty._files import (
    AVERAGED,
    HEADER,
    fingerprint,
    header,
    header_of,
    read_header,
    read_laplace,
    to_bytes,
)
from pegbox.uncertainty._fit import fit_laplace
from pegbox.uncertainty._laplace import Laplace
from pegbox.uncertainty._places import LAST, PARTS, Place, check_part, places
from pegbox.uncertainty._predictive import INTEGRALS, Integral, Predictive
from pegbox.uncertainty._scored import Scored
from pegbox.uncertainty._temperature import Temperature, fit_temperature

__all__ = [
    "AVERAGED",
    "GRADES",
    "HEADER",
    "INTEGRALS",
    "LAST",
    "PARTS",
    "Basis",
    "Evidence",
    "Grade",
    "Integral",
    "Laplace",
    "Place",
    "Predictive",
    "Scored",
    "Temperature",
    "check_part",
    "fingerprint",
    "fit_laplace",
    "fit_temperature",
    "header",
    "header_of",
    "places",
    "read_header",
    "read_laplace",
    "to_bytes",
]
