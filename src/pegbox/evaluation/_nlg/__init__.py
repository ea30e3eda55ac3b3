"""The metrics of generated text, one module each."""
