"""Founding document 000's CircuitBreaker in Python, measured as the Rust ones are: `name;closed;p99;16 threads;open;p99`.

The document gives the interface and the behaviour (threshold_falhas=5, timeout_segundos=60, executar, obter_metricas, three
states, thread-safe); this is the plain way to write that down.
"""

import platform
import statistics
import threading
import time
from enum import Enum


class Estado(Enum):
    FECHADO = "fechado"
    ABERTO = "aberto"
    MEIO_ABERTO = "meio_aberto"


class CircuitoAberto(Exception):
    pass


class CircuitBreaker:
    def __init__(self, threshold_falhas=5, timeout_segundos=60, nome="circuit"):
        self.nome = nome
        self._threshold = threshold_falhas
        self._timeout = timeout_segundos
        self._estado = Estado.FECHADO
        self._falhas_consecutivas = 0
        self._aberto_em = 0.0
        self._sucessos = self._falhas = self._rejeitadas = 0
        self._trava = threading.Lock()

    def executar(self, func, *args, **kwargs):
        with self._trava:
            if self._estado is Estado.ABERTO:
                if time.monotonic() - self._aberto_em < self._timeout:
                    self._rejeitadas += 1
                    raise CircuitoAberto(self.nome)
                self._estado = Estado.MEIO_ABERTO
        try:
            resultado = func(*args, **kwargs)
        except Exception:
            with self._trava:
                self._falhas += 1
                self._falhas_consecutivas += 1
                if self._estado is Estado.MEIO_ABERTO or self._falhas_consecutivas >= self._threshold:
                    self._estado = Estado.ABERTO
                    self._aberto_em = time.monotonic()
            raise
        with self._trava:
            self._sucessos += 1
            self._falhas_consecutivas = 0
            self._estado = Estado.FECHADO
        return resultado

    def obter_metricas(self):
        with self._trava:
            return {"estado": self._estado.value, "sucessos": self._sucessos, "falhas": self._falhas,
                    "rejeitadas": self._rejeitadas}


BATCH = 1000
SECONDS = 0.8


def chamada():
    return 7


def falha():
    raise ValueError("falha")


def batch(circuito):
    for _ in range(BATCH):
        try:
            circuito.executar(chamada)
        except CircuitoAberto:
            pass


def alone(circuito):
    batch(circuito)
    batches = []
    until = time.perf_counter() + SECONDS
    while time.perf_counter() < until:
        begin = time.perf_counter_ns()
        batch(circuito)
        batches.append((time.perf_counter_ns() - begin) / BATCH)
    return statistics.median(batches), statistics.quantiles(batches, n=100)[98]


def together(circuito, threads=16):
    calls = [0] * threads
    until = time.perf_counter() + SECONDS

    def work(number):
        while time.perf_counter() < until:
            batch(circuito)
            calls[number] += BATCH

    workers = [threading.Thread(target=work, args=(number,)) for number in range(threads)]
    begin = time.perf_counter_ns()
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return (time.perf_counter_ns() - begin) / sum(calls)


def main():
    circuito = CircuitBreaker(threshold_falhas=5, timeout_segundos=3600)
    closed, closed_p99 = alone(circuito)
    shared = together(circuito)
    for _ in range(5):
        try:
            circuito.executar(falha)
        except ValueError:
            pass
    assert circuito.obter_metricas()["estado"] == "aberto"
    opened, opened_p99 = alone(circuito)
    figures = ";".join(f"{figure:.1f}" for figure in (closed, closed_p99, shared, opened, opened_p99))
    print(f"Python {platform.python_version()} (founding document 000);{figures}")


if __name__ == "__main__":
    main()
