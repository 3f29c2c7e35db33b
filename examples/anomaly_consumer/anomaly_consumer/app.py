"""The HTTP surface: `uvicorn anomaly_consumer.app:app`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated

from fastapi import FastAPI, HTTPException, Query, Response

from .settings import Settings
from .worker import Worker


def make_app(make_worker: Callable[[], Worker] | None = None) -> FastAPI:
    """The application; its worker starts and stops with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        worker = make_worker() if make_worker else Worker(Settings.from_env())
        app.state.worker = worker
        worker.start()
        try:
            yield
        finally:
            worker.stop()

    app = FastAPI(title="anomaly_consumer", lifespan=lifespan)

    @app.get("/scores")
    def scores(limit: Annotated[int, Query(ge=1, le=1_000)] = 100) -> dict[str, object]:
        worker: Worker = app.state.worker
        with worker.lock:
            return {"items": worker.engines.worst(limit), "total": len(worker.engines)}

    @app.get("/scores/{engine_id}")
    def score(engine_id: str) -> dict[str, object]:
        worker: Worker = app.state.worker
        with worker.lock:
            engine = worker.engines.get(engine_id)
            if engine is None:
                raise HTTPException(404, f"nothing has been heard of engine {engine_id[:64]!r}")
            return engine.as_json(engine_id)

    @app.get("/healthz")
    def healthz(response: Response) -> dict[str, object]:
        worker: Worker = app.state.worker
        well, body = worker.health()
        response.status_code = 200 if well else 503
        return body

    return app


logging.basicConfig(level=logging.INFO, format="time=%(asctime)s level=%(levelname)s target=%(name)s msg=%(message)s")
app = make_app()
