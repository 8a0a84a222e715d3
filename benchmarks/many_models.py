"""One endpoint with a thousand models, whose workers are killed one by one: `make bench-models`.

The models are copies of one, whose classes are named after the copy, so that an answer of a wrong model shows. Clients
draw models from Zipf's distribution, check each answer, and their counts are compared with those of `/metrics`. First,
one client asks a model that is in memory, the same model on an endpoint of its own, and models that are not in memory.
The exit code is not 0 if a request failed, other than those that a killed worker had in progress, or if the memory of
the workers exceeded the bound.
"""

import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from lstm_fcn.benchmarks.programs import request
from lstm_fcn.benchmarks.serving import Server, answer, resident_megabytes, running, series_csv, train_model
from lstm_fcn.benchmarks.soak import Client, Request, Tally, kill_workers
from lstm_fcn.container import artifact

CLIENTS, WORKERS, ROWS = 4, 2, 200
EXPONENT = 1.0  # of Zipf's distribution: the k-th model is asked 1/k as often as the first
ASKED, ROUNDS = 500, 5  # requests for a median
COLD = 100  # models
SERVE = [sys.executable, "-m", "lstm_fcn.serving"]
HEADERS = {"Content-Type": "text/csv"}


def copy_model(model: Path, folder: Path, count: int) -> None:
    """Put copies of a model into `folder`, whose classes are named after them."""
    content = json.loads((model / artifact.METADATA).read_text())
    classes = content["problem"]["classes"]
    for number in range(count):
        copy = folder / f"m{number}"
        copy.mkdir(parents=True)
        content["problem"]["classes"] = [f"m{number}-{label}" for label in classes]
        (copy / artifact.METADATA).write_text(json.dumps(content))
        os.link(model / artifact.GRAPH, copy / artifact.GRAPH)


def ask(model: int, row: str, label: str) -> Request:
    """A request for the prediction of one series, and its answer."""
    body = row.encode()
    headers = HEADERS | {"Content-Length": str(len(body))}
    return Request("invoke", [body], headers, f"m{model}-{label}".encode(), path=f"/models/m{model}/invoke")


def milliseconds(client: Client, asked: Callable[[int], Request], count: int) -> float:
    """Median duration of `count` requests, one after the other."""
    durations = []
    for number in range(count):
        began = time.perf_counter()
        client.send(asked(number))
        durations.append(time.perf_counter() - began)
    return 1000 * statistics.median(durations)


def compare_latency(root: Path, settings: dict[str, str], rows: list[str], labels: list[str]) -> Tally:
    """Print medians of a model in memory, of one that is not, of a single model, and in the other protocol."""
    tally = Tally()
    body = rows[0].encode()
    single = Request("invoke", [body], HEADERS | {"Content-Length": str(len(body))}, labels[0].encode())
    values = [float(cell) for cell in rows[0].split(",")]
    tensor = {"name": "series", "datatype": "FP64", "shape": [1, len(values)], "data": values}
    text = json.dumps({"inputs": [tensor], "outputs": [{"name": "predicted_label"}]}).encode()
    infer = Request("infer", [text], {"Content-Length": str(len(text))}, path="/v2/models/model/infer")
    found: dict[str, list[float]] = {"alone": [], "hit": [], "infer": []}
    with running(SERVE, root, {}) as alone, running(SERVE, root, settings) as many:
        one, other = Client(alone.url, tally), Client(many.url, tally)
        for _ in range(ROUNDS):
            found["alone"].append(milliseconds(one, lambda _: single, ASKED))
            found["hit"].append(milliseconds(other, lambda _: ask(0, rows[0], labels[0]), ASKED))
            found["infer"].append(milliseconds(one, lambda _: infer, ASKED))
        cold = milliseconds(other, lambda number: ask(1 + number, rows[0], labels[0]), COLD)
    medians = {name: statistics.median(rounds) for name, rounds in found.items()}
    print(f"one client, one series, median of {ROUNDS * ASKED} requests\n\n| | ms | of a single model |\n|---|---|---|")
    names = {"alone": "single model", "infer": "single model, Open Inference Protocol", "hit": "one of many, in memory"}
    for key, name in names.items():
        print(f"| {name} | {medians[key]:.2f} | {medians[key] / medians['alone']:.2f} |")
    print(f"| one of many, not in memory | {cold:.1f} | {cold / medians['alone']:.1f} |\n", flush=True)
    return tally


