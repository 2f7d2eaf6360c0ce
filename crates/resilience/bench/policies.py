"""Founding document 000's RetryExecutor and RecursoBulkhead in Python, measured as the Rust ones are: `name;p50;p99;16 threads`.

The document gives the interfaces (max_tentativas, delay_inicial_ms, multiplicador, jitter, executar; tamanho_pool,
adquirir_recurso, tempo_uso); this is the plain way to write them down.
"""

import platform
import random
import threading
import time
from contextlib import contextmanager

from breaker import alone, together


class RetryStrategy:
    def __init__(self, max_tentativas=3, delay_inicial_ms=100, multiplicador=2.0, delay_maximo_ms=5000, jitter=True):
        self.max_tentativas = max_tentativas
        self.delay_inicial_ms = delay_inicial_ms
        self.multiplicador = multiplicador
        self.delay_maximo_ms = delay_maximo_ms
        self.jitter = jitter

    def calcular_delay(self, tentativa):
        delay = min(self.delay_inicial_ms * self.multiplicador ** (tentativa - 1), self.delay_maximo_ms)
        return random.uniform(0, delay) if self.jitter else delay

    def deve_tentar_novamente(self, tentativa, exception):
        return tentativa < self.max_tentativas


class RetryExecutor:
    def __init__(self, strategy):
        self._strategy = strategy
        self._sucessos = self._tentativas = 0
        self._trava = threading.Lock()

    def executar(self, func, *args, **kwargs):
        tentativa = 1
        while True:
            try:
                resultado = func(*args, **kwargs)
            except Exception as exception:
                if not self._strategy.deve_tentar_novamente(tentativa, exception):
                    raise
                time.sleep(self._strategy.calcular_delay(tentativa) / 1000)
                tentativa += 1
                continue
            with self._trava:
                self._sucessos += 1
                self._tentativas += tentativa
            return resultado


class Recurso:
    def __init__(self):
        self._inicio = time.monotonic()

    def tempo_uso(self):
        return time.monotonic() - self._inicio


class RecursoBulkhead:
    def __init__(self, nome, tamanho_pool=10):
        self.nome = nome
        self._permissoes = threading.Semaphore(tamanho_pool)
        self._timeouts = 0

    @contextmanager
    def adquirir_recurso(self, timeout_segundos=5.0):
        if not self._permissoes.acquire(timeout=timeout_segundos):
            self._timeouts += 1
            raise TimeoutError(self.nome)
        try:
            yield Recurso()
        finally:
            self._permissoes.release()

    def executar(self, func):
        with self.adquirir_recurso():
            return func()


def main():
    subjects = {
        "retry": RetryExecutor(RetryStrategy()),
        "bulkhead": RecursoBulkhead("bench", tamanho_pool=1000),
    }
    for name, subject in subjects.items():
        p50, p99 = alone(subject)
        print(f"{name}: Python {platform.python_version()} (founding document 000);{p50:.1f};{p99:.1f};{together(subject):.1f}")


if __name__ == "__main__":
    main()
