"""A training in a process whose memory is limited for real: `python -m … BASE RUN MIB`.

Run by real_memory.py, which looks at the checkpoint.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import msgspec
import torch

from proxy.protocol.base_model import DirectoryModel
from tests.trainer.engines.test_loop import RECIPE, TRAINING, fresh
from trainer.batches import plan
from trainer.engines.loop import Loop
from trainer.tokens import Example

ROWS = 8


def main() -> None:
    torch.set_num_threads(1)
    base, run, mib = DirectoryModel(Path(sys.argv[1])), Path(sys.argv[2]), int(sys.argv[3])
    settings = msgspec.structs.replace(
        TRAINING, batch_rows=ROWS, micro_rows=ROWS, max_steps=2, precision="fp32"
    )
    recipe = msgspec.structs.replace(RECIPE, training=settings)
    # 400 supervised tokens a row: with this vocabulary their logits alone are 79 MB.
    examples = [Example([5 + n, *range(20, 420), 2], 1) for n in range(2 * ROWS)]
    loop = Loop(fresh(base, "fp32"), plan(examples, settings, 0), recipe, run, base_sha256="b")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    most = used + mib * 2**20
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    loop.fit()


if __name__ == "__main__":
    main()
