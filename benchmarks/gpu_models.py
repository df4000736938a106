"""The models that `gpu.py` measures, written once for both libraries: each takes the module whose names are PyTorch's.

A function returns the model, the loss as a function of the model and a batch, and what draws a batch as NumPy arrays.
"""

from __future__ import annotations


def gpt2(torch, size):
    """GPT-2 (Radford et al., 2019): at full size 12 blocks of width 768, 124 million parameters, 1024 places."""
    nn, functional = torch.nn, torch.nn.functional
    layers, heads, width, places, words, sequences = {
        "full": (12, 12, 768, 1024, 50304, 16), "quick": (12, 12, 768, 1024, 50304, 4), "tiny": (2, 2, 32, 16, 96, 2),
    }[size]  # fmt: skip

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
            self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
            self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

        def forward(self, x):
            b, t, c = x.shape
            q, k, v = (part.view(b, t, heads, c // heads).transpose(1, 2) for part in self.qkv(self.norm1(x)).split(c, dim=2))
            y = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(b, t, c))
            return x + self.down(functional.gelu(self.up(self.norm2(x)), approximate="tanh"))

    class GPT2(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens, self.places = nn.Embedding(words, width), nn.Embedding(places, width)
            self.blocks = nn.Sequential(*[Block() for _ in range(layers)])
            self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, words, bias=False)
            self.head.weight = self.tokens.weight
            for parameter in self.parameters():
                if parameter.dim() > 1:
                    nn.init.normal_(parameter, std=0.02)

        def forward(self, x):
            x = self.tokens(x) + self.places(torch.arange(x.shape[1], device=x.device))
            return self.head(self.norm(self.blocks(x)))

    def loss(model, x, y):
        return functional.cross_entropy(model(x).view(-1, words), y)

    def draw(rng):
        return rng.integers(0, min(words, 50257), (sequences, places)), rng.integers(0, min(words, 50257), sequences * places)

    model = GPT2()
    # What a token costs, forward and backward (Chowdhery et al., 2022, appendix B); the table is counted as the head.
    parameters = sum(p.numel() for p in model.parameters()) - places * width
    flops = (6 * parameters + 12 * layers * width * places) * sequences * places
    return model, loss, draw, {"count": sequences * places, "flops": flops}


def resnet50(torch, size):
    """ResNet-50 (He et al., 2015) with the stride in the 3x3 convolutions.

    Both libraries have model and images with channels last in memory, the order in which cuDNN's convolutions of half types are fast.
    """
    nn, functional = torch.nn, torch.nn.functional
    images, edge, blocks, width = {
        "full": (128, 224, (3, 4, 6, 3), 64), "quick": (32, 224, (3, 4, 6, 3), 64), "tiny": (4, 32, (1, 1), 8),
    }[size]  # fmt: skip

    class Bottleneck(nn.Module):
        def __init__(self, inside, between, stride):
            super().__init__()
            outside = 4 * between
            self.conv1, self.bn1 = nn.Conv2d(inside, between, 1, bias=False), nn.BatchNorm2d(between)
            self.conv2, self.bn2 = nn.Conv2d(between, between, 3, stride, 1, bias=False), nn.BatchNorm2d(between)
            self.conv3, self.bn3 = nn.Conv2d(between, outside, 1, bias=False), nn.BatchNorm2d(outside)
            self.shortcut = None
            if stride != 1 or inside != outside:
                self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

        def forward(self, x):
            y = functional.relu(self.bn1(self.conv1(x)))
            y = functional.relu(self.bn2(self.conv2(y)))
            y = self.bn3(self.conv3(y))
            return functional.relu(y + (x if self.shortcut is None else self.shortcut(x)))

    stages, channels = [], width
    for number, count in enumerate(blocks):
        between = width << number
        for i in range(count):
            stages.append(Bottleneck(channels, between, 2 if i == 0 and number else 1))
            channels = 4 * between
    model = nn.Sequential(
        nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1), *stages,
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 1000),
    ).to(memory_format=torch.channels_last)  # fmt: skip

    def loss(model, x, y):
        return functional.cross_entropy(model(x), y)

    def draw(rng):
        return rng.standard_normal((images, 3, edge, edge), dtype="float32"), rng.integers(0, 1000, images)

    # 4.09 billion multiply-adds an image forward, and twice as many backward
    flops = 3 * 2 * 4.09e9 * images if size != "tiny" else None
    return model, loss, draw, {"count": images, "flops": flops}


def mlp(torch, size):
    """784-512-512-10: a step of it is hardly more than the cost of its launches."""
    nn = torch.nn
    model = nn.Sequential(nn.Linear(784, 512), nn.ReLU(), nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    batch = 8 if size == "tiny" else 128

    def loss(model, x, y):
        return nn.functional.cross_entropy(model(x), y)

    def draw(rng):
        return rng.standard_normal((batch, 784), dtype="float32"), rng.integers(0, 10, batch)

    return model, loss, draw, {"count": batch, "flops": None}


def lstm(torch, size):
    """An embedding, two layers of LSTM, and a linear layer on the last state."""
    nn = torch.nn
    words, width, sequences, length = {"full": (10000, 512, 64, 128), "quick": (10000, 512, 64, 64), "tiny": (50, 8, 4, 6)}[size]

    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.head = nn.Embedding(words, width), nn.Linear(width, 10)
            self.lstm = nn.LSTM(width, width, num_layers=2, batch_first=True)

        def forward(self, x):
            return self.head(self.lstm(self.embedding(x))[0][:, -1])

    def loss(model, x, y):
        return nn.functional.cross_entropy(model(x), y)

    def draw(rng):
        return rng.integers(0, words, (sequences, length)), rng.integers(0, 10, sequences)

    return Tagger(), loss, draw, {"count": sequences * length, "flops": None}


#: name -> title, what makes it, what is counted a second
MODELS = {
    "gpt2": ("GPT-2 124M, 1024 tokens a sequence, AdamW", gpt2, "tokens/s"),
    "resnet50": ("ResNet-50, images of 224 x 224, AdamW", resnet50, "images/s"),
    "mlp": ("MLP 784-512-512-10, batch 128, AdamW", mlp, "samples/s"),
    "lstm": ("LSTM, two layers of 512, AdamW", lstm, "tokens/s"),
}
