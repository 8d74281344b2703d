"""What test_gan_processes.py runs as two processes: the stages on half of a batch each.

python gan_processes.py RANK MEETING-FILE RESULT-FILE
"""

import math
import sys

import torch
from torch import distributed

from mfagan.architecture import parse
from mfagan.config import LossConfig, OptimizerConfig, TrainConfig
from mfagan.discriminator import PatchDiscriminator, PatchGanArchitecture
from mfagan.gan_stage import GanStage
from mfagan.generator import Generator
from mfagan.generator_optimizers import OptimizerChoice
from mfagan.rrdb import RRDBNet
from mfagan.space import SearchSpace
from mfagan.stages import Batch, PixelStage

SPACE = SearchSpace(widths=(4, 6), modules=(1, 2), convolutions=(2,), branches=(0, 1))
CASES = {
    "adam": OptimizerConfig(generator_optimizer="adam", pixel_optimizer="adam"),
    "still": OptimizerConfig(generator_optimizer="wsam", pixel_optimizer="wsam", rho=0.0),
    "moving": OptimizerConfig(generator_optimizer="wsam", pixel_optimizer="wsam", rho=0.1),
}
BATCH = 4


def choice(case, method):
    config = TrainConfig(optimizer=CASES[case])
    return OptimizerChoice(method=method, config=config, steps=10)


def gan_stage(case, accumulate=1):
    torch.manual_seed(0)
    return GanStage(
        "gan",
        Generator.supernet(SPACE),
        teacher=RRDBNet(parse("rrdb_x4_w4_b2_g2")),
        discriminator=PatchDiscriminator(PatchGanArchitecture(layers=2, features=4)),
        teacher_discriminator=PatchDiscriminator(PatchGanArchitecture(layers=2, features=5)),
        optimizer=choice(case, CASES[case].generator_optimizer),
        losses=LossConfig(adversarial_weight=0.3),
        learning_rate=1e-3,
        seed=0,
        autocast=False,
        accumulate=accumulate,
    )


def pixel_stage(case, accumulate=1):
    torch.manual_seed(0)
    return PixelStage(
        "pixel",
        Generator.supernet(SPACE),
        optimizer=choice(case, CASES[case].pixel_optimizer),
        learning_rate=1e-3,
        losses=LossConfig(),
        seed=0,
        autocast=False,
        accumulate=accumulate,
    )


STAGES = {"gan": gan_stage, "pixel": pixel_stage}


def batch(step, rank=None):
    """The whole batch of a step, or a process's half."""
    generator = torch.Generator().manual_seed(step)
    lr = torch.rand(BATCH, 3, 8, 8, generator=generator)
    hr = torch.rand(BATCH, 3, 32, 32, generator=generator)
    if rank is None:
        return Batch(lr=lr, hr=hr)
    half = slice(rank * BATCH // 2, (rank + 1) * BATCH // 2)
    return Batch(lr=lr[half], hr=hr[half])


def spy(stage):
    """Record what each base optimizer is given at every step."""
    found = []
    for name, optimizer in stage.optimizers.items():
        base = getattr(optimizer, "base_optimizer", optimizer)
        parameters = [p for group in base.param_groups for p in group["params"]]

        def step(name=name, parameters=parameters, real=base.step):
            given = [None if p.grad is None else p.grad.clone() for p in parameters]
            found.append((name, given))
            real()

        base.step = step
    return found


def weights(stage):
    return {name: network.state_dict() for name, network in stage.networks.items()}


def run(stage, rank=None, steps=3, damage=None):
    found, figures = spy(stage), []
    for step in range(steps):
        data = batch(step, rank)
        if damage == (rank, step):
            data.hr[0, 0, 0, 0] = math.nan
        figures.append(stage.step(data, step))
    return {"gradients": found, "figures": figures, "weights": weights(stage)}


def main(rank, meeting, result):
    from gloo import meet

    meet(rank, meeting)
    results = {
        (name, case, accumulate): run(make(case, accumulate), rank)
        for name, make in STAGES.items()
        for case in CASES
        for accumulate in (1, 2)
    }
    for name, make in STAGES.items():
        results[name, "damaged"] = run(make("moving"), rank, damage=(1, 1))
    torch.save(results, result)
    distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), *sys.argv[2:])
