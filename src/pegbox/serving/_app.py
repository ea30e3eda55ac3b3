"""HTTP: FastAPI's routes over a service, and uvicorn under them."""

import importlib.util
import math
import socket
from typing import TYPE_CHECKING, Any

from pegbox._version import __version__
from pegbox.errors import CapabilityError, InputError, PegboxError, UsageError, check_whole
from pegbox.serving._service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI

UNPROCESSABLE, FAILED = 422, 500
BACKLOG, LAST_PORT = 128, 65_535


def check_installed() -> None:
    """Raise CapabilityError where what serves HTTP is not installed."""
    missing = [name for name in ("fastapi", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise CapabilityError(
            f"serving needs what is not installed: {', '.join(missing)}",
            expected="the extra serve",
            fix="pip install 'pegbox[serve]'",
        )


def application(service: Service) -> "FastAPI":
    """The service as an ASGI application: ``POST /predict``, ``GET /models``, ``GET /health``.

    A request that cannot be answered gets status 422 and ``{"error": {"what", "where", "expected", "fix"}}``,
    the same words as on the command line; a run that failed gets 500.

    Raises:
        CapabilityError: Without FastAPI.
    """
    check_installed()
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, ConfigDict, Field

    class Asked(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        rows: list[Any] = Field(description="Objects with a file's columns, or texts, all alike.")
        model: str | None = Field(None, description="Which model; needed where there are several.")
        abstain_above: float | None = Field(None, description="Mark answers less probable than 1 less this.")

    # No pages that load scripts from elsewhere; /openapi.json describes the routes.
    app = FastAPI(title="Pegbox", version=__version__, docs_url=None, redoc_url=None)

    # Plain functions run in threads, so that health is told while a model answers.
    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/models")
    def models() -> list[dict[str, Any]]:
        return service.described()

    @app.post("/predict")
    def predict(asked: Asked) -> JSONResponse:
        found = service.answer(asked.rows, model=asked.model, abstain_above=asked.abstain_above)
        return JSONResponse(_finite(found))

    _tell_errors(app)
    return app


def _tell_errors(app: "FastAPI") -> None:
    """Make every refusal a reply of the same shape."""
    from fastapi import Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import JSONResponse
    from starlette.exceptions import HTTPException

    @app.exception_handler(PegboxError)
    async def refused(_: Any, error: PegboxError) -> JSONResponse:
        wrong = isinstance(error, InputError | UsageError | CapabilityError)
        return JSONResponse(_told(error), UNPROCESSABLE if wrong else FAILED)

    @app.exception_handler(RequestValidationError)
    async def unread(_: Any, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "body")
        told = InputError(
            f"the request cannot be read: {first['msg']}",
            where=where or "the request's body",
            expected='{"rows": [...]}, and "model" and "abstain_above" where wanted',
            fix="send JSON with the header Content-Type: application/json",
        )
        return JSONResponse(_told(told), UNPROCESSABLE)

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> JSONResponse:
        told = UsageError(
            str(error.detail),
            where=f"{request.method} {request.url.path}",
            expected="POST /predict, GET /models, GET /health, GET /openapi.json",
        )
        return JSONResponse(_told(told), error.status_code, error.headers)


def _told(error: PegboxError) -> dict[str, Any]:
    said = {"what": error.what, "where": error.where, "expected": error.expected, "fix": error.fix}
    return {"error": {name: text for name, text in said.items() if text}}


def _finite(value: Any) -> Any:
    """JSON has no infinity; what is not finite becomes null."""
    if isinstance(value, dict):
        return {name: _finite(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens; port 0 takes a free one.

    Raises:
        UsageError: Where it cannot.
    """
    check_whole(port, 0, "port")
    try:
        if port > LAST_PORT:  # the system would take what is left of a division
            raise OverflowError(f"ports go up to {LAST_PORT}")
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        opened = socket.socket(family, kind, protocol)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind(address)
            opened.listen(BACKLOG)
        except OSError:
            opened.close()
            raise
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(
            f"nothing can be served there: {reason}",
            where=f"--host {host} --port {port}",
            expected="an address of this machine and a free port up to 65535",
            fix="choose another --port, or 0 for a free one",
        ) from None
    return opened


def run(service: Service, opened: socket.socket) -> None:
    """Answer requests until interrupted; requests that are being answered then are finished.

    Raises:
        CapabilityError: Without FastAPI and uvicorn.
    """
    app = application(service)
    import uvicorn

    configuration = uvicorn.Config(app, log_level="warning", access_log=False)
    try:
        uvicorn.Server(configuration).run(sockets=[opened])
    finally:
        opened.close()
