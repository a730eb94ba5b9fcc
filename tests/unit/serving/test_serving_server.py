"""`dllm2rec serve` as a process: signals, workers, swaps under load, and the page in a browser."""

import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from playwright.sync_api import Page, sync_playwright

PROGRAM = Path(sys.executable).with_name("dllm2rec")
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
KEY = "a key"


@contextmanager
def server(bundle: Path, *options: str, key: str | None = None) -> Iterator[tuple[int, "subprocess.Popen[str]"]]:
    """Run the program on a free port; yields the port and the process."""
    environment = {**os.environ, **({} if key is None else {"DLLM2REC_API_KEY": key})}
    with subprocess.Popen(
        [PROGRAM, "serve", bundle, "--port", "0", "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        assert process.stdout is not None
        try:
            port = int(json.loads(process.stdout.readline())["address"].rsplit(":", 1)[1])
            yield port, process
        finally:
            process.terminate()
            process.communicate(timeout=60)


def ask(
    port: int, method: str, path: str, body: object = None, key: str | None = None
) -> tuple[int, dict[str, object]]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": "application/json", **({} if key is None else {"authorization": f"Bearer {key}"})}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    value = json.loads(answer.read())
    connection.close()
    return answer.status, value


def version(port: int) -> object:
    return ask(port, "GET", "/ready")[1]["version"]


def metrics(port: int) -> list[str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    connection.close()
    return text.splitlines()


def workers_of(process: "subprocess.Popen[str]") -> list[int]:
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(pid) for pid in children if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def until(port: int, wanted: set[object]) -> None:
    """Wait until forty answers in a row come from the wanted versions."""
    end = time.monotonic() + 60
    while {version(port) for _ in range(40)} != wanted:
        assert time.monotonic() < end, "the new bundle does not answer"


@pytest.mark.parametrize("workers", [1, 2])
def test_a_swap_loses_no_request(workers: int, bundles: list[Path], tmp_path: Path) -> None:
    place, broken = tmp_path / "current", shutil.copytree(bundles[0], tmp_path / "broken")
    (broken / "table.safetensors").write_bytes(b"cut")

    def point(bundle: Path) -> None:
        (tmp_path / "next").symlink_to(bundle)
        (tmp_path / "next").replace(place)

    point(bundles[0])
    with server(place, "--workers", str(workers), key=KEY) as (port, process):
        process.send_signal(signal.SIGHUP)  # before anyone could obey it
        before = version(port)
        statuses: list[int] = []
        done = threading.Event()

        def keep_asking() -> None:
            while not done.is_set():
                statuses.append(ask(port, "POST", "/v1/recommend", {"histories": [[1, 2]]}, KEY)[0])

        asking = threading.Thread(target=keep_asking)
        asking.start()
        point(bundles[1])
        process.send_signal(signal.SIGHUP)
        end = time.monotonic() + 60
        while version(port) == before:
            assert time.monotonic() < end
        after = version(port)
        until(port, {after})
        while any(line.endswith(" 1.0") for line in metrics(port) if f'dllm2rec_bundle{{version="{before}"' in line):
            assert time.monotonic() < end  # a worker that began with the old one has not swapped it yet
        point(broken)
        assert ask(port, "POST", "/admin/reload", {}, KEY)[0] == 409
        process.send_signal(signal.SIGHUP)
        time.sleep(0.5)
        assert {version(port) for _ in range(20)} == {after}
        point(bundles[0])
        assert ask(port, "POST", "/admin/reload", {}, KEY)[0] == 200
        until(port, {before})
        done.set()
        asking.join()
        assert len(statuses) > 10
        assert set(statuses) == {200}
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=60) == 0
        assert process.stderr is not None
        log = process.stderr.read()
        assert f"serving {after}" in log
        assert "not swapped: " in log


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stop_loses_no_request(workers: int, bundles: list[Path]) -> None:
    with server(bundles[0], "--workers", str(workers)) as (port, process), ThreadPoolExecutor(8) as pool:

        def keep_asking() -> set[int]:
            connection, statuses = http.client.HTTPConnection("127.0.0.1", port, timeout=60), set()
            with suppress(ConnectionRefusedError):
                while True:
                    connection.request("GET", "/v1/items/1")
                    answer = connection.getresponse()
                    answer.read()
                    statuses.add(answer.status)
            return statuses

        version(port)
        asking = [pool.submit(keep_asking) for _ in range(8)]
        time.sleep(1)
        for one in (process.pid, *workers_of(process)):  # as a manager of services does
            os.kill(one, signal.SIGTERM)
        assert [one.result() for one in asking] == [{200}] * 8
        assert process.wait(timeout=60) == 0


def test_a_worker_that_still_starts_is_not_ended_by_a_swap(bundles: list[Path]) -> None:
    with server(bundles[0], "--workers", "2") as (port, process):
        seen: set[int] = set()
        while len(seen) < 2:
            seen.update(workers_of(process))
        for _ in range(10):
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
        version(port)
        assert set(workers_of(process)) == seen


def test_metrics_of_all_workers_are_added(bundles: list[Path]) -> None:
    with server(bundles[0], "--workers", "2") as (port, _):
        for _ in range(30):
            assert ask(port, "POST", "/v1/recommend", {"histories": [[1, 2]]})[0] == 200
        end = time.monotonic() + 60
        while 'dllm2rec_requests_total{route="/v1/recommend",status="200"} 30.0' not in metrics(port):
            assert time.monotonic() < end  # a request is counted when its answer is out, so a moment later


def test_a_worker_that_dies_is_replaced_and_its_bundle_answers_no_more(bundles: list[Path], tmp_path: Path) -> None:
    place = shutil.copytree(bundles[0], tmp_path / "place")
    with server(place, "--workers", "2") as (port, process):
        before = version(port)
        workers = workers_of(process)
        until(port, {before})
        shutil.rmtree(place)
        shutil.copytree(bundles[1], place)
        for worker in workers:
            os.kill(worker, signal.SIGKILL)
        end, lines = time.monotonic() + 60, [""]
        while not any(line.startswith("dllm2rec_bundle{") and str(before) not in line for line in lines):
            assert time.monotonic() < end
            time.sleep(0.2)
            lines = metrics(port)
        until(port, {version(port)})
        shown = [line for line in metrics(port) if line.startswith("dllm2rec_bundle{")]
        assert len(shown) == 1
        assert str(before) not in shown[0]


def test_what_cannot_be_served_is_said_in_one_line(bundles: list[Path], tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for bundle, host, chosen, words in (
            (bundles[0], "127.0.0.1", port, f"port {port}"),
            (bundles[0], "x" * 64, 0, "can't listen"),
            (tmp_path, "127.0.0.1", 0, "not a bundle"),
            (tmp_path / "none", "127.0.0.1", 0, "no such directory"),
        ):
            command = [PROGRAM, "serve", bundle, "--host", host, "--port", str(chosen)]
            refused = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False)
            assert refused.returncode == 2
            assert words in refused.stderr
            assert "Traceback" not in refused.stderr
            assert refused.stdout == ""


@pytest.fixture(scope="module")
def address(bundles: list[Path]) -> Iterator[str]:
    with server(bundles[0], "--compare", str(bundles[1])) as (port, _):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def page() -> Iterator[Page]:
    """A page that fails the test if its console shows an error."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    with sync_playwright() as playwright:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        opened = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
        wrong: list[str] = []
        opened.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        opened.on("pageerror", lambda error: wrong.append(str(error)))
        yield opened
        browser.close()
    assert wrong == []


def titles(page: Page, name: str) -> list[str]:
    return page.locator(f"#{name} .title").all_inner_texts()


def test_long_ids_keep_their_digits(page: Page, address: str) -> None:
    page.goto(address)
    sent = (
        r'{"id": 9223372036854775811, "title": "\"12345678901234567", "score": 0.12345678901234567, "k": [-5, 1e300]}'
    )
    found = page.evaluate("text => read(text)", sent)
    assert found["id"] == "9223372036854775811"
    assert (found["title"], found["score"], found["k"]) == ('"12345678901234567', 0.12345678901234567, [-5, 1e300])


def test_search_add_reorder_and_compare_with_the_keyboard_alone(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("#compare-items li")
    assert "most popular" in page.inner_text("#main-note")
    for text in ("item 7", "item 12"):
        page.focus("#search")
        page.keyboard.type(text)
        page.wait_for_selector("#found [role=option]")
        page.keyboard.press("ArrowDown")
        assert page.get_attribute("#search", "aria-activedescendant") == "option-0"
        page.keyboard.press("Enter")
    assert titles(page, "history") == ["item 7", "item 12"]
    page.focus("#history li:nth-child(2) .earlier")
    page.keyboard.press("Enter")
    assert titles(page, "history") == ["item 12", "item 7"]
    page.wait_for_selector("#main-items[aria-busy=false]")
    assert "popular" not in page.inner_text("#main-note")
    main, other = titles(page, "main-items"), titles(page, "compare-items")
    assert len(main) == len(other) == 10
    assert main != other
    assert not {"item 7", "item 12"} & set(main)
    places = page.locator("#main-items .move").all_inner_texts()
    for place, (title, shown) in enumerate(zip(main, places, strict=True)):
        moved = other.index(title) - place if title in other else None
        expected = (
            "only here" if moved is None else "same" if moved == 0 else f"{'▲' if moved > 0 else '▼'} {abs(moved)}"
        )
        assert shown == expected
    assert page.evaluate("document.documentElement.scrollWidth") == 390


def test_the_address_can_be_shared(page: Page, address: str) -> None:
    page.goto(address)
    page.wait_for_selector("#main-items li")
    page.click("#example")
    assert titles(page, "history") == ["item 0", "item 1"]
    assert page.locator("#truth dd").all_inner_texts() == ["item 2", "item 2"]
    page.select_option("#k", "5")
    page.wait_for_selector("#main-items[aria-busy=false]")
    assert page.locator("#main-items li").count() == 5
    shown = titles(page, "main-items")
    page.goto(page.url)
    page.wait_for_selector("#main-items[aria-busy=false]")
    assert page.locator("#history li").count() == 2
    assert titles(page, "main-items") == shown
