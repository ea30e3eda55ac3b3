"""Methods against each other under one protocol: compare, advise, learning curves, estimates of cost."""
