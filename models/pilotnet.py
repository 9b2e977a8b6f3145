"""PilotNet: steering from pixels, by convolutions that end in one long vector.

Source: Bojarski et al., "End to end learning for self-driving cars", in the shape of the thesis (table 4.2), whose
images are some 80 times larger than the paper's: nine parameters in ten lie in the first linear layer.
"""

from __future__ import annotations

from torch import Tensor, nn

from models.bifpn import LEAK, initialised
from models.heads import LAST_GAIN, STEERING_STEPS, scaled

# (kernel px, stride, output channels), no padding
_CONVOLUTIONS = ((5, 2, 24), (5, 2, 36), (5, 2, 48), (3, 1, 64), (3, 1, 64))


class PilotNet(nn.Module):
    """Batch norm of the image, five convolutions, then 150, 70 and 10 hidden values.

    `width` scales the convolutions' channels, and the first linear layer with them. 140,696,494 parameters at 1024 px.
    """

    def __init__(self, size: int, width: float = 1.0) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.BatchNorm2d(3)]
        inputs, side = 3, size
        for kernel, stride, channels in _CONVOLUTIONS:
            outputs = scaled(channels, width)
            layers += [initialised(nn.Conv2d(inputs, outputs, kernel, stride)), nn.LeakyReLU(LEAK)]
            inputs, side = outputs, (side - kernel) // stride + 1
        self.layers = nn.Sequential(
            *layers,
            nn.Flatten(),
            initialised(nn.Linear(inputs * side**2, 150)), nn.LeakyReLU(LEAK),
            initialised(nn.Linear(150, 70)), nn.LeakyReLU(LEAK),
            initialised(nn.Linear(70, 10)), nn.LeakyReLU(LEAK),
            initialised(nn.Linear(10, STEERING_STEPS), LAST_GAIN),
        )  # fmt: skip

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) -> (B, 10), in units of steering_scale_deg, left negative, in order of time."""
        return self.layers(images)
