"""The HTTP application: answers, refusals, what it never does."""

import asyncio
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from serving_helpers import RANDOM_ITEMS as ITEMS

from dllm2rec.core.errors import UserError
from dllm2rec.core.files import hash_file
from dllm2rec.serving.bundle import version_of
from dllm2rec.serving.http import app as application
from dllm2rec.serving.http import gate
from dllm2rec.serving.http.app import create_app
from dllm2rec.serving.http.live import Live
from dllm2rec.serving.http.settings import ServeSettings
from dllm2rec.serving.recommender import Recommender

KEY = "a key"
WITH_KEY = {"authorization": f"Bearer {KEY}"}


@pytest.fixture(scope="module")
def client(bundles: list[Path]) -> Iterator[TestClient]:
    with TestClient(create_app(ServeSettings(bundle=bundles[0], compare=bundles[1], max_body=50_000))) as found:
        yield found


def ask(client: TestClient, **body: Any) -> Any:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_it_answers_what_the_recommender_answers(client: TestClient, bundles: list[Path]) -> None:
    histories = [[1, 2, 3], [7], [99, 4, "x"]]
    expected = Recommender.load(bundles[0]).recommend(histories, k=4, exclude_seen=True)
    found = ask(client, histories=histories, k=4, exclude_seen=True)
    assert found["results"] == [vars(one) for one in expected]
    assert found["results"][2]["unknown"] == [99, "x"]
    alone = ask(client, histories=[[1, 2, 3]], k=4, exclude_seen=True)["results"][0]
    assert alone["items"] == found["results"][0]["items"]
    assert alone["scores"] == pytest.approx(found["results"][0]["scores"], rel=1e-5)
    some = ask(client, histories=[[1]], k=4, candidates=[5, 6, "no"])
    assert sorted(some["results"][0]["items"]) == [5, 6]
    assert some["unknown_candidates"] == ["no"]
    assert ask(client, histories=[[1], []], candidates=["no"])["results"][0]["items"] == []
    assert ask(client, histories=[["1"]], k=4, candidates=["5", 6])["results"] == some["results"]


def test_the_second_bundle_answers_when_asked(client: TestClient, bundles: list[Path]) -> None:
    other = client.post("/v1/recommend?model=compare", json={"histories": [[1, 2]]}).json()
    assert other["version"] == Recommender.load(bundles[1]).version
    assert other["results"][0]["items"] != ask(client, histories=[[1, 2]])["results"][0]["items"]
    assert client.post("/v1/recommend?model=third", json={"histories": [[1, 2]]}).status_code == 422
    alone = TestClient(create_app(ServeSettings(bundle=bundles[0])))
    assert alone.post("/v1/recommend?model=compare", json={"histories": [[1, 2]]}).status_code == 404


def test_nothing_known_falls_back_to_popularity(client: TestClient) -> None:
    for history in ([], ["no", "such"]):
        found = ask(client, histories=[history], k=3)["results"][0]
        assert found["fallback"] is True
        assert found["items"] == [ITEMS - 1, ITEMS - 2, ITEMS - 3]


def test_unknown_ids_go_back_as_they_came(client: TestClient) -> None:
    content = b'{"histories": [["\\ud800", "\\u00e9", 7]]}'  # half of a pair, which UTF-8 can't hold
    answer = client.post("/v1/recommend", content=content, headers={"content-type": "application/json"})
    assert answer.status_code == 200
    assert answer.json()["results"][0]["unknown"] == ["\ud800", "\u00e9"]


