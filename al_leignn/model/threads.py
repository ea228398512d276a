"""One thread for torch: sums over threads would make results depend on the machine, and items run side by side anyway."""

import torch


def use_one_thread() -> None:
    torch.set_num_threads(1)
