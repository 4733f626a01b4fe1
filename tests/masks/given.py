"""A mask strategy for tests: always the same ids."""

import torch

from vjepa.masks import MaskStrategy
from vjepa.types import MaskPair, TokenGrid


class Given(MaskStrategy):
    """A given pair, whatever the generator; a pair of one row serves batches of any size."""

    def __init__(self, pair: MaskPair) -> None:
        self.pair = pair

    def sample(self, grid: TokenGrid, batch_size: int, generator: torch.Generator) -> MaskPair:
        return MaskPair(
            context=self.pair.context.expand(batch_size, -1), target=self.pair.target.expand(batch_size, -1)
        )
