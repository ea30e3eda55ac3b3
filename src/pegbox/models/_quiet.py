import logging as levels
import os
from collections.abc import Iterator
from contextlib import contextmanager


def quiet_libraries() -> None:
    """Keep other libraries' banners and progress bars off the terminal; their errors still show."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


@contextmanager
def quietly() -> Iterator[None]:
    """As :func:`quiet_libraries` for the time of a block, then as before."""
    # The hub's own module: its first import sets the level, and would undo one that was set before.
    from huggingface_hub.utils import logging as hub
    from transformers.utils import logging

    verbosity, bars, hub_verbosity = (
        logging.get_verbosity(),
        logging.is_progress_bar_enabled(),
        hub.get_verbosity(),
    )
    # Critical only: what goes wrong is raised, and its report would stand above our own message, as would
    # the hub's retries.
    logging.set_verbosity(levels.CRITICAL)
    hub.set_verbosity(levels.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        hub.set_verbosity(hub_verbosity)
        if bars:
            logging.enable_progress_bar()
