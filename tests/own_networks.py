"""Networks of a user's own, tiny: a file of code, and what the commands need to know of it."""

from utils.paper.pages import ROOT

_EXAMPLE = (ROOT / "utils" / "benchmarks" / "my_net.py").read_text(encoding="utf-8")
NET = (
    _EXAMPLE.partition("class MyNet")[0]
    + """
class MyNet(nn.Module):
    def __init__(self, num_classes=10, width=8, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, width, 3, 1, 1), nn.ReLU())
        self.blocks = nn.Sequential(Block(width, width, 1), Block(width, 2 * width, 2))
        self.hidden = nn.Linear(2 * width, 2 * width)
        self.head = nn.Linear(2 * width, num_classes)

    def forward(self, images):
        maps = self.blocks(self.stem(images))
        return self.head(torch.relu(self.hidden(maps.mean((2, 3)))))


class Barrier(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)

    def forward(self, images):
        return self.conv(images).mean((2, 3))


class Mixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3)
        self.head = nn.Linear(5, 10)

    def forward(self, images):
        maps = self.second(self.first(images))
        return self.head(torch.fft.rfft(maps, dim=1).abs().mean((2, 3)))


def raises():
    raise RuntimeError("no such data set")


def nothing():
    return 3
"""
)
