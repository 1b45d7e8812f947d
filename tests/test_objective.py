"""The loss is S3PRL's where padding counts, and the same in any batch where it does not."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file

from hf_distilhubert.objective import distillation_loss


def random_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    predictions, targets = (torch.randn(3, 2, 11, 8, generator=generator) for _ in range(2))
    frame_mask = torch.arange(11)[None] < torch.tensor([11, 7, 4])[:, None]
    return predictions, targets, frame_mask


def test_loss_without_a_mask_equals_s3prl(golden_dir):
    golden = load_file(golden_dir / "distillation" / "padded_loss.safetensors")
    loss = distillation_loss(golden["predictions"], golden["targets"])
    torch.testing.assert_close(loss.total[None], golden["loss"], rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.l1, golden["rec_per_layer"], rtol=1e-5, atol=0)
    torch.testing.assert_close(loss.cosine, golden["sim_per_layer"], rtol=1e-5, atol=0)


def test_masked_loss_is_the_loss_of_the_valid_frames(golden_dir):
    golden = load_file(golden_dir / "distillation" / "padded_loss.safetensors")
    predictions, targets, mask = golden["predictions"], golden["targets"], golden["frame_mask"].bool()
    # The same frames as one clip without padding, through S3PRL's own form of the loss.
    flat_predictions, flat_targets = (
        torch.cat([x[clip, :, mask[clip]] for clip in range(len(mask))], dim=1)[None]
        for x in (predictions, targets)
    )
    expected = distillation_loss(flat_predictions, flat_targets)
    loss = distillation_loss(predictions, targets, mask)
    torch.testing.assert_close(loss.total, expected.total, rtol=1e-5, atol=0)
    assert not torch.isclose(loss.total, distillation_loss(predictions, targets).total, rtol=1e-5)


def test_padding_has_no_say_in_the_masked_loss():
    predictions, targets, mask = random_batch()
    louder = torch.where(mask[:, None, :, None], predictions, 1e6)
    assert torch.equal(
        distillation_loss(predictions, targets, mask).total, distillation_loss(louder, targets, mask).total
    )


def test_losses_of_parts_add_up_to_the_loss_of_the_whole():
    predictions, targets, mask = random_batch()
    whole = distillation_loss(predictions, targets, mask)
    parts = [
        distillation_loss(predictions[k : k + 1], targets[k : k + 1], mask[k : k + 1], num_frames=mask.sum())
        for k in range(3)
    ]
    torch.testing.assert_close(sum(part.total for part in parts), whole.total)
    torch.testing.assert_close(sum(part.l1 for part in parts), whole.l1)


@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_cosine_weight_weighs_the_cosine_part(weight):
    loss = distillation_loss(*random_batch(), cosine_weight=weight)
    torch.testing.assert_close(loss.total, (loss.l1 + weight * loss.cosine).mean())


def test_half_precision_predictions_do_not_overflow():
    predictions = torch.full((1, 1, 2, 4), 6e4, dtype=torch.float16)
    assert torch.isfinite(distillation_loss(predictions, -predictions).total)
