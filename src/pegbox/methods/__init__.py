"""Methods: one module each, and the registry with the capability table."""

from typing import TYPE_CHECKING

from pegbox._lazy import lazy

if TYPE_CHECKING:
    from pegbox.methods._checks import boolean, check_options, number, positive_int
    from pegbox.methods._layers import block_names, in_out_features, lies_in, linear_layers
    from pegbox.methods._least_squares import (
        PENALTY_POINTS,
        SVD_WORK,
        Posterior,
        choose_penalty,
        helmert,
        mean_softmax,
        softmax_moments,
    )
    from pegbox.methods._method import Attached, Capability, Method, Problem, Solved, Solver
    from pegbox.methods._output_layer import Equations
    from pegbox.methods._peft import (
        check_adapter,
        expected_warnings,
        load_adapter,
        save_adapter,
        with_adapter,
    )
    from pegbox.methods._peft_options import common_options, head_parameters
    from pegbox.methods._registry import build, method_of, methods, register
    from pegbox.methods._soft_export import export_prompt_tuning
    from pegbox.methods._streaming import BLOCK_ROWS, SUBSET_ROWS
    from pegbox.methods._table import method_markdown, table_markdown, table_rows
    from pegbox.methods._tuners import register_adapters
    from pegbox.methods._tuners._register import AdapterConfig, peft_type, register_adapter
    from pegbox.methods._tuners._wrapping import WrappingTuner, refuse_merge
    from pegbox.methods.bottleneck import Bottleneck
    from pegbox.methods.closed_form import POSTERIOR_FILE, STREAM_ROWS, ClosedForm
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
    "BLOCK_ROWS",
    "IA3",
    "PENALTY_POINTS",
    "POSTERIOR_FILE",
    "STREAM_ROWS",
    "SUBSET_ROWS",
    "SVD_WORK",
    "AdapterConfig",
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
    "WrappingTuner",
    "ZeroInitAttention",
    "ZeroShot",
    "block_names",
    "boolean",
    "build",
    "check_adapter",
    "check_options",
    "choose_penalty",
    "common_options",
    "expected_warnings",
    "export_prompt_tuning",
    "head_parameters",
    "helmert",
    "in_out_features",
    "lies_in",
    "linear_layers",
    "load_adapter",
    "mean_softmax",
    "method_markdown",
    "method_of",
    "methods",
    "number",
    "peft_type",
    "positive_int",
    "refuse_merge",
    "register",
    "register_adapter",
    "register_adapters",
    "save_adapter",
    "softmax_moments",
    "table_markdown",
    "table_rows",
    "with_adapter",
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
        "method_markdown": "pegbox.methods._table",
        "method_of": "pegbox.methods._registry",
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
        "boolean": "pegbox.methods._checks",
        "check_options": "pegbox.methods._checks",
        "number": "pegbox.methods._checks",
        "positive_int": "pegbox.methods._checks",
        "block_names": "pegbox.methods._layers",
        "in_out_features": "pegbox.methods._layers",
        "lies_in": "pegbox.methods._layers",
        "linear_layers": "pegbox.methods._layers",
        "PENALTY_POINTS": "pegbox.methods._least_squares",
        "SVD_WORK": "pegbox.methods._least_squares",
        "choose_penalty": "pegbox.methods._least_squares",
        "expected_warnings": "pegbox.methods._peft",
        "with_adapter": "pegbox.methods._peft",
        "common_options": "pegbox.methods._peft_options",
        "head_parameters": "pegbox.methods._peft_options",
        "BLOCK_ROWS": "pegbox.methods._streaming",
        "SUBSET_ROWS": "pegbox.methods._streaming",
        "register_adapters": "pegbox.methods._tuners",
        "AdapterConfig": "pegbox.methods._tuners._register",
        "peft_type": "pegbox.methods._tuners._register",
        "register_adapter": "pegbox.methods._tuners._register",
        "WrappingTuner": "pegbox.methods._tuners._wrapping",
        "refuse_merge": "pegbox.methods._tuners._wrapping",
        "POSTERIOR_FILE": "pegbox.methods.closed_form",
        "STREAM_ROWS": "pegbox.methods.closed_form",
    },
)
