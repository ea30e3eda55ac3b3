"""Methods: one module each, and the registry with the capability table."""

from typing import TYPE_CHECKING

from pegbox._lazy import lazy

if TYPE_CHECKING:
    from pegbox.methods._least_squares import Posterior, helmert, mean_softmax, softmax_moments
    from pegbox.methods._method import Attached, Capability, Method, Problem, Solved, Solver
    from pegbox.methods._output_layer import Equations
    from pegbox.methods._peft import check_adapter, load_adapter, save_adapter
    from pegbox.methods._registry import build, methods, register
    from pegbox.methods._soft_export import export_prompt_tuning
    from pegbox.methods._table import table_markdown, table_rows
    from pegbox.methods.bottleneck import Bottleneck
    from pegbox.methods.closed_form import ClosedForm
    from pegbox.methods.few_shot import FewShot
    from pegbox.methods.full import Full
    from pegbox.methods.head import Head
    from pegbox.methods.ia3 import IA3
    from pegbox.methods.lora import LoRA
    from pegbox.methods.p_tuning import PTuning
    from pegbox.methods.prefix import Prefix
    from pegbox.methods.qlora import QLoRA
    from pegbox.methods.soft_prompt import SoftPrompt
    from pegbox.methods.zero_init_attention import ZeroInitAttention
    from pegbox.methods.zero_shot import ZeroShot

__all__ = [
    "IA3",
    "Attached",
    "Bottleneck",
    "Capability",
    "ClosedForm",
    "Equations",
    "FewShot",
    "Full",
    "Head",
    "LoRA",
    "Method",
    "PTuning",
    "Posterior",
    "Prefix",
    "Problem",
    "QLoRA",
    "SoftPrompt",
    "Solved",
    "Solver",
    "ZeroInitAttention",
    "ZeroShot",
    "build",
    "check_adapter",
    "export_prompt_tuning",
    "helmert",
    "load_adapter",
    "mean_softmax",
    "methods",
    "register",
    "save_adapter",
    "softmax_moments",
    "table_markdown",
    "table_rows",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Posterior": "pegbox.methods._least_squares",
        "helmert": "pegbox.methods._least_squares",
        "mean_softmax": "pegbox.methods._least_squares",
        "softmax_moments": "pegbox.methods._least_squares",
        "Attached": "pegbox.methods._method",
        "Capability": "pegbox.methods._method",
        "Method": "pegbox.methods._method",
        "Problem": "pegbox.methods._method",
        "Solved": "pegbox.methods._method",
        "Solver": "pegbox.methods._method",
        "Equations": "pegbox.methods._output_layer",
        "check_adapter": "pegbox.methods._peft",
        "load_adapter": "pegbox.methods._peft",
        "save_adapter": "pegbox.methods._peft",
        "build": "pegbox.methods._registry",
        "methods": "pegbox.methods._registry",
        "register": "pegbox.methods._registry",
        "export_prompt_tuning": "pegbox.methods._soft_export",
        "table_markdown": "pegbox.methods._table",
        "table_rows": "pegbox.methods._table",
        "Bottleneck": "pegbox.methods.bottleneck",
        "ClosedForm": "pegbox.methods.closed_form",
        "FewShot": "pegbox.methods.few_shot",
        "IA3": "pegbox.methods.ia3",
        "LoRA": "pegbox.methods.lora",
        "QLoRA": "pegbox.methods.qlora",
        "Head": "pegbox.methods.head",
        "Full": "pegbox.methods.full",
        "Prefix": "pegbox.methods.prefix",
        "ZeroInitAttention": "pegbox.methods.zero_init_attention",
        "PTuning": "pegbox.methods.p_tuning",
        "SoftPrompt": "pegbox.methods.soft_prompt",
        "ZeroShot": "pegbox.methods.zero_shot",
    },
)
