"""Methods against each other under one protocol: compare, advise, learning curves, estimates of cost."""

from pegbox.comparison._flops import fit_flops, predict_flops

__all__ = ["fit_flops", "predict_flops"]
