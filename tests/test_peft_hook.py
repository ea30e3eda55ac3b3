"""PEFT learns our kinds of adapters whichever package is imported first, and nothing heavy loads early."""

import subprocess
import sys

import pytest

KNOWN = "from peft import PeftType; from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING as known; "
CHECK = "assert PeftType('PEGBOX_BOTTLENECK') in known and 'PEGBOX_BOTTLENECK' in list(PeftType)"


@pytest.mark.parametrize(
    "first",
    [
        "import pegbox, peft; ",
        "import peft, pegbox; ",
        *(
            pytest.param(line, marks=pytest.mark.slow)
            for line in (
                "import pegbox, importlib.util; importlib.util.find_spec('peft'); import peft; ",
                "import pegbox, transformers.utils as u; assert u.is_peft_available(); import peft; ",
                "import pegbox; from peft.utils import PeftType; ",
            )
        ),
    ],
)
def test_own_kinds_are_known(first: str) -> None:
    run = subprocess.run([sys.executable, "-c", first + KNOWN + CHECK], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_hook_leaves_no_trace_and_loads_nothing() -> None:
    code = (
        "import sys, pegbox; assert not {'torch', 'peft', 'transformers'} & set(sys.modules); import peft; "
        "assert not [f for f in sys.meta_path if 'pegbox' in type(f).__module__]; "
        "import importlib; assert type(peft.__spec__.loader).__module__ != 'pegbox._peft_hook'"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
