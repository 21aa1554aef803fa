"""A killed server loses no answer that it acknowledged; see also `python -m benchmarks.curate_load`."""

import argparse
import asyncio
import socket
from pathlib import Path

from sqlalchemy import select

from benchmarks.curate_load import Server, load
from tests.curate.places import LABELS, project_of
from uniemox_curate import tables as t


def test_a_killed_server_loses_no_acknowledged_answer(tmp_path: Path) -> None:
    project = project_of(tmp_path / "p", [LABELS[i % 2] for i in range(12)])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = Server(tmp_path / "p", port)
    server.start()
    options = argparse.Namespace(seconds=1.5, annotators=4, rate=16, kills=1)
    try:
        figures = asyncio.run(load(project, f"http://127.0.0.1:{port}", server, options))
    finally:
        server.kill()
    there = {row.client_id for row in project.rows(select(t.answers.c.client_id))}
    assert len(figures.acknowledged) == len(figures.answers) == 24
    assert figures.acknowledged == there
    assert figures.retries > 0
    assert len(figures.outages) == 1
