"""Outside of a distributed run; tests/mfagan/sharpness/test_sharpness_processes.py has two."""

import torch

from mfagan import processes


def test_one_process_is_the_first_of_one_and_agrees_with_itself():
    cpu = torch.device("cpu")
    assert (processes.rank(), processes.world_size()) == (0, 1)
    assert processes.all_agree(True, cpu)
    assert not processes.all_agree(False, cpu)


def test_one_process_exchanges_nothing():
    gradients = [torch.ones(2), None]
    assert processes.average(gradients, [torch.zeros(2), torch.zeros(3)]) is gradients
    assert processes.gather(gradients[0]) is gradients[0]
    processes.broadcast([gradients[0]])
    assert gradients[0].tolist() == [1.0, 1.0]
