"""Runs every client against a broker, prints the table of what works, and compares it with the one in the docs."""

import argparse
import contextlib
import random
import shutil
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import table
from checks import CHECKS, FAROLS_OWN, Client
from clients import CLIENTS, PREPARER
from farol import SECURED, USER, farol, running
from program import Failed, Program

# Clients under test at a time: their time goes into waiting for session time-outs.
AT_ONCE = 3


def parse():
    parser = argparse.ArgumentParser(prog="scripts/test-clients", description=__doc__)
    parser.add_argument("--brokers", metavar="HOST:PORT", help="a running broker instead of a Farol of its own; nothing is compared then")
    parser.add_argument("--client", metavar="NAME", action="append", help=f"this client only, again for more: {', '.join(CLIENTS)}")
    parser.add_argument("--check", metavar="NAME", action="append", help="this check (column) only, again for more")
    parser.add_argument("--seed", type=int, default=random.randrange(10**9), help="of the made-up records")
    parser.add_argument("--write", action="store_true", help="write the table into the docs instead of comparing")
    parser.add_argument("--verbose", action="store_true", help="print each result with the seconds it took")
    return parser.parse_args()


@contextlib.contextmanager
def preparer(brokers, folder, security=None):
    """The client that makes topics for all and reads what others produced."""
    program = Program(PREPARER, brokers, f"{folder}/preparer.log", security)
    turn = threading.Lock()

    def ask(do, **arguments):
        with turn:
            return program.ask(do, **arguments)

    try:
        program.next_line()
        yield ask
    finally:
        program.kill()


def run(client, arguments, columns):
    """Every check of one client, one after the other: what goes into its row. Empty when the client isn't installed."""
    row = {}
    if shutil.which(client.command[0]) is None:
        print(f"{client.name}: not run, {client.command[0]} is missing", flush=True)
        return row
    try:
        client.start()
        for column, need, check in CHECKS:
            if column not in columns:
                continue
            check_began = time.monotonic()
            if need not in client.can:
                row[column] = table.HAS_NOT
                continue
            try:
                row[column] = check(client) or table.WORKS
            except Failed as failure:
                row[column] = f"failed: {failure}"
            if arguments.verbose or row[column].startswith("failed"):
                print(f"{client.name}, {column}: {row[column]} ({time.monotonic() - check_began:.1f} s)", flush=True)
    except Failed as failure:
        row = {column: f"failed: {failure}" for column in columns}
    finally:
        client.stop()
    return row


def main():
    arguments = parse()
    folder = tempfile.mkdtemp(prefix="farol-clients-")
    print(f"seed {arguments.seed}, logs in {folder}", flush=True)
    began = time.monotonic()
    names = arguments.client or list(CLIENTS)
    columns = [column for column, *_ in CHECKS if column in (arguments.check or [column])]
    with contextlib.ExitStack() as stack:
        secured = None
        if arguments.brokers:
            brokers = stack.enter_context(running(arguments.brokers))
            columns = [column for column in columns if column not in FAROLS_OWN]
        else:
            brokers = stack.enter_context(farol(folder))
            address = stack.enter_context(farol(f"{folder}/secured", SECURED))
            prepare = stack.enter_context(preparer(address, f"{folder}/secured", {**USER, "mechanism": "SCRAM-SHA-256"}))
            secured = (address, USER, prepare)
        ask = stack.enter_context(preparer(brokers, folder))
        clients = [Client(name, CLIENTS[name], brokers, folder, ask, arguments.seed, secured) for name in names]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            rows = list(pool.map(lambda client: run(client, arguments, columns), clients))
    columns = [column for column in columns if any(column in row for row in rows)]
    result = table.markdown(columns, [(client.version or client.name, row) for client, row in zip(clients, rows)])
    print(f"\n{result}")
    failed = sum(cell.startswith("failed") for row in rows for cell in row.values())
    passed = sum(map(len, rows)) - failed
    missing = [client.name for client, row in zip(clients, rows) if not row]
    not_run = f", not run because they aren't installed: {', '.join(missing)}" if missing else ""
    print(f"{passed} passed, {failed} failed in {time.monotonic() - began:.0f} s{not_run}")
    if failed or not passed:
        return 1
    shutil.rmtree(folder)
    if arguments.write and missing:
        print("the table is not written: it would lose what is known of the clients that weren't run")
        return 1
    if arguments.write:
        table.write(result)
    elif not (arguments.brokers or arguments.client or arguments.check) and table.differs(result):
        print(f"{table.DOCUMENT} has another table: run scripts/test-clients --write and commit what changed")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