def send_requests(
    client: Client, models: int, rows: list[str], labels: list[str], seed: int, stop: threading.Event
) -> None:
    """Ask models drawn from Zipf's distribution."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, models + 1) ** EXPONENT
    while not stop.is_set():
        for model in rng.choice(models, size=200, p=weights / weights.sum()).tolist():
            row = int(rng.integers(len(rows)))
            client.send(ask(model, rows[row], labels[row]))
            if stop.is_set():
                break
    client.connection.close()


def watch_memory(server: Server, stop: threading.Event) -> float:
    """The most memory that all workers took together, in MB."""
    most = 0.0
    while not stop.wait(0.5):
        for _ in range(2):
            try:
                most = max(most, sum(map(resident_megabytes, server.workers())))
                break
            except (OSError, IndexError):  # a worker was killed meanwhile
                continue
    return most


def counted(server: Server, name: str) -> float:
    """The sum of a count of `/metrics` over its labels."""
    families = text_string_to_metric_families(request(f"{server.url}/metrics").text)
    return sum(each.value for family in families for each in family.samples if each.name == f"lstm_fcn_{name}")


def load(server: Server, models: int, rows: list[str], labels: list[str], seconds: float) -> tuple[Tally, float]:
    """Load a server while its workers are killed; print what happened, and return also the most memory in MB."""
    tally, stop = Tally(), threading.Event()
    with ThreadPoolExecutor(CLIENTS + 2) as threads:
        try:
            began = time.perf_counter()
            clients = [
                threads.submit(send_requests, Client(server.url, tally), models, rows, labels, seed, stop)
                for seed in range(CLIENTS)
            ]
            memory = threads.submit(watch_memory, server, stop)
            killer = threads.submit(kill_workers, server, np.random.default_rng(0), stop)
            time.sleep(seconds)
        finally:
            stop.set()
    for client in clients:
        client.result()
    duration = time.perf_counter() - began
    tally.judge_losses(killer.result())
    answered, lost = tally.counts["invoke", "answered"], tally.counts["invoke", "killed"]
    found = int(counted(server, "requests_total"))
    # A worker counts a request before its answer is sent: a killed one may have counted requests that were lost.
    if not answered <= found <= answered + lost:
        tally.failures.append(f"/metrics has {found} requests; the clients got {answered} answers and lost {lost}")
    print("| | |\n|---|---|")
    for name, value in {
        "requests answered with the right label": f"{answered:,}",
        "a second": f"{answered / duration:.0f}",
        "requests that /metrics counts": f"{found:,}",
        "workers killed": len(killer.result()),
        "requests lost with a killed worker": lost,
        "wrong or failed": len(tally.failures),
        "models read": f"{counted(server, 'model_load_seconds_count'):,.0f}",
        "models evicted": f"{counted(server, 'model_evictions_total'):,.0f}",
        "most memory of all workers": f"{memory.result():.0f} MB",
    }.items():
        print(f"| {name} | {value} |", flush=True)
    return tally, memory.result()


@click.command(help=__doc__)
@click.option("--models", type=int, default=1000, show_default=True)
@click.option("--minutes", type=float, default=10.0, show_default=True)
@click.option("--memory", type=int, default=2048, show_default=True, help="LSTM_FCN_MODEL_MEMORY_MIB")
def main(models: int, minutes: float, memory: int) -> None:
    settings = {"SAGEMAKER_MULTI_MODEL": "true", "LSTM_FCN_METRICS": "true", "LSTM_FCN_MODEL_MEMORY_MIB": str(memory)}
    settings |= {"SAGEMAKER_MODEL_SERVER_WORKERS": str(WORKERS), "SAGEMAKER_CONTAINER_LOG_LEVEL": "30"}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = train_model(root)
        copy_model(model, root / "models", models)
        rows = series_csv(ROWS).splitlines()
        with running(SERVE, root, {}) as server:
            labels = answer(f"{server.url}/invocations", "\n".join(rows)).split("\n")
        size = (model / artifact.GRAPH).stat().st_size / 1e6
        print(f"{models} models of {size:.1f} MB, {memory} MiB of memory for {WORKERS} workers\n", flush=True)
        failures = compare_latency(root, settings, rows, labels).failures
        with running(SERVE, root, settings) as server:
            tally, most = load(server, models, rows, labels, 60 * minutes)
    failures += tally.failures
    if most > memory * 1.048576:
        failures.append(f"the workers took {most:.0f} MB")
    if failures:
        raise SystemExit("\n".join([f"\n{len(failures)} failure(s):", *failures[:20]]))


if __name__ == "__main__":
    main()