def test_items(client: TestClient, bundles: list[Path]) -> None:
    assert client.get("/v1/items", params={"query": "ITEM 5", "k": 3}).json()["items"][0]["title"] == "item 5"
    assert client.get("/v1/items/5").json() == {"id": 5, "title": "item 5", "score": None}
    near = client.get("/v1/items/5/similar", params={"k": 3}).json()["items"]
    table = Recommender.load(bundles[0]).bundle.output
    unit = table / (table**2).sum(axis=1, keepdims=True) ** 0.5
    cosines = unit @ unit[5]
    cosines[5] = -2
    assert [one["id"] for one in near] == (-cosines).argsort()[:3].tolist()
    assert near[0]["score"] == pytest.approx(cosines.max(), abs=1e-6)
    for path in ("/v1/items/5000", "/v1/items/x%2Fy/similar", "/nothing"):
        refused = client.get(path)
        assert refused.status_code == 404
        assert refused.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"histories": [[1]], "k": 0}, 422, "k: "),
        ({"histories": [[1]], "k": -1}, 422, "k: "),
        ({"histories": [[1]], "k": 10**9}, 422, "1000"),
        ({"histories": [[1]], "k": 10**400}, 422, "k: "),
        ({"histories": [[1]], "k": 2.5}, 422, "k: "),
        ({"histories": [[1.5]]}, 422, "histories.0.0"),
        ({"histories": [[[1]]]}, 422, "histories.0.0"),
        ({"histories": [[True]]}, 422, "histories.0.0: Input should be an id: text or a whole number"),
        ({"histories": [1]}, 422, "histories.0"),
        ({}, 422, "histories"),
        ({"histories": [[1]], "top": 3}, 422, "top"),
        ({"histories": [[1]] * 257}, 422, "256"),
        ({"histories": [[1] * 10_001]}, 422, "10000"),
        ({"histories": [["x" * 60_000]]}, 413, "50000 bytes"),
    ],
)
def test_wrong_requests_get_one_clear_answer(body: dict[str, Any], status: int, words: str, client: TestClient) -> None:
    answer = client.post("/v1/recommend", json=body)
    assert answer.status_code == status
    told = answer.json()
    assert told.keys() == {"title", "status", "detail"}
    assert words in told["detail"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[" * 9_000,
        b'{"histories": [[NaN]]}',
        b'{"histories": [["\xff"]]}',
        b'{"histories": [[' + b"9" * 6_000 + b"]]}",
        b"null",
    ],
)
def test_garbage_is_refused(content: bytes, client: TestClient) -> None:
    answer = client.post("/v1/recommend", content=content, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


def test_what_is_wrong_with_a_body_is_told(client: TestClient) -> None:
    body = b'{"histories": [[1]]}'
    unnamed = client.post("/v1/recommend", content=body, headers={"content-type": "application/x-www-form-urlencoded"})
    assert unnamed.status_code == 415
    assert unnamed.json()["detail"] == "send the body with the header Content-Type: application/json"
    broken = client.post("/v1/recommend", content=body[:-1], headers={"content-type": "application/json"})
    assert broken.status_code == 400
    assert broken.json()["detail"].startswith("the body is not JSON: ")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: (
            st.lists(inner, max_size=4)
            | st.dictionaries(
                st.sampled_from(["history", "histories", "k", "candidates", "exclude_seen", "x"]), inner, max_size=4
            )
        ),
        max_leaves=12,
    )
)
def test_no_body_is_a_defect_of_ours(body: Any, client: TestClient) -> None:
    answer = client.post(
        "/v1/recommend", content=json.dumps(body).encode(), headers={"content-type": "application/json"}
    )
    assert answer.status_code in {200, 400, 413, 422}, answer.text


def test_a_body_that_does_not_say_its_length_is_limited_too(client: TestClient) -> None:
    def parts() -> Iterator[bytes]:
        yield b'{"histories": [["'
        yield from (b"x" * 1_000 for _ in range(60))
        yield b'"]]}'

    answer = client.post("/v1/recommend", content=parts(), headers={"content-type": "application/json"})
    assert answer.status_code == 413


