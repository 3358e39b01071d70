"""Images per second of every augmentation in conf/augment.

python benchmarks/augment.py [--threads 2] [--batch 512] [--device cpu] [--engine fast] [--channels-last]
"""

import argparse
import time
from statistics import median

import torch
from hydra.utils import instantiate

from parsimony.config import CONF, composed
from parsimony.runs import cpu_name

SHAPES = {"CIFAR-10, 3x32x32": (3, 32, 32), "MNIST, 1x28x28": (1, 28, 28)}


def images_per_second(augment: torch.nn.Module, images: torch.Tensor, seconds: float) -> float:
    indices = torch.arange(len(images), device=images.device)

    def wait() -> None:
        if images.is_cuda:
            torch.cuda.synchronize()

    wait()
    batches, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        for _ in range(10):
            augment(images, indices, batches)
            batches += 1
        wait()
    return batches * len(images) / (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description="Images per second of every augmentation in conf/augment.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--runs", type=int, default=9, help="in turn over all configs, so that a disturbance hits all")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of a run")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--engine", default="fast", help="of conf/engine: for its memory allocator")
    parser.add_argument("--channels-last", action="store_true")
    args = parser.parse_args()
    instantiate(composed([f"engine={args.engine}"]).engine).start()
    names = sorted(path.stem for path in (CONF / "augment").glob("*.yaml"))
    augments = {name: instantiate(composed([f"augment={name}"]).augment) for name in names}
    torch.set_num_threads(args.threads)
    layout = torch.channels_last if args.channels_last else torch.contiguous_format
    device = torch.cuda.get_device_name() if args.device.startswith("cuda") else cpu_name()
    print(
        f"{device}; {torch.get_num_threads()} threads; torch {torch.__version__}; engine {args.engine}; "
        f"batch {args.batch}; {layout}; median of {args.runs} runs (min to max)"
    )
    for title, shape in SHAPES.items():
        images = torch.randint(0, 256, (args.batch, *shape), dtype=torch.uint8).to(args.device, memory_format=layout)
        for augment in augments.values():
            images_per_second(augment, images, args.seconds / 3)  # warm-up
        speeds = {name: [] for name in augments}
        for _ in range(args.runs):
            for name, augment in augments.items():
                speeds[name].append(images_per_second(augment, images, args.seconds))
        print(f"\n{title}")
        for name, runs in speeds.items():
            print(f"{name:18} {median(runs):>12,.0f} images/s   ({min(runs):,.0f} to {max(runs):,.0f})")


if __name__ == "__main__":
    main()
