"""A server under load: `python benchmarks/serve.py [--seconds 60] [--clients 32] [--weights demo]`.

First the bare detector, one image file after another. Then `ddetr serve` in a process of its own:

* 32 clients, each of which asks again as soon as it is answered: throughput, wrong answers (each is compared with the
  detector's), growth of the process after its first quarter;
* requests at even distances at 70 % of the bare detector's throughput, and at random ones (Poisson): latencies;
* 32 clients again at a server whose queue holds 8 images: how many are refused, and what the others wait.
"""

import argparse
import http.client
import json
import math
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import psutil

from deformable_detr import Detector
from deformable_detr.weights.sources import packaged_images

PATH = "/detect?threshold=0.3"
MIB = 2**20


@dataclass
class Load:
    """What clients saw."""

    seconds: list[float] = field(default_factory=list)      # of each that was answered with 200
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: int = 0

    def percentile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, math.ceil(share * len(self.seconds)) - 1)]


class Client:
    """A connection that is kept."""

    def __init__(self, port: int, images: list[tuple[bytes, Any]], load: Load) -> None:
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.images, self.load = images, load

    def ask(self, number: int) -> int:
        content, wanted = self.images[number % len(self.images)]
        start = time.perf_counter()
        self.connection.request("POST", PATH, content)
        response = self.connection.getresponse()
        answer = json.loads(response.read())
        self.load.statuses[response.status] += 1
        if response.status == 200:
            self.load.seconds.append(time.perf_counter() - start)
            self.load.wrong += answer != wanted
        return response.status


def bare(detector: Detector, images: list[bytes], rounds: int = 12) -> list[float]:
    """Seconds of each image."""
    for content in images:
        detector(content)
    taken = []
    for content in images * rounds:
        start = time.perf_counter()
        detector(content, 0.3)
        taken.append(time.perf_counter() - start)
    return taken


@contextmanager
def served(weights: str, *flags: str) -> Iterator[tuple[psutil.Process, int]]:
    """The server's process and its port, warm."""
    command = [sys.executable, "-m", "deformable_detr", "serve", "--weights", weights, "--port", "0", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        port = int(process.stdout.readline().split()[0].rpartition(":")[2])
        while not is_ready(port):
            time.sleep(0.1)
        yield psutil.Process(process.pid), port
        process.terminate()


def is_ready(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/readyz")
    status = connection.getresponse().status
    connection.close()
    return status == 200


def in_threads(count: int, work: Callable[[int], None]) -> None:
    threads = [threading.Thread(target=work, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def saturate(port: int, images: list[tuple[bytes, Any]], clients: int, seconds: float) -> Load:
    """Each client asks again as soon as it is answered, and after half a second where it was refused."""
    load, end = Load(), time.monotonic() + seconds

    def work(number: int) -> None:
        client = Client(port, images, load)
        while time.monotonic() < end:
            if client.ask(number) != 200:
                time.sleep(0.5)
            number += 1

    in_threads(clients, work)
    return load


def at_rate(port: int, images: list[tuple[bytes, Any]], gaps: Callable[[], float], seconds: float) -> Load:
    """Requests begin at these distances, whether or not others are answered. Latency counts from when it was due."""
    load, pool = Load(), []
    idle: list[Client] = [Client(port, images, load) for _ in range(32)]
    start = due = time.perf_counter()
    number = 0

    def work(client: Client, number: int) -> None:
        client.ask(number)
        client.connection.close()       # the server would, after some seconds
        idle.append(client)

    while due < start + seconds:
        time.sleep(max(0, due - time.perf_counter()))
        thread = threading.Thread(target=work, args=(idle.pop(), number))
        thread.start()
        pool.append(thread)
        due, number = due + gaps(), number + 1
    for thread in pool:
        thread.join()
    return load


def watch_memory(process: psutil.Process, seconds: float) -> Callable[[], tuple[float, float]]:
    """The greatest MiB from a quarter of this time to its half, and in its last quarter."""
    samples: list[tuple[float, float]] = []
    ended = threading.Event()

    def sample() -> None:
        start = time.monotonic()
        while not ended.wait(0.25):
            samples.append(((time.monotonic() - start) / seconds, process.memory_info().rss / MIB))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()

    def result() -> tuple[float, float]:
        ended.set()
        thread.join()
        return (max(size for share, size in samples if 0.25 <= share < 0.5),
                max(size for share, size in samples if share >= 0.75))

    return result


def report(name: str, load: Load, seconds: float) -> None:
    print(f"{name:<34}{len(load.seconds) / seconds:6.2f} images/s; ms: median "
          f"{statistics.median(load.seconds) * 1000:.0f}, p95 {load.percentile(0.95) * 1000:.0f}, most "
          f"{max(load.seconds) * 1000:.0f}; statuses {dict(load.statuses)}; wrong {load.wrong}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--weights", default="demo")
    options = parser.parse_args()
    contents = [path.read_bytes() for path in packaged_images()]
    detector = Detector(options.weights, "cpu")
    taken = bare(detector, contents)
    each = statistics.mean(taken)
    print(f"load average before: {os.getloadavg()[0]:.2f}; {os.cpu_count()} cores")
    print(f"{'bare detector':<34}{1 / each:6.2f} images/s; ms: median {statistics.median(taken) * 1000:.0f}, p95 "
          f"{sorted(taken)[int(0.95 * len(taken))] * 1000:.0f}")
    images = [(content, json.loads(json.dumps({"file": "image", **detector(content, 0.3).to_dict(
        detector.info.category_ids)}))) for content in contents]
    with served(options.weights, "--device", "cpu") as (process, port):
        memory = watch_memory(process, options.seconds)
        load = saturate(port, images, options.clients, options.seconds)
        early, late = memory()
        report(f"{options.clients} clients", load, options.seconds)
        print(f"{'':<34}MiB: {early:.0f} in the second quarter, {late:.0f} in the last; of the bare detector's "
              f"throughput: {len(load.seconds) / options.seconds * each:.2f}")
        gap, short = each / 0.7, options.seconds / 2
        for name, gaps in (("70 %, at even distances", lambda: gap),
                           ("70 %, at random ones", lambda: random.expovariate(1 / gap))):
            load = at_rate(port, images, gaps, short)
            report(name, load, short)
            print(f"{'':<34}p95 by the bare detector's mean: {load.percentile(0.95) / each:.2f}")
    with served(options.weights, "--device", "cpu", "--max-queue", "8", "--max-pictures", "8") as (_, port):
        report(f"{options.clients} clients, a queue of 8", saturate(port, images, options.clients, short), short)
    again = statistics.mean(bare(detector, contents))
    print(f"{'bare detector again':<34}{1 / again:6.2f} images/s; load average after: {os.getloadavg()[0]:.2f}")


if __name__ == "__main__":
    main()
