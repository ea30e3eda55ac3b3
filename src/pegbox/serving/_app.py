"""HTTP: FastAPI's routes over a service, and uvicorn under them."""

import asyncio
import importlib.util
import math
import socket
from functools import partial
from typing import TYPE_CHECKING, Any

from pegbox._version import __version__
from pegbox.errors import CapabilityError, InputError, PegboxError, RunError, UsageError, check_whole
from pegbox.serving._service import Service

if TYPE_CHECKING:
    from fastapi import FastAPI
    from fastapi.responses import JSONResponse

BAD_REQUEST, UNPROCESSABLE, FAILED, UNAVAILABLE = 400, 422, 500, 503
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
    from fastapi import FastAPI, Request
    from fastapi.concurrency import run_in_threadpool
    from fastapi.responses import JSONResponse
    from pydantic import BaseModel, ConfigDict, Field

    class Asked(BaseModel):
        model_config = ConfigDict(extra="forbid", strict=True)
        rows: list[Any] = Field(description="Objects with a file's columns, or texts, all alike.")
        model: str | None = Field(None, description="Which model; needed where there are several.")
        abstain_above: float | None = Field(None, description="Mark answers less probable than 1 less this.")

    # No pages that load scripts from elsewhere; /openapi.json describes the routes.
    app = FastAPI(title="Pegbox", version=__version__, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.ending = lambda: False
    turn = asyncio.Lock()

    @app.head("/health", include_in_schema=False)
    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/models")
    async def models() -> list[dict[str, Any]]:
        return service.described()

    # Requests wait for their turn without a thread, so that health is told meanwhile.
    @app.post("/predict")
    async def predict(asked: Asked, request: Request) -> JSONResponse:
        async with turn:
            if app.state.ending():
                return _refusal(RunError("the server is being stopped", fix="ask again later"), UNAVAILABLE)
            if await request.is_disconnected():
                return _refusal(RunError("nobody waits for this answer"), UNAVAILABLE)
            one = partial(service.answer, asked.rows, model=asked.model, abstain_above=asked.abstain_above)
            return JSONResponse(_plain(await run_in_threadpool(one)))

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
        return _refusal(error, UNPROCESSABLE if wrong else FAILED)

    @app.exception_handler(RequestValidationError)
    async def unread(_: Any, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0]
        places = [part for part in first["loc"] if part != "body"]
        broken = first["type"] == "json_invalid"
        reason = first.get("ctx", {}).get("error", "") if broken else first["msg"]
        where = f"character {places[0] + 1} of the body" if broken else ".".join(map(str, places))
        return _refusal(_unreadable(str(reason), where), UNPROCESSABLE)

    @app.exception_handler(HTTPException)
    async def elsewhere(request: Request, error: HTTPException) -> JSONResponse:
        if error.status_code == BAD_REQUEST:
            return _refusal(_unreadable(str(error.detail), ""), UNPROCESSABLE)
        told = UsageError(
            str(error.detail),
            where=f"{request.method} {request.url.path}",
            expected="POST /predict, GET /models, GET /health, GET /openapi.json",
            fix="see GET /openapi.json",
        )
        return _refusal(told, error.status_code, error.headers)

    @app.exception_handler(Exception)
    async def failed(_: Any, error: Exception) -> JSONResponse:
        return _refusal(RunError(f"the server failed: {type(error).__name__}"), FAILED)


def _unreadable(reason: str, where: str) -> InputError:
    return InputError(
        f"the request cannot be read: {reason}",
        where=where or "the body",
        expected='a JSON object: "rows", a list; where wanted "model", a name, and "abstain_above", a number',
        fix='send for example {"rows": ["a text"]} with the header Content-Type: application/json',
    )


def _refusal(error: PegboxError, status: int, headers: Any = None) -> "JSONResponse":
    from fastapi.responses import JSONResponse

    said = {"what": error.what, "where": error.where, "expected": error.expected, "fix": error.fix}
    told = {name: text for name, text in said.items() if text}
    return JSONResponse(_plain({"error": told}), status, headers)


def _plain(value: Any) -> Any:
    """What JSON in UTF-8 can say: a number that is not finite becomes null, half a character its escape."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
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
            fix="choose another --port, 0 for a free one, or another --host",
        ) from None
    return opened


def run(service: Service, opened: socket.socket) -> None:
    """Answer requests until interrupted; then finish the one being answered, and refuse those that wait.

    Raises:
        CapabilityError: Without FastAPI and uvicorn.
    """
    app = application(service)
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    app.state.ending = lambda: server.should_exit
    try:
        server.run(sockets=[opened])
    finally:
        opened.close()