def test_what_openapi_says_is_what_happens(client: TestClient) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", client.app)
    operations = [found.ok() for found in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/v1/recommend", "/v1/items/{item}/similar", "/metrics"}
    for operation in operations:

        @settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def conforms(case: Any) -> None:
            case.call_and_validate()

        conforms()


def test_with_a_key_nothing_but_the_page_and_the_probes_is_open(bundles: list[Path], tmp_path: Path) -> None:
    bundle = shutil.copytree(bundles[0], tmp_path / "bundle")
    client = TestClient(create_app(ServeSettings(bundle=bundle, api_key=SecretStr(KEY))))
    refused = client.post("/v1/recommend", json={"histories": [[1]]})
    assert (refused.headers["www-authenticate"], "retry-after" in refused.headers) == ("Bearer", False)
    for headers in (
        {},
        {"authorization": "Bearer no"},
        {"authorization": f"Basic {KEY}"},
        {"authorization": "Bearer ä".encode()},
    ):
        assert client.post("/v1/recommend", json={"histories": [[1]]}, headers=headers).status_code == 401  # type: ignore[arg-type]
        assert client.post("/admin/reload", headers=headers).status_code == 401  # type: ignore[arg-type]
    for scheme in ("Bearer", "bearer"):
        headers = {"authorization": f"{scheme} {KEY}"}
        assert client.post("/v1/recommend", json={"histories": [[1]]}, headers=headers).status_code == 200
    for path in ("/", "/health", "/ready", "/metrics", "/static/page.js"):
        assert client.get(path).status_code == 200


def test_load_balancers_may_ask_for_the_head_alone(client: TestClient) -> None:
    described = client.get("/openapi.json").json()["paths"]
    for path in ("/health", "/ready"):
        assert client.head(path).status_code == 200
        assert described[path].keys() == {"get"}
    assert client.head("/v1/examples").status_code == 405


def test_a_bundle_is_swapped_and_a_broken_one_refused(bundles: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "current"
    place.symlink_to(bundles[0])
    client = TestClient(
        create_app(ServeSettings(bundle=place, api_key=SecretStr(KEY)), reloaded=lambda: told.append(1))
    )
    told: list[int] = []
    before = client.get("/ready").json()["version"]
    place.unlink()
    place.symlink_to(bundles[1])
    swapped = client.post("/admin/reload", headers=WITH_KEY)
    assert swapped.status_code == 200
    assert swapped.json()["version"] == client.get("/ready").json()["version"] != before
    assert told == [1]
    broken = shutil.copytree(bundles[0], tmp_path / "broken")
    (broken / "encoder.onnx").write_bytes(b"cut")
    place.unlink()
    place.symlink_to(broken)
    refused = client.post("/admin/reload", headers=WITH_KEY)
    assert refused.status_code == 409
    assert "encoder.onnx" in refused.json()["detail"]
    assert client.get("/ready").json()["version"] == swapped.json()["version"]
    assert client.post("/v1/recommend", json={"histories": [[1]]}, headers=WITH_KEY).status_code == 200


def test_what_is_no_bundle_any_more_is_told_in_the_log(
    bundles: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = shutil.copytree(bundles[0], tmp_path / "place")
    live = Live(place, None)
    assert live.reload(if_outdated=True) is live.now
    assert capsys.readouterr().err == ""
    (place / "bundle.json").unlink()
    for _ in range(2):
        with pytest.raises(UserError):
            live.reload(if_outdated=True)
        assert capsys.readouterr().err.startswith("not swapped: ")
        (place / "bundle.json").mkdir(exist_ok=True)  # which nobody can read


def test_a_bundle_that_is_replaced_while_it_is_read_is_read_again(
    bundles: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, tried = Path(shutil.copytree(bundles[0], tmp_path / "place")), []

    def replaced(path: Path, hash_of: Callable[[Path], str] = hash_file) -> str:
        if path.name == "table.safetensors" and not tried:  # the hashes of the manifest are of the old one
            tried.append(1)
            shutil.rmtree(place)
            shutil.copytree(bundles[1], place)
        return hash_of(path)

    monkeypatch.setattr("dllm2rec.serving.bundle.hash_file", replaced)
    assert Recommender.load(place).version == version_of(bundles[1])
    assert tried
    (place / "table.safetensors").write_bytes(b"cut")
    with pytest.raises(UserError, match=r"table\.safetensors: cut or altered"):
        Recommender.load(place)


def test_a_defect_leaves_as_a_problem_too(bundles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    client = TestClient(create_app(ServeSettings(bundle=bundles[0])), raise_server_exceptions=False)
    monkeypatch.setattr(Recommender, "recommend", broken)
    answer = client.post("/v1/recommend", json={"histories": [[1]]})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["title"] == "Internal Server Error"


def test_a_reload_may_take_longer_than_an_answer(bundles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    settings = ServeSettings(bundle=bundles[0], api_key=SecretStr(KEY), timeout=0.2)
    client = TestClient(create_app(settings, reloaded=lambda: told.append(1)))
    load = Live._load

    def slow(self: Live) -> Any:
        time.sleep(0.5)
        return load(self)

    monkeypatch.setattr(Live, "_load", slow)
    assert client.post("/admin/reload", headers=WITH_KEY).status_code == 200
    assert told == [1]


def test_a_worker_knows_that_another_bundle_lies_there(bundles: list[Path], tmp_path: Path) -> None:
    place = tmp_path / "current"
    place.symlink_to(bundles[0])
    live = Live(place, bundles[1])
    before = live.now
    assert live.reload(if_outdated=True) is before
    place.unlink()
    place.symlink_to(bundles[1])
    after = live.reload(if_outdated=True)
    assert after.main.version != before.main.version
    assert live.reload(if_outdated=True) is after


def test_slow_requests_that_come_again_wait_for_each_other(
    bundles: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    computing, most, lock, ended = 0, 0, threading.Lock(), threading.Event()

    def slow(*_: Any, **__: Any) -> list[Any]:
        nonlocal computing, most
        with lock:
            computing += 1
            most = max(most, computing)
        ended.wait(30)
        with lock:
            computing -= 1
        return []

    monkeypatch.setattr(application, "SCORES_INLINE", 0)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    monkeypatch.setattr(Recommender, "recommend", slow)
    with TestClient(create_app(ServeSettings(bundle=bundles[0], timeout=0.2))) as client, ThreadPoolExecutor(8) as pool:
        try:
            for _ in range(2):
                asked = [pool.submit(client.post, "/v1/recommend", json={"histories": [[1]]}) for _ in range(8)]
                assert {one.result().status_code for one in asked} == {503}
        finally:
            ended.set()
    assert most == 2


def test_who_does_not_read_an_answer_keeps_no_place(bundles: list[Path]) -> None:
    app = create_app(ServeSettings(bundle=bundles[0], max_waiting=1, timeout=0.2))
    asked = {"type": "http.request", "body": b'{"histories": [[1]]}', "more_body": False}
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/v1/recommend",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }

    async def receive() -> Any:
        return asked

    async def never(_message: Any) -> None:
        await asyncio.Event().wait()

    async def ask_twice() -> list[int]:
        statuses: list[int] = []

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                statuses.append(message["status"])

        unread = asyncio.create_task(app(dict(scope), receive, never))
        await asyncio.sleep(0.05)
        await app(dict(scope), receive, send)  # while the first still has its time
        await asyncio.wait_for(unread, 5)
        await app(dict(scope), receive, send)
        return statuses

    assert asyncio.run(ask_twice()) == [503, 200]


def test_who_does_not_read_a_refusal_is_left(bundles: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gate, "PATIENCE", 0.05)
    app = create_app(ServeSettings(bundle=bundles[0], api_key=SecretStr(KEY)))
    scope = {"type": "http", "method": "POST", "path": "/v1/recommend", "query_string": b"", "headers": []}

    async def never(*_: Any) -> Any:
        await asyncio.Event().wait()

    asyncio.run(asyncio.wait_for(app(scope, never, never), 5))


def test_an_answer_that_takes_long_to_write_is_written_aside(bundles: list[Path]) -> None:
    threads: list[str] = []
    write = application._ascii

    def watched(content: object) -> bytes:
        threads.append(threading.current_thread().name)
        return write(content)

    client = TestClient(create_app(ServeSettings(bundle=bundles[0])))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(application, "_ascii", watched)
        for histories, k in (([[1]], 5), ([[1]] * 100, 1000)):
            assert client.post("/v1/recommend", json={"histories": histories, "k": k}).status_code == 200
    assert ["ThreadPoolExecutor" in name for name in threads] == [False, True]


def test_without_a_key_nobody_administers(client: TestClient) -> None:
    assert client.post("/admin/reload").status_code == 404


def test_what_prometheus_reads(bundles: list[Path]) -> None:
    client = TestClient(create_app(ServeSettings(bundle=bundles[0])))
    ask(client, histories=[[1, 2, "no"], []])
    client.post("/v1/recommend", json={})
    text = client.get("/metrics").text
    for line in (
        'dllm2rec_requests_total{route="/v1/recommend",status="200"} 1.0',
        'dllm2rec_requests_total{route="/v1/recommend",status="422"} 1.0',
        'dllm2rec_history_items_total{known="no"} 1.0',
        'dllm2rec_history_items_total{known="yes"} 2.0',
        "dllm2rec_fallbacks_total 1.0",
        f'dllm2rec_bundle{{version="{Recommender.load(bundles[0]).version}"}} 1.0',
    ):
        assert line in text.splitlines()


def test_a_broken_bundle_is_not_served(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a bundle"):
        create_app(ServeSettings(bundle=tmp_path))
