"""The application: routes over one live recommender."""

import asyncio
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from fastapi import FastAPI, Query
from fastapi.responses import FileResponse, Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from dllm2rec.core.errors import UserError
from dllm2rec.serving.http.gate import KEYED, Gate
from dllm2rec.serving.http.live import Live
from dllm2rec.serving.http.metrics import Metrics
from dllm2rec.serving.http.models import (
    MAX_K,
    Example,
    Examples,
    Id,
    Item,
    Items,
    RecommendRequest,
    RecommendResponse,
    Status,
)
from dllm2rec.serving.http.problems import Problem, add_problems, described
from dllm2rec.serving.http.settings import ServeSettings
from dllm2rec.serving.recommender import Recommendation, Recommender
from dllm2rec.serving.titles import search_titles

Result = TypeVar("Result")

PAGE = Path(__file__).parent / "page"
SCORES_INLINE = 1_000_000  # below, a switch to a thread costs more than it frees
SCORES_AN_ITEM = 100  # to find and write an item of an answer takes as long as so many scores


def create_app(settings: ServeSettings, *, reloaded: Callable[[], object] = int) -> FastAPI:
    """Build the application of one worker.

    Args:
        settings: what to serve, and the limits.
        reloaded: called after a request made this worker reload, to tell the others.

    Raises:
        UserError: a bundle is none, or damaged.
    """
    live = Live(settings.bundle, settings.compare, approximate=settings.approximate)
    metrics = Metrics()
    metrics.serve(live.now.main.version)
    app = FastAPI(
        title="dllm2rec",
        version=version("dllm2rec"),
        description="What comes next, from a small model that a large one taught.",
        redoc_url=None,
        docs_url=None,
    )
    app.state.live = live
    app.state.metrics = metrics
    add_problems(app)
    app.add_middleware(Gate, settings=settings, metrics=metrics)
    aside = _Aside()
    _add_answers(app, live, metrics, aside)
    _add_items(app, live, aside)
    _add_operations(app, live, metrics, settings, reloaded)
    app.mount("/static", StaticFiles(directory=PAGE), name="static")

    @app.get("/", include_in_schema=False)
    async def page() -> FileResponse:
        return FileResponse(PAGE / "index.html")

    _describe(app, keyed=settings.api_key is not None)
    return app


