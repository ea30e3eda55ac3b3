from pathlib import Path
from typing import Literal

from pegbox.cli._options import names, say


def serve(
    tuned: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    model: str | None = None,
    device: str = "auto",
    too_long: Literal["shorten", "error"] = "shorten",
    max_rows: int = 256,
) -> None:
    """Answer rows over HTTP with one or several tuned models, until Ctrl-C: POST /predict, GET /models.

    Needs the extra serve. Nobody is asked who they are: beyond this machine it belongs behind a server that
    does.

    Args:
        tuned: Folder that pegbox fit wrote, or several with commas between them, each served under its
            folder's name; those of one base share its weights.
        host: Address to listen at; 0.0.0.0 is all of this machine's.
        port: Port to listen at; 0 takes a free one.
        model: Where the base lies now, when its name no longer leads there.
        device: auto, cpu, cuda or mps.
        too_long: What to do with texts that do not fit into the context.
        max_rows: Most rows of one request.
    """
    from pegbox.models import quiet_libraries
    from pegbox.serving import Service, check_installed, listen, run

    check_installed()
    quiet_libraries()
    opened = listen(host, port)
    with opened:
        folders = [Path(name) for name in names(tuned)]
        service = Service.load(
            folders, model=model, max_rows=max_rows, say=say, device=device, too_long=too_long
        )
        shown, at = opened.getsockname()[:2]
        place = f"[{shown}]" if ":" in shown else shown
        say(f"serving {', '.join(service.models)} at http://{place}:{at}; Ctrl-C ends it")
        run(service, opened)
