"""Does a sparse weight compute faster than a dense one? Dense, 2:4 and CSR linear layers, in alternating runs.

    python benchmarks/sparse.py [--device cuda] [--shapes 3072x768 …] [--rows 197] [--sparsity 0.8 0.9 …] [--runs 30]

Weights of random numbers are zeroed as ``metaprune prune`` does it: 2:4 for ``torch.sparse.to_sparse_semi_structured``
(half precision, on NVIDIA GPUs from the Ampere generation on), single weights for CSR (the device's own precision:
float32 on a CPU). Every line is a ratio to the dense layer in the same precision: above 1 is faster. What the device or
the shape does not support is said, with the reason. Defaults: the linear layers of a ViT-B/16 on one image.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.sparse import to_sparse_semi_structured

from metaprune_cli.graph import encode
from metaprune_cli.pruning.sparsity import Zeroing, make_zero_plan, zeroed_copy

SHAPES = ("2304x768", "768x768", "3072x768", "768x3072")
AMPERE = (8, 0)
Forward = Callable[[], Tensor]


def weight_of(shape: tuple[int, int], asked: Zeroing) -> Tensor:
    """A random weight (out, in), zeroed."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(shape[1], shape[0], bias=False))
    plan = make_zero_plan(encode(model, torch.zeros(1, shape[1])), model.state_dict(), asked)
    return zeroed_copy(model, plan.masks).get_parameter("0.weight").detach()


def no_semi_structured(device: torch.device) -> str | None:
    """Why there is no 2:4 on this device."""
    if device.type != "cuda":
        return f"not available on {device.type}: it needs an NVIDIA GPU"
    found = torch.cuda.get_device_capability(device)
    return None if found >= AMPERE else f"not available: compute capability {found}, it needs {AMPERE}"


def seconds(forwards: Mapping[str, Forward], runs: int, device: torch.device) -> dict[str, float]:
    """Median time of each, in turn; on a CPU with one thread CPU time, which other programs do not lengthen."""
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    found: dict[str, list[float]] = {name: [] for name in forwards}
    for run in range(runs + runs // 5 + 1):
        for name, forward in forwards.items():
            start = clock()
            forward()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if run > runs // 5:
                found[name].append(clock() - start)
    return {name: statistics.median(times) for name, times in found.items()}


def line(name: str, forwards: Mapping[str, Forward], runs: int, device: torch.device) -> str:
    """Dense against sparse, in words; both must give the same."""
    dense, sparse = (forwards[kind]().float() for kind in ("dense", "sparse"))
    error = float((dense - sparse).norm() / dense.norm())
    took = seconds(forwards, runs, device)
    ratio = took["dense"] / took["sparse"]
    verdict = "faster" if ratio > 1.02 else "NOT faster" if ratio > 0.98 else "SLOWER"
    times = f"dense {1e3 * took['dense']:.3f} ms, sparse {1e3 * took['sparse']:.3f} ms"
    return f"  {name}: {ratio:.2f}x, {verdict} ({times}; relative difference {error:.0e})"


def semi_structured(shape: tuple[int, int], rows: int, device: torch.device) -> dict[str, Forward]:
    """The layer in half precision, dense and packed; inputs rounded up to a multiple of 8."""
    weight = weight_of(shape, Zeroing("n:m", classifier=True)).half().to(device)
    images = torch.randn(-(-rows // 8) * 8, shape[1], device=device).half()
    packed = to_sparse_semi_structured(weight)
    return {"dense": lambda: F.linear(images, weight), "sparse": lambda: F.linear(images, packed)}


def csr(shape: tuple[int, int], rows: int, sparsity: float, device: torch.device) -> dict[str, Forward]:
    """The layer in single precision, dense and in compressed rows."""
    weight = weight_of(shape, Zeroing("unstructured", sparsity, classifier=True)).to(device)
    images = torch.randn(rows, shape[1], device=device)
    packed = weight.to_sparse_csr()
    return {"dense": lambda: F.linear(images, weight), "sparse": lambda: (packed @ images.T).T}


@torch.inference_mode()
def main() -> None:
    """Parse, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--shapes", nargs="+", default=SHAPES, metavar="OUTxIN")
    parser.add_argument("--rows", type=int, default=197, help="inputs at a time: tokens times images")
    parser.add_argument("--sparsity", type=float, nargs="+", default=[0.8, 0.9, 0.95, 0.99])
    parser.add_argument("--runs", type=int, default=30)
    given = parser.parse_args()
    warnings.filterwarnings("ignore", message=".*(CSR|SparseSemiStructured).*")  # both are in beta, says PyTorch
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}; {given.rows} inputs at a time; median of {given.runs} alternating runs")
    for text in given.shapes:
        out, into = map(int, text.split("x"))
        print(f"{text} (out x in)")
        if problem := no_semi_structured(device):
            print(f"  2:4: {problem}")
        else:
            print(line("2:4", semi_structured((out, into), given.rows, device), given.runs, device))
        for sparsity in given.sparsity:
            forwards = csr((out, into), given.rows, sparsity, device)
            print(line(f"CSR at {100 * sparsity:g} %", forwards, given.runs, device), flush=True)


if __name__ == "__main__":
    main()