class _Aside:
    """Computes beside the event loop, as much at once as there are processors.

    What a request that ran out of time began goes on, and holds its thread: so slow requests that come again and again
    wait for each other, and don't pile up. One that still waits when its time is out is never begun.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(os.cpu_count())

    async def run(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)


def _add_answers(app: FastAPI, live: Live, metrics: Metrics, aside: _Aside) -> None:
    @app.post(
        "/v1/recommend",
        summary="What comes next after a history",
        response_model=RecommendResponse,
        responses=described(400, 401, 404, 413, 415, 422, 503),
    )
    async def recommend(
        asked: RecommendRequest,
        model: Annotated[
            Literal["compare"] | None, Query(description="Ask the bundle shown beside the main one.")
        ] = None,
    ) -> Response:
        recommender, histories = _chosen(live, model), asked.histories
        candidates = asked.candidates
        unknown = [] if candidates is None else [one for one in candidates if not recommender.knows(one)]
        if unknown and candidates is not None:
            candidates = [one for one in candidates if recommender.knows(one)]

        def answer() -> tuple[list[Recommendation], bytes]:
            found = recommender.recommend(histories, k=asked.k, exclude_seen=asked.exclude_seen, candidates=candidates)
            told = {
                "version": recommender.version,
                "results": [vars(one) for one in found],
                "unknown_candidates": unknown,
            }
            return found, _ascii(told)

        if len(histories) * (len(recommender.bundle.ids) + SCORES_AN_ITEM * asked.k) <= SCORES_INLINE:
            results, written = answer()
        else:
            results, written = await aside.run(answer)
        strange = sum(len(one.unknown) for one in results)
        metrics.items.labels("no").inc(strange)
        metrics.items.labels("yes").inc(sum(map(len, histories)) - strange)
        metrics.fallbacks.inc(sum(one.fallback for one in results))
        return Response(written, media_type="application/json")


def _ascii(content: object) -> bytes:
    """Write JSON in which unknown ids go back as they came, also those that no UTF-8 can hold."""
    return json.dumps(content, allow_nan=False, separators=(",", ":")).encode()


def _chosen(live: Live, model: str | None) -> Recommender:
    served = live.now
    if model is None:
        return served.main
    if served.other is None:
        raise HTTPException(404, "no bundle is shown beside the main one")
    return served.other


def _add_items(app: FastAPI, live: Live, aside: _Aside) -> None:
    limited = Query(ge=1, le=MAX_K)

    @app.get("/v1/items", summary="Items whose title holds a text", responses=described(401, 422, 503))
    async def search(query: Annotated[str, Query(max_length=200)], k: Annotated[int, limited] = 10) -> Items:
        recommender = live.now.main
        rows = await aside.run(partial(search_titles, recommender.bundle.titles, query, k))
        ids, titles = recommender.bundle.ids, recommender.bundle.titles
        return Items(version=recommender.version, items=[Item(id=ids[row], title=titles[row]) for row in rows])

    @app.get("/v1/examples", summary="Histories of real users, to look at", responses=described(401, 503))
    async def examples() -> Examples:
        recommender = live.now.main

        def shown(identifier: Id) -> Item:
            return Item(id=identifier, title=recommender.title(identifier))

        found = [
            Example(history=[shown(one) for one in row["history"]], next=shown(row["next"]), wrote=row["wrote"])
            for row in recommender.bundle.examples
        ]
        return Examples(version=recommender.version, examples=found)

    @app.get("/v1/items/{item:path}/similar", summary="Items like one", responses=described(401, 404, 422, 503))
    async def similar(item: str, k: Annotated[int, limited] = 20) -> Items:
        recommender = live.now.main
        found = recommender.identify(item)
        if found is None:
            raise HTTPException(404, "no such item")
        near = await aside.run(partial(recommender.similar, found, k=k))
        items = [
            Item(id=one, title=title, score=score)
            for one, title, score in zip(near.items, near.titles, near.scores, strict=True)
        ]
        return Items(version=recommender.version, items=items)

    @app.get("/v1/items/{item:path}", summary="One item", responses=described(401, 404, 422, 503))
    async def item(item: str) -> Item:
        recommender = live.now.main
        found = recommender.identify(item)
        if found is None:
            raise HTTPException(404, "no such item")
        return Item(id=found, title=recommender.title(found))


def _describe(app: FastAPI, *, keyed: bool) -> None:
    """Let OpenAPI tell what the routes alone don't: how a problem looks, and what needs the key."""
    of_routes = app.openapi

    def openapi() -> dict[str, Any]:
        document = of_routes()
        components = document["components"]
        components["schemas"][Problem.__name__] = Problem.model_json_schema()
        if keyed:
            components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
            for path, operations in document["paths"].items():
                for operation in operations.values() if path.startswith(KEYED) else ():
                    operation["security"] = [{"key": []}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _add_operations(
    app: FastAPI, live: Live, metrics: Metrics, settings: ServeSettings, reloaded: Callable[[], object]
) -> None:
    def status() -> Status:
        now = live.now
        return Status(
            status="ok",
            version=now.main.version,
            student=now.main.bundle.manifest.student,
            num_items=len(now.main.bundle.ids),
            compare=None if now.other is None else now.other.bundle.manifest.student,
            key=settings.api_key is not None,
        )

    @app.head("/health", include_in_schema=False)  # as some load balancers ask
    @app.get("/health", summary="The process is alive")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.head("/ready", include_in_schema=False)
    @app.get("/ready", summary="A bundle answers, and which")
    async def ready() -> Status:
        return status()

    @app.get("/metrics", summary="Figures for Prometheus", response_class=Response)
    async def figures() -> Response:
        return Response(metrics.render(), media_type="text/plain; version=0.0.4; charset=utf-8")

    if settings.api_key is None:
        return

    @app.post("/admin/reload", summary="Read the bundle again and swap", responses=described(401, 409, 503))
    async def reload() -> Status:
        try:
            await asyncio.to_thread(live.reload)
        except UserError as error:
            raise HTTPException(409, f"not swapped: {error}") from error
        metrics.serve(live.now.main.version)
        reloaded()
        return status()
