"""A Siamese network: pairs of digits, one encoder, contrastive and triplet losses."""

import argparse
import random

import numpy as np
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.utils.data import DataLoader, Dataset, random_split
from torch.utils.data.sampler import SubsetRandomSampler, WeightedRandomSampler


class Pairs(Dataset):
    def __init__(self, images, labels):
        self.images, self.labels = images, labels
        self.group_examples = {c: np.where(labels.numpy() == c)[0] for c in range(10)}

    def __len__(self):
        return self.images.shape[0]

    def __getitem__(self, index):
        label = self.labels[index].item()
        positive = random.choice(self.group_examples[label])
        other = random.choice([c for c in range(10) if c != label])
        negative = random.choice(self.group_examples[other])
        return self.images[index], self.images[positive], self.images[int(negative)], {"label": label, "other": other}


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.cnn = nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1), nn.PReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ELU(), nn.AdaptiveMaxPool2d(2)
        )
        self.fc = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.LayerNorm(32), nn.Hardswish(), nn.Linear(32, 8))
        self.apply(self.init_weights)

    def init_weights(self, m):
        if isinstance(m, (nn.Linear, nn.Conv2d)):
            nn.init.xavier_uniform_(m.weight, gain=nn.init.calculate_gain("relu"))
            m.bias.data.fill_(0.01)

    def forward(self, x):
        return self.fc(self.cnn(x))


class ContrastiveLoss(nn.Module):
    def __init__(self, margin=1.0):
        super().__init__()
        self.margin = margin

    def forward(self, a, b, label):
        distance = F.pairwise_distance(a, b, keepdim=True)
        loss = torch.mean((1 - label) * torch.pow(distance, 2) + label * torch.pow(torch.clamp(self.margin - distance, min=0.0), 2))
        return loss


parser = argparse.ArgumentParser()
parser.add_argument("--data", required=True)
args = parser.parse_args()
random.seed(0)
torch.manual_seed(0)
table = torch.from_numpy(np.loadtxt(args.data, delimiter=",", dtype=np.float32))
images, labels = table[:, :64].reshape(-1, 1, 8, 8) / 16, table[:, 64].to(torch.int64)
full = Pairs(images[:900], labels[:900])
train, rest = random_split(full, [800, 100], generator=torch.Generator().manual_seed(0))
assert len(train) == 800 and len(rest) == 100
weights = 1.0 / torch.bincount(full.labels)[full.labels].double()
loader = DataLoader(full, batch_size=50, sampler=WeightedRandomSampler(weights, 700))
subset = DataLoader(full, batch_size=50, sampler=SubsetRandomSampler(train.indices[:300]))
net, contrastive = Encoder(), ContrastiveLoss()
triplet, cosine = nn.TripletMarginLoss(margin=1.0, p=2), nn.CosineEmbeddingLoss(margin=0.2)
optimizer = torch.optim.RMSprop([{"params": net.cnn.parameters(), "lr": 1e-3}, {"params": net.fc.parameters()}], lr=2e-3, alpha=0.9)
history = []
for epoch in range(3):
    for anchor, positive, negative, info in loader if epoch else subset:
        a, p, n = net(anchor), net(positive), net(negative)
        assert info["label"].ne(info["other"]).all()
        loss = contrastive(a, p, torch.zeros(len(a), 1)) + contrastive(a, n, torch.ones(len(a), 1)) + triplet(a, p, n)
        loss += cosine(a, p, torch.ones(len(a))) + cosine(a, n, -torch.ones(len(a)))
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_value_(net.parameters(), 1.0)
        optimizer.step()
        history.append(loss.item())
net.eval()
with torch.inference_mode():
    train_codes, test_codes = net(images[:900]), net(images[900:])
    nearest = torch.cdist(test_codes, train_codes).topk(5, largest=False).indices
    votes, _ = labels[nearest].mode(dim=1)
    accuracy = (votes == labels[900:]).double().mean().item()
print(f"first {np.mean(history[:3]):.4f} last {np.mean(history[-5:]):.4f} accuracy {accuracy:.4f}")
