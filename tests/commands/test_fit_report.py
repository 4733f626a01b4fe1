"""The picture of a run shows the frames in their colours, whatever the normalisation was."""

import numpy as np
import torch

from vjepa.commands.fit_report import shown_scale
from vjepa.data import ImageEvalTransform, TrainTransform
from vjepa.visualize.strips import pixels_of


def test_the_normalisation_of_the_run_is_undone():
    frames = torch.randint(0, 256, (1, 3, 16, 16), dtype=torch.uint8)
    look = TrainTransform(size=16, mean=(0.1, 0.5, 0.9), std=(0.3, 0.2, 0.1)).centred()
    video = look(frames)
    assert torch.equal(pixels_of(video, shown_scale(look, video))[:, 0], frames[0])
    image = ImageEvalTransform(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    assert pixels_of(image(frames), shown_scale(image, image(frames))).float().mean() > 100


def test_a_transform_that_does_not_say_it_is_shown_in_its_range():
    video = torch.linspace(-3, 5, 3 * 4).view(3, 1, 2, 2)

    def own(frames: torch.Tensor, generator: np.random.Generator) -> torch.Tensor:
        return video

    shown = pixels_of(video, shown_scale(own, video))
    assert shown.min() == 0 and shown.max() == 255
