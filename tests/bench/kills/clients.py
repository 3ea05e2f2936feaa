"""Clients that submit tasks all the time and remember each one that was accepted."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPException

from tests.system.lab.client import Client
from tests.system.lab.container import Container

THREADS = 2
TOKENS = 48
PAUSE_S = 0.4
FINAL = ("done", "failed", "cancelled")


class Clients:
    """`accepted` are the ids of tasks with a 202 whose end is not known yet; `ends` counts how the others ended."""

    def __init__(self, container: Container, models: list[str], seed: int) -> None:
        self.container = container
        self.ends: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.accepted: dict[str, None] = {}
        self._models = models
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._go, self._done = threading.Event(), threading.Event()
        self._idle = threading.Semaphore(0)

    @contextmanager
    def asking(self) -> Iterator[None]:
        """Submit tasks for the duration of the block."""
        threads = [threading.Thread(target=self._work, daemon=True) for _thread in range(THREADS)]
        self._go.set()
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._done.set()
            self._go.set()
            for thread in threads:
                thread.join()

    @contextmanager
    def interrupted(self) -> Iterator[None]:
        """Submit nothing for the duration of the block."""
        self._go.clear()
        try:
            yield
        finally:
            self._go.set()

    def submit(self, model: str, max_tokens: int = TOKENS) -> str | None:
        """Submit a task; return its id if it was accepted."""
        body = {"prompt": "the river", "max_tokens": max_tokens, "model_ref": model, "seed": 1}
        try:
            answer = Client(self.container, limit_s=10).post("/v2/tasks", body)
        except (OSError, HTTPException, ValueError) as error:
            with self._lock:
                self.refused[type(error).__name__] += 1
            return None
        if answer.status != 202:
            with self._lock:
                self.refused[f"status {answer.status}"] += 1
            return None
        task_id = str(answer.json["task_id"])
        with self._lock:
            self.accepted[task_id] = None
        return task_id

    def unfinished(self) -> list[str]:
        """Return the accepted tasks that have not ended, and why a lost one is lost. Forgets those that have ended."""
        found = []
        with self._lock:
            tasks = list(self.accepted)
        for task_id in tasks:
            try:
                answer = Client(self.container, limit_s=10).get(f"/v2/tasks/{task_id}")
            except (OSError, HTTPException) as error:
                return [f"tasks are not known: {type(error).__name__}"]
            state = answer.json["state"] if answer.status == 200 else f"status {answer.status}"
            if state not in FINAL:
                found.append(f"task {task_id} ({answer.json.get('model_ref')}) is {state}")
                continue
            error_code = (answer.json.get("error") or {}).get("code")
            with self._lock:
                self.ends[error_code or state] += 1
                del self.accepted[task_id]
        return found

    def _work(self) -> None:
        while not self._done.is_set():
            self._go.wait()
            with self._lock:
                model, pause = self._random.choice(self._models), self._random.uniform(0, 2 * PAUSE_S)
            if not self._done.is_set():
                self.submit(model)
            self._done.wait(pause)
