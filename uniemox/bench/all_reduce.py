"""Bandwidth between the processes of one machine.

This module imports only torch, because each of the processes imports it again.
"""

import socket
import time

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

SENT_MB = 256
ROUNDS = 5


def all_reduce_gb_s(processes: int, backend: str) -> float:
    """Return the bandwidth of an all-reduce of 256 MB between processes of this machine: GB/s sent by each.

    Args:
        processes: Number of processes, at least 2.
        backend: gloo, or nccl, which gives each process a GPU.
    """
    # Binding to port 0 lets the system choose a free port.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    times = mp.get_context("spawn").SimpleQueue()
    mp.start_processes(_send, (processes, backend, port, times), nprocs=processes, start_method="spawn")
    # A ring all-reduce sends every byte twice, except a process's own share.
    return 2 * (processes - 1) / processes * SENT_MB / 1000 / times.get()


def _send(rank: int, processes: int, backend: str, port: int, times: "mp.SimpleQueue") -> None:
    dist.init_process_group(backend, init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=processes)
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    # 250,000 float32 numbers are one MB.
    numbers = torch.ones(SENT_MB * 250_000, device=device)
    best = float("inf")
    for _ in range(ROUNDS):
        start = time.perf_counter()
        dist.all_reduce(numbers)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    if rank == 0:
        times.put(best)
    dist.destroy_process_group()
