"""Families of models that no method can put anything beside the attention of."""

NO_INTERFACE = "they compute attention without Transformers' AttentionInterface"
WITHOUT_INTERFACE = dict.fromkeys(("bloom", "falcon", "codegen", "deberta-v2"), NO_INTERFACE)
