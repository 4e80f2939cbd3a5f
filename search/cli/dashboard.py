"""``lrf-search dashboard RUN``."""

from __future__ import annotations

import argparse

from search import folder as layout
from search.storage import open_storage

LOOPBACK = "127.0.0.1"  # it has no login, so it is never opened to a network


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", help="a run folder, or the name of a run in runs/")
    parser.add_argument("--port", type=int, default=8080, help="on this machine only (default: %(default)s)")


def execute(args: argparse.Namespace) -> int:
    try:
        from optuna_dashboard import run_server
    except ImportError:
        raise ValueError("the dashboard needs one more package: pip install 'lrf-search[dashboard]'") from None
    folder = layout.find(args.run)
    config = layout.load(folder)
    storage = open_storage(layout.storage_address(folder, config), alone=False)
    print(
        f"optuna-dashboard of {folder} on http://{LOOPBACK}:{args.port}/ (Ctrl-C ends it); it does not show budgets"
    )
    try:
        run_server(storage, host=LOOPBACK, port=args.port)
    except OSError as error:
        raise ValueError(f"cannot listen on port {args.port}: {error.strerror}") from None
    except KeyboardInterrupt:
        print()
    return 0
