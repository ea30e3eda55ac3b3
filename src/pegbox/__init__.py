"""Pegbox: tune a pretrained language model with the smallest turn that does the job, and prove it."""
