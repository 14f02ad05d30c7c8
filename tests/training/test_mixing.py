"""CutMix: what an image gets, what its loss is, and that training with it resumes."""

import torch
from tasks import CROSS_ENTROPY, Witness, data, grey, linear, train

from repulse.training import Task
from repulse.training.mixing import cut_mixed


def test_a_mixed_image_holds_a_rectangle_of_another_and_pays_for_both_labels():
    model, _ = linear()
    x = torch.arange(6.0).view(6, 1, 1, 1).expand(6, 1, 20, 20) / 6
    y = torch.tensor([0, 1, 0, 1, 0, 1])
    z = torch.randn(6, 2)
    kept = []
    for seed in range(200):
        torch.manual_seed(seed)
        mixed, task = cut_mixed(Task(model, CROSS_ENTROPY), x, y, 1.0)
        changed = mixed[0] != x[0]
        pair = [
            int(6 * mixed[i].flatten()[(mixed[i] != x[i]).flatten()][0] + 0.5) if (mixed[i] != x[i]).any() else i
            for i in range(6)
        ]
        rows, columns = changed[0].any(1), changed[0].any(0)
        assert torch.equal(changed[0], rows.unsqueeze(1) & columns)
        share = 1 - float(rows.float().mean() * columns.float().mean())
        if pair[0] != 0:
            kept.append(share)
            own, other = CROSS_ENTROPY(z, y, model), CROSS_ENTROPY(z, y[pair], model)
            torch.testing.assert_close(task.loss(z, y)[0], (share * own + (1 - share) * other)[0])
    # Without the border the mean would be 1/2; the border keeps more of the image.
    assert 0.55 < sum(kept) / len(kept) < 0.75


def test_only_a_share_of_the_batches_is_mixed():
    model, _ = linear()
    x, y = torch.rand(8, 1, 16, 16), torch.arange(8) % 2
    touched = []
    for seed in range(300):
        torch.manual_seed(seed)
        touched.append(not torch.equal(cut_mixed(Task(model, CROSS_ENTROPY), x, y, 0.3)[0], x))
    assert 0.2 < sum(touched) / 300 < 0.36


def test_a_batch_that_is_not_mixed_keeps_its_loss():
    model, _ = linear()
    x, y = grey()
    mixed, task = cut_mixed(Task(model, CROSS_ENTROPY), x, y, 0.0)
    assert torch.equal(mixed, x)
    z = torch.randn(6, 2)
    torch.testing.assert_close(task.loss(z, y), CROSS_ENTROPY(z, y, model))


def test_training_with_it_resumes_bit_for_bit():
    witness, changes = Witness(), {"epochs": 3, "cutmix": 0.5}
    whole = train(None, data(), changes, watcher=witness)
    plain = train(None, data(), {"epochs": 3})
    assert not torch.equal(plain.backbone.body[1].weight, whole.backbone.body[1].weight)
    resumed = train(None, data(), changes, seed=9, state=witness.states[0])
    assert torch.equal(resumed.backbone.body[1].weight, whole.backbone.body[1].weight)
